"""The camera of a capture: animated pose and lens, and the proof that it agrees with the capture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import bpy
import numpy as np

from ..wire.capture import Capture
from .camera_path import CameraPath, camera_path
from .conventions import BlenderLens, blender_lens, rays_matrix, sensor_width
from .keys import key, unkey
from .workbench import evaluated, workbench

#: Scene frame of each frame of the capture, kept on the camera.
SCENE_FRAMES = "kinora_scene_frames"
#: The render settings that show exactly the plate, kept on the camera.
PLATE_FRAMING = "kinora_plate_framing"


def make_camera(name: str, capture: Capture, scene_frames: np.ndarray) -> tuple[bpy.types.Object, BlenderLens]:
    """A camera with a key at each of the (T,) scene frames that has a pose, in the capture's world.

    Frames without a pose get no key, so that Blender interpolates there. What never changes is not keyed.
    """
    width, height = capture.clip.plate_size
    lens = blender_lens(capture.plate_intrinsics[capture.has_camera], (width, height), sensor_width(capture))

    data = bpy.data.cameras.new(name)
    data.sensor_fit = "HORIZONTAL"  # 'AUTO' would turn with portrait plates
    data.sensor_width = lens.sensor_width_mm
    data.sensor_height = lens.sensor_width_mm * height / width
    near, typical, far = _depth_range(capture)
    data.clip_start, data.clip_end = near * 0.1, far * 10
    data.display_size = typical * 0.15

    ob = bpy.data.objects.new(name, data)
    ob.rotation_mode = "QUATERNION"
    ob[SCENE_FRAMES] = [int(f) for f in scene_frames]
    ob[PLATE_FRAMING] = [float(value) for value in plate_framing(capture, lens)]
    key_path(ob, camera_path(capture, scene_frames, lens.sensor_width_mm))
    return ob, lens


def key_path(camera: bpy.types.Object, path: CameraPath) -> None:
    """Give a camera exactly these keys, in place of those it has; what never changes is set and not keyed."""
    data = camera.data
    camera.rotation_mode = "QUATERNION"
    channels = [
        (camera, "location", path.location),
        (camera, "rotation_quaternion", path.rotation),
        (data, "lens", path.lens),
        (data, "shift_x", path.shift_x),
        (data, "shift_y", path.shift_y),
    ]
    for owner, name, values in channels:
        setattr(owner, name, values[0])
        if owner is camera or np.ptp(values) > 1e-6 * max(1.0, abs(values[0])):
            key(owner, camera.animation_data and camera.animation_data.action, name, path.frames, values)
        else:
            unkey(owner, name)


def settle(camera: bpy.types.Object, frame: int) -> None:
    """Put a camera where its keys want it at a frame: a scene that just got it does not look at keys by itself."""
    with workbench(camera) as bench:
        bench.frame_set(frame)
        state = _state(evaluated(camera, bench))
    _restore(camera, state)


@contextmanager
def as_it_stands(*objects: bpy.types.Object) -> Iterator[None]:
    """Give objects back their transforms and lenses: Blender writes animated values back to what it evaluates."""
    states = [_state(ob) for ob in objects]
    try:
        yield
    finally:
        for ob, state in zip(objects, states):
            _restore(ob, state)


def _state(ob: bpy.types.Object) -> tuple[list[tuple[float, ...]], list[float]]:
    # By channel, since a matrix that is taken apart again is off by a bit.
    place = [tuple(getattr(ob, name)) for name in _PLACE]
    return place, [getattr(ob.data, name) for name in _LENS] if ob.type == "CAMERA" else []


def _restore(ob: bpy.types.Object, state: tuple[list[tuple[float, ...]], list[float]]) -> None:
    for names, owner, values in ((_PLACE, ob, state[0]), (_LENS, ob.data, state[1])):
        for name, value in zip(names, values):
            setattr(owner, name, value)


def _depth_range(capture: Capture) -> tuple[float, float, float]:
    """Near, typical and far depth of the shot; 0.1, 1 and 100 where nothing was measured."""
    sample = capture.depth[:: max(1, capture.frame_count // 16), ::8, ::8]
    sample = sample[np.isfinite(sample) & (sample > 0)]
    if not sample.size:
        return 0.1, 1.0, 100.0
    return tuple(float(q) for q in np.percentile(sample, (0, 50, 100)))


_PLACE = ("location", "rotation_quaternion", "rotation_euler", "rotation_axis_angle", "scale")
_LENS = ("lens", "shift_x", "shift_y")
Framing = tuple[int, int, float, float]  # render width and height, pixel aspect x and y


def plate_framing(capture: Capture, lens: BlenderLens | None = None) -> Framing:
    """The render settings that show exactly the plate."""
    if lens is None:
        lens = blender_lens(capture.plate_intrinsics[capture.has_camera], capture.clip.plate_size, 36.0)
    return (*capture.clip.plate_size, *lens.pixel_aspect)


def scene_framing(scene: bpy.types.Scene) -> Framing:
    """The render settings that a scene has."""
    render = scene.render
    return render.resolution_x, render.resolution_y, render.pixel_aspect_x, render.pixel_aspect_y


def shows_plate(camera: bpy.types.Object, scene: bpy.types.Scene) -> bool:
    """Whether the scene's render has the shape of the plate; its size may be another one."""
    shapes = [w * ax / (h * ay) for w, h, ax, ay in (camera[PLATE_FRAMING], scene_framing(scene))]
    # Half a pixel of the render's height, which is whole.
    return abs(shapes[1] / shapes[0] - 1) <= 0.5 / scene.render.resolution_y + 1e-6


