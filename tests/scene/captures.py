"""Captures for the importer's tests, and what Blender makes of them, as arrays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from backend.export.images import add_images
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.nodes import PLAYER, STATIC
from blender_addon.wire.capture import Capture, write_capture
from tests.worlds import as_capture, room


def small(frames: int = 4, plate_size: tuple[int, int] = (96, 64), **clip) -> Capture:
    """A room of 48 x 32 points with a box that slides through it; `clip` replaces fields of the clip's info."""
    capture = as_capture(room(frames, 48, 32), plate_size)
    return replace(capture, clip=replace(capture.clip, **clip))


def with_frames_skipped(capture: Capture, indices: tuple[int, ...]) -> Capture:
    """The same capture, made of these frames of the clip."""
    times = tuple(float(i / capture.clip.fps) for i in indices)
    return replace(capture, clip=replace(capture.clip, frame_indices=indices, timestamps=times))


def imported(capture: Capture, folder: Path, scene: bpy.types.Scene, images: bool = False, **options):
    """Write the capture and import it, with every point of every frame unless `storage` says otherwise.

    Most tests need no pictures, so those are written on request.
    """
    path = write_capture(capture, folder / "capture", [add_images] if images else [])
    return import_capture(path, scene, ImportOptions(**{"storage": "frames"} | options))


def player_of(collection: bpy.types.Collection) -> bpy.types.Object:
    return next(ob for ob in collection.objects if ob.modifiers and ob.modifiers[0].name == PLAYER)


def static_of(collection: bpy.types.Collection) -> bpy.types.Object:
    return next(ob for ob in collection.objects if ob.modifiers and ob.modifiers[0].name == STATIC)


def camera_of(collection: bpy.types.Collection) -> bpy.types.Object:
    return next(ob for ob in collection.objects if ob.type == "CAMERA")


#: How the values of an attribute are read: the name of the field, how many numbers, and of which type.
READ = {
    "FLOAT": ("value", 1, np.float32),
    "INT": ("value", 1, np.int32),
    "BOOLEAN": ("value", 1, bool),
    "FLOAT_VECTOR": ("vector", 3, np.float32),
    "BYTE_COLOR": ("color_srgb", 4, np.float32),
    "FLOAT_COLOR": ("color_srgb", 4, np.float32),
}


def shown(ob: bpy.types.Object) -> dict[str, np.ndarray]:
    """What an object shows now: every attribute of its points, positions (N, 3) in the world, Color (N, 4) uint8."""
    evaluated = ob.evaluated_get(bpy.context.evaluated_depsgraph_get())
    geometry = evaluated.evaluated_geometry()
    cloud = geometry.pointcloud
    if cloud is None or not len(cloud.points):
        return {"position": np.empty((0, 3))}
    arrays = {}
    for attribute in cloud.attributes:
        field, width, kind = READ[attribute.data_type]
        values = np.empty(len(cloud.points) * width, kind)
        attribute.data.foreach_get(field, values)
        arrays[attribute.name] = values.reshape(-1, width) if width > 1 else values
    world = np.array(evaluated.matrix_world)
    arrays["position"] = arrays["position"] @ world[:3, :3].T + world[:3, 3]
    arrays["Color"] = np.round(arrays["Color"] * 255).astype(np.uint8)
    return arrays


def seen_at(points: np.ndarray, scene: bpy.types.Scene) -> np.ndarray:
    """(N, 2) edge-origin pixels, y down, at which the scene's camera sees world points, by Blender's own projection."""
    camera = scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    views = np.array([world_to_camera_view(scene, camera, Vector(p)) for p in points])
    return np.stack([views[:, 0], 1 - views[:, 1]], axis=1) * (scene.render.resolution_x, scene.render.resolution_y)
