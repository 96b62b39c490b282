"""USD, Alembic and FBX: Blender's own exporters, on the objects of one import, with their losses said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy
import numpy as np

from ...wire.errors import UserError
from .sampled import SampledCamera


@contextmanager
def alone_in_a_collection(scene: bpy.types.Scene, objects: list[bpy.types.Object]) -> Iterator[str]:
    """The name of a temporary collection with these objects: all three exporters can be told to take just one."""
    collection = bpy.data.collections.new("Kinora Export")
    try:
        for ob in objects:
            collection.objects.link(ob)
        scene.collection.children.link(collection)
        yield collection.name
    finally:
        bpy.data.collections.remove(collection)


@contextmanager
def playing(scene: bpy.types.Scene, frames: np.ndarray) -> Iterator[None]:
    """The scene's range is that of the export, for exporters that take it from there."""
    before = scene.frame_start, scene.frame_end, scene.frame_step, scene.frame_current
    scene.frame_start, scene.frame_end, scene.frame_step = int(frames[0]), int(frames[-1]), 1
    try:
        yield
    finally:
        scene.frame_start, scene.frame_end, scene.frame_step = before[:3]
        scene.frame_set(before[3])


def write_usd(path: Path, scene: bpy.types.Scene, objects: list[bpy.types.Object], frames: np.ndarray) -> None:
    """Camera and points with their colours; exact in every Blender from 4.5 on."""
    with alone_in_a_collection(scene, objects) as collection, playing(scene, frames):
        _call(bpy.ops.wm.usd_export, filepath=str(path), collection=collection, export_animation=True)


def write_alembic(path: Path, scene: bpy.types.Scene, objects: list[bpy.types.Object], frames: np.ndarray) -> None:
    """Camera and its parents; Alembic has no point clouds in Blender."""
    with alone_in_a_collection(scene, objects) as collection, playing(scene, frames):
        options = {"collection": collection, "start": int(frames[0]), "end": int(frames[-1])}
        _call(bpy.ops.wm.alembic_export, filepath=str(path), as_background_job=False, **options)


def write_fbx(path: Path, scene: bpy.types.Scene, objects: list[bpy.types.Object], frames: np.ndarray) -> None:
    """Camera and its parents, a key at every frame."""
    if "fbx" not in dir(bpy.ops.export_scene):
        raise UserError("Blender's FBX add-on is switched off", "enable it in the preferences")
    options = {"object_types": {"CAMERA", "EMPTY"}, "bake_anim": True, "bake_anim_simplify_factor": 0.0}
    with alone_in_a_collection(scene, objects) as collection, playing(scene, frames):
        _call(
            bpy.ops.export_scene.fbx,
            filepath=str(path),
            collection=collection,
            bake_anim_use_all_actions=False,
            bake_anim_use_nla_strips=False,
            **options,
        )


def alembic_losses(camera: SampledCamera) -> list[str]:
    """What Alembic does not carry of this camera."""
    if camera.lens_is_animated and bpy.app.version < (5, 2):
        return ["Blender before 5.2 reads the lens of an Alembic camera as constant: use USD for a zoom"]
    return []


def fbx_losses(camera: SampledCamera) -> list[str]:
    """What FBX does not carry of this camera."""
    if np.ptp(camera.shift, axis=0).max() > 1e-6:
        return ["FBX does not carry an animated lens shift: use USD for this camera"]
    return []


def _call(operator, **options) -> None:
    """Run an exporter. Raises UserError with what it says."""
    try:
        result = operator(**options)
    except RuntimeError as error:
        raise UserError(f"Blender's exporter failed: {str(error).strip()}", "see the system console") from error
    if "FINISHED" not in result:
        raise UserError("Blender's exporter did not finish", "see the system console")
