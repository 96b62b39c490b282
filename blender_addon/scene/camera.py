"""The camera of a capture: animated pose and lens, and the proof that it agrees with the capture."""

from __future__ import annotations

import bpy
import numpy as np
from mathutils import Matrix

from ..wire.capture import Capture
from .conventions import OPENCV_FROM_BLENDER_CAMERA, BlenderLens, blender_lens, rays_matrix, sensor_width
from .keys import key
from .workbench import evaluated, workbench


def make_camera(name: str, capture: Capture, scene_frames: np.ndarray) -> tuple[bpy.types.Object, BlenderLens]:
    """A camera with a key at each of the (T,) scene frames that has a pose, in the capture's world.

    Frames without a pose get no key, so that Blender interpolates there. What never changes is not keyed.
    """
    posed = capture.has_camera
    width, height = capture.clip.plate_size
    lens = blender_lens(capture.plate_intrinsics[posed], (width, height), sensor_width(capture))

    data = bpy.data.cameras.new(name)
    data.sensor_fit = "HORIZONTAL"  # 'AUTO' would turn with portrait plates
    data.sensor_width = lens.sensor_width_mm
    data.sensor_height = lens.sensor_width_mm * height / width
    near, typical, far = _depth_range(capture)
    data.clip_start, data.clip_end = near * 0.1, far * 10
    data.display_size = typical * 0.15

    ob = bpy.data.objects.new(name, data)
    ob.rotation_mode = "QUATERNION"
    matrices = [Matrix(m) for m in capture.world_from_camera[posed] @ OPENCV_FROM_BLENDER_CAMERA]
    location = np.array([m.translation for m in matrices])
    rotation = _continuous(np.array([m.to_quaternion() for m in matrices]))
    action = bpy.data.actions.new(name)
    channels = [
        (ob, "location", location),
        (ob, "rotation_quaternion", rotation),
        (data, "lens", lens.lens_mm),
        (data, "shift_x", lens.shift_x),
        (data, "shift_y", lens.shift_y),
    ]
    for owner, path, values in channels:
        setattr(owner, path, values[0])
        if owner is ob or np.ptp(values) > 1e-6 * max(1.0, abs(values[0])):
            key(owner, action, path, scene_frames[posed], values)
    return ob, lens


def _continuous(quaternions: np.ndarray) -> np.ndarray:
    """Flip signs so that each (T, 4) quaternion is on the side of the one before: q and -q are one rotation."""
    turns = np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate([[1.0], np.cumprod(turns)])[:, None]


def settle(camera: bpy.types.Object, frame: int) -> None:
    """Put a camera where its keys want it at a frame: a scene that just got it does not look at keys by itself."""
    with workbench(camera) as bench:
        bench.frame_set(frame)
        state = _state(evaluated(camera, bench))
    _restore(camera, state)


def _state(camera: bpy.types.Object) -> tuple[Matrix, list[float]]:
    return camera.matrix_basis.copy(), [getattr(camera.data, name) for name in _LENS]


def _restore(camera: bpy.types.Object, state: tuple[Matrix, list[float]]) -> None:
    camera.matrix_basis = state[0]
    for name, value in zip(_LENS, state[1]):
        setattr(camera.data, name, value)


def _depth_range(capture: Capture) -> tuple[float, float, float]:
    """Near, typical and far depth of the shot; 0.1, 1 and 100 where nothing was measured."""
    sample = capture.depth[:: max(1, capture.frame_count // 16), ::8, ::8]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if not sample.size:
        return 0.1, 1.0, 100.0
    return tuple(float(q) for q in np.percentile(sample, (0, 50, 100)))


_LENS = ("lens", "shift_x", "shift_y")
Framing = tuple[int, int, float, float]  # render width and height, pixel aspect x and y


def plate_framing(capture: Capture, lens: BlenderLens) -> Framing:
    """The render settings that show exactly the plate."""
    return (*capture.clip.plate_size, *lens.pixel_aspect)


def scene_framing(scene: bpy.types.Scene) -> Framing:
    """The render settings that a scene has."""
    render = scene.render
    return render.resolution_x, render.resolution_y, render.pixel_aspect_x, render.pixel_aspect_y


def projection_matrix(camera: bpy.types.Object, scene: bpy.types.Scene, framing: Framing) -> np.ndarray:
    """(4, 4) clip space from Blender's world, of the camera as `scene` evaluates it now."""
    ob = evaluated(camera, scene)
    width, height, aspect_x, aspect_y = framing
    clip_from_camera = ob.calc_matrix_camera(
        scene.view_layers[0].depsgraph, x=width, y=height, scale_x=aspect_x, scale_y=aspect_y
    )
    camera_from_world = np.linalg.inv(np.array(ob.matrix_world.normalized(), np.float64))
    return np.array(clip_from_camera, np.float64) @ camera_from_world


def to_plate(clip_from_world: np.ndarray, points: np.ndarray, plate_size: tuple[int, int]) -> np.ndarray:
    """(N, 2) edge-origin plate pixels, y down, of (N, 3) Blender world points."""
    projected = points @ clip_from_world[:3, :3].T + clip_from_world[:3, 3]
    w = points @ clip_from_world[3, :3] + clip_from_world[3, 3]
    x, y = (projected[:, :2] / w[:, None]).T
    return np.stack([x + 1, 1 - y], axis=1) / 2 * plate_size


def camera_agreement(camera: bpy.types.Object, framing: Framing, capture: Capture, scene_frames: np.ndarray) -> float:
    """Largest distance in plate pixels between where Blender's camera and the capture's own see the same points.

    At every frame with a camera, a grid of pixels that reaches into the plate's corners, at near and far depth, goes
    through the capture's pinhole into the world and comes back through Blender's evaluated camera and the render
    settings `framing`. The artist's scene is not evaluated for it.
    """
    width, height = capture.clip.plate_size
    u, v = np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9))
    plate = np.stack([u.ravel(), v.ravel()], axis=1)
    near, _, far = _depth_range(capture)
    root = camera.parent
    intrinsics = capture.plate_intrinsics
    worst = 0.0
    state = _state(camera)  # Blender writes animated values back to what it evaluates
    with workbench(camera, *([root] if root else [])) as bench:
        for frame in np.flatnonzero(capture.has_camera):
            bench.frame_set(int(scene_frames[frame]))
            world = np.array(evaluated(root, bench).matrix_world if root else Matrix(), np.float64)
            clip_from_world = projection_matrix(camera, bench, framing)
            pose = capture.world_from_camera[frame]
            rays = np.c_[plate, np.ones(len(plate))] @ rays_matrix(intrinsics[frame], pose).T
            for depth in (near, far):
                points = (rays * depth + pose[:3, 3]) @ world[:3, :3].T + world[:3, 3]
                error = to_plate(clip_from_world, points, (width, height)) - plate
                worst = max(worst, float(np.hypot(*error.T).max()))
    _restore(camera, state)
    return worst