def projection_matrix(camera: bpy.types.Object, scene: bpy.types.Scene, framing: Framing) -> np.ndarray:
    """(4, 4) clip space from Blender's world, of the camera as `scene` evaluates it now."""
    ob = evaluated(camera, scene)
    width, height, aspect_x, aspect_y = framing
    clip_from_camera = ob.calc_matrix_camera(
        scene.view_layers[0].depsgraph, x=width, y=height, scale_x=aspect_x, scale_y=aspect_y
    )
    camera_from_world = np.linalg.inv(np.array(ob.matrix_world.normalized(), np.float64))
    return np.array(clip_from_camera, np.float64) @ camera_from_world


def projections(
    camera: bpy.types.Object, root: bpy.types.Object | None, framing: Framing, scene_frames: np.ndarray
) -> np.ndarray:
    """(T, 4, 4) clip space from the capture's world at (T,) scene frames, by Blender's evaluated camera and root.

    The artist's scene is not evaluated for it, and nothing of it is moved.
    """
    objects = [camera, *([root] if root else [])]
    matrices = np.empty((len(scene_frames), 4, 4))
    with as_it_stands(*objects), workbench(*objects) as bench:
        for i, frame in enumerate(scene_frames):
            bench.frame_set(int(frame))
            matrices[i] = projection_matrix(camera, bench, framing)
            if root:
                matrices[i] @= np.array(root.evaluated_get(bench.view_layers[0].depsgraph).matrix_world, np.float64)
    return matrices


def to_plate(clip_from_world: np.ndarray, points: np.ndarray, plate_size: tuple[int, int]) -> np.ndarray:
    """(..., N, 2) edge-origin plate pixels, y down, of (..., N, 3) points by (..., 4, 4); NaN behind the camera."""
    turned = np.swapaxes(clip_from_world, -1, -2)
    projected = points @ turned[..., :3, :] + turned[..., 3:, :]
    w = projected[..., 3:]
    with np.errstate(divide="ignore", invalid="ignore"):
        seen = np.where(w > 0, projected[..., :2] / w, np.nan)
    return (seen * (1, -1) + 1) / 2 * plate_size


def reframed(clip_from_world: np.ndarray, framing: Framing, other: Framing) -> np.ndarray:
    """(..., 4, 4) clip space of a horizontally fitted camera for other render settings: only the height differs."""
    ratios = [width * aspect_x / (height * aspect_y) for width, height, aspect_x, aspect_y in (framing, other)]
    return clip_from_world * np.array([1.0, ratios[1] / ratios[0], 1.0, 1.0])[:, None]


def camera_agreement(camera: bpy.types.Object, framing: Framing, capture: Capture, scene_frames: np.ndarray) -> float:
    """`disagreement_px` of a camera, as it is under its root now, with a capture."""
    return disagreement_px(projections(camera, camera.parent, framing, scene_frames), capture)


def disagreement_px(clip_from_capture: np.ndarray, capture: Capture) -> float:
    """Largest distance in plate pixels between where (T, 4, 4) projections and the capture's cameras see a point.

    At every frame with a camera, a grid of pixels that reaches into the plate's corners, at near and far depth, goes
    through the capture's pinhole into the world and comes back through the projection.
    """
    width, height = capture.clip.plate_size
    u, v = np.meshgrid(np.linspace(0, width, 9), np.linspace(0, height, 9))
    plate = np.stack([u.ravel(), v.ravel()], axis=1)
    near, _, far = _depth_range(capture)
    intrinsics = capture.plate_intrinsics
    worst = 0.0
    for frame in np.flatnonzero(capture.has_camera):
        pose = capture.world_from_camera[frame]
        rays = np.c_[plate, np.ones(len(plate))] @ rays_matrix(intrinsics[frame], pose).T
        points = np.concatenate([rays * near, rays * far]) + pose[:3, 3]
        error = to_plate(clip_from_capture[frame], points, (width, height)) - np.tile(plate, (2, 1))
        worst = max(worst, float(np.nan_to_num(np.hypot(*error.T), nan=np.inf).max()))
    return worst
