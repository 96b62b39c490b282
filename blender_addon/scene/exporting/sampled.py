"""What a scene shows at each frame, as arrays: the camera as rendered, and the points of an import.

Everything is in Blender's world, with the root where the artist put it: a root that is scaled scales the camera's path
and the points alike, so the picture stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import bpy
import numpy as np

from ...wire.errors import UserError
from ..conventions import OPENCV_FROM_BLENDER_CAMERA
from ..imported import LINKED, PLAYER, PROJECTED, STATIC, Imported


@dataclass(frozen=True)
class SampledCamera:
    """F frames of a camera.

    `world_from_camera` (F, 4, 4) rigid, with Blender's axes (x right, y up, looking along -z); `intrinsics` (F, 4)
    fx fy cx cy in edge-origin pixels of the render, y down; `lens_mm` (F,) on a sensor `sensor_width_mm` wide.
    """

    frames: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    lens_mm: np.ndarray
    sensor_width_mm: float
    size: tuple[int, int]
    pixel_aspect: float
    clip: tuple[float, float]
    fps: float

    @property
    def camera_from_world(self) -> np.ndarray:
        """(F, 4, 4) with OpenCV's axes (x right, y down, looking along z)."""
        return np.linalg.inv(self.world_from_camera @ OPENCV_FROM_BLENDER_CAMERA)

    @property
    def lens_is_animated(self) -> bool:
        return bool(np.ptp(self.intrinsics, axis=0).max() > 1e-3)

    @property
    def shift(self) -> np.ndarray:
        """(F, 2) how far the principal point is left of and below the picture's middle, in widths of the picture."""
        width, height = self.size
        cx, cy = self.intrinsics[:, 2:].T
        return np.stack([0.5 - cx / width, (cy - height / 2) / (width * self.pixel_aspect)], axis=1)


@contextmanager
def visiting(scene: bpy.types.Scene) -> Iterator[Callable[[int], bpy.types.Depsgraph]]:
    """A function that goes to a frame of the scene and gives what is evaluated there; the artist's frame comes back."""
    before, part = scene.frame_current, scene.frame_subframe
    layer = next(iter(scene.view_layers))

    def go(frame: int) -> bpy.types.Depsgraph:
        scene.frame_set(int(frame))
        layer.update()
        return layer.depsgraph

    try:
        yield go
    finally:
        scene.frame_set(before, subframe=part)


def sample_camera(
    scene: bpy.types.Scene,
    camera: bpy.types.Object,
    frames: np.ndarray,
    told: Callable[[float], None] = lambda fraction: None,
) -> SampledCamera:
    """The camera at each of the (F,) frames as the scene would render it. Raises UserError for other lenses."""
    if camera.data.type != "PERSP":
        raise UserError(f"{camera.name} is not a perspective camera", "choose the camera of the capture")
    render = scene.render
    scale = render.resolution_percentage / 100
    width, height = round(render.resolution_x * scale), round(render.resolution_y * scale)
    poses, lenses, lens_mm = [], [], []
    with visiting(scene) as go:
        for number, frame in enumerate(frames):
            told(number / len(frames))
            depsgraph = go(frame)
            ob = camera.evaluated_get(depsgraph)
            poses.append(np.array(ob.matrix_world.normalized(), np.float64))
            projection = np.array(
                ob.calc_matrix_camera(
                    depsgraph, x=width, y=height, scale_x=render.pixel_aspect_x, scale_y=render.pixel_aspect_y
                ),
                np.float64,
            )
            # Clip space is [-1, 1] with y up, and the camera looks along -z.
            fx, fy = projection[0, 0] * width / 2, projection[1, 1] * height / 2
            lenses.append((fx, fy, (1 - projection[0, 2]) * width / 2, (1 + projection[1, 2]) * height / 2))
            lens_mm.append(fx / width * ob.data.sensor_width)
    return SampledCamera(
        frames=np.asarray(frames, int),
        world_from_camera=np.array(poses),
        intrinsics=np.array(lenses),
        lens_mm=np.array(lens_mm),
        sensor_width_mm=camera.data.sensor_width,
        size=(width, height),
        pixel_aspect=render.pixel_aspect_x / render.pixel_aspect_y,
        clip=(camera.data.clip_start, camera.data.clip_end),
        fps=render.fps / render.fps_base,
    )


@dataclass(frozen=True)
class SampledPoints:
    """N points: `positions` (N, 3) float32 in Blender's world, `colors` (N, 3) uint8 sRGB, and what else they carry."""

    positions: np.ndarray
    colors: np.ndarray
    attributes: dict[str, np.ndarray]


def clouds_of(imported: Imported) -> list[bpy.types.Object]:
    """The objects that show points of an import and are rendered."""
    found = [ob for role in (PLAYER, STATIC, LINKED, PROJECTED) for ob in imported.objects(role)]
    return [ob for ob in found if not ob.hide_render]


def sample_points(objects: list[bpy.types.Object], depsgraph: bpy.types.Depsgraph) -> SampledPoints:
    """What the objects show together, after all their filters."""
    parts = [part for ob in objects if (part := _points_of(ob, depsgraph)) is not None]
    if not parts:
        return SampledPoints(np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), {})
    shared = set.intersection(*(set(part.attributes) for part in parts))
    return SampledPoints(
        np.concatenate([part.positions for part in parts]),
        np.concatenate([part.colors for part in parts]),
        {name: np.concatenate([part.attributes[name] for part in parts]) for name in sorted(shared)},
    )


def _points_of(ob: bpy.types.Object, depsgraph: bpy.types.Depsgraph) -> SampledPoints | None:
    evaluated = ob.evaluated_get(depsgraph)
    geometry = evaluated.evaluated_geometry()  # must live as long as its cloud is read
    cloud = geometry.pointcloud
    if cloud is None or not len(cloud.points):
        return None
    count = len(cloud.points)
    world = np.array(evaluated.matrix_world)
    positions = _read(cloud, "position", "vector", 3) @ world[:3, :3].T + world[:3, 3]
    colors = np.full((count, 3), 255, np.uint8)
    attributes: dict[str, np.ndarray] = {}
    for attribute in cloud.attributes:
        if attribute.domain != "POINT":
            continue
        if attribute.name == "Color" and attribute.data_type in ("BYTE_COLOR", "FLOAT_COLOR"):
            srgb = _read(cloud, "Color", "color_srgb", 4)[:, :3]
            colors = np.round(np.clip(srgb, 0, 1) * 255).astype(np.uint8)
        elif attribute.name in ("confidence", "dynamic", "object") and attribute.data_type != "FLOAT_COLOR":
            kind = {"BOOLEAN": bool, "FLOAT": np.float32}.get(attribute.data_type, np.int32)
            values = np.empty(count, kind)
            attribute.data.foreach_get("value", values)
            attributes[attribute.name] = values.astype(np.uint8) if kind is np.int32 else values
    return SampledPoints(positions.astype(np.float32), colors, attributes)


def _read(cloud: bpy.types.PointCloud, name: str, field: str, width: int) -> np.ndarray:
    values = np.empty(len(cloud.points) * width, np.float32)
    cloud.attributes[name].data.foreach_get(field, values)
    return values.reshape(-1, width)
