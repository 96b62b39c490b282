"""Importing as the window sees it: the cursor shows how far it is, nothing is pulled from under the artist's hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bpy

from ..scene.build import import_capture
from ..scene.imported import import_of, imported_in
from ..scene.live import give_way
from ..scene.options import ImportOptions
from ..scene.steps import Progress


def import_with_cursor(folder: Path, scene: bpy.types.Scene, options: ImportOptions) -> bpy.types.Collection:
    """`import_capture`, with its progress at the mouse cursor. Raises UserError when the capture cannot be read."""
    found = frozenset(imported.root.session_uid for imported in imported_in(scene))
    with progress_at_cursor() as progress:
        collection = import_capture(folder, scene, options, progress)
    give_way(import_of(collection, scene), folder, found)
    if options.set_scene:
        look_through_camera(scene)
    return collection


@contextmanager
def progress_at_cursor() -> Iterator[Progress]:
    """A `run_progress` that shows at the mouse cursor how far the work is."""
    manager = bpy.context.window_manager
    manager.progress_begin(0, 100)
    try:
        yield lambda stage, fraction: manager.progress_update(100 * fraction)
    finally:
        manager.progress_end()


def look_through_camera(scene: bpy.types.Scene) -> None:
    """Turn the 3D views of `scene` to its camera, in colour: Solid shading draws every point grey."""
    for space in views_of(scene):
        space.region_3d.view_perspective = "CAMERA"
        if space.shading.type in {"SOLID", "WIREFRAME"}:
            space.shading.type = "MATERIAL"


def show_attributes(scene: bpy.types.Scene) -> None:
    """Turn 3D views of `scene` that have Blender's plain Solid shading to colours from attributes."""
    for space in views_of(scene):
        if space.shading.type == "SOLID" and space.shading.color_type == "MATERIAL":
            space.shading.color_type = "VERTEX"


def views_of(scene: bpy.types.Scene) -> Iterator[bpy.types.SpaceView3D]:
    """The 3D views that show a scene."""
    for window in bpy.context.window_manager.windows:
        if window.scene == scene:
            yield from (area.spaces.active for area in window.screen.areas if area.type == "VIEW_3D")


def hands_off(scene: bpy.types.Scene) -> bool:
    """True when data may be added: nobody renders, transforms, or works on the scene outside Object Mode."""
    if bpy.app.is_job_running("RENDER"):
        return False
    for window in bpy.context.window_manager.windows:
        active = window.view_layer.objects.active
        if window.scene == scene and active is not None and active.mode != "OBJECT":
            return False
        if any(operator.bl_idname.startswith("TRANSFORM_OT_") for operator in window.modal_operators):
            return False
    return True


def push_undo(message: str) -> None:
    """One step for Ctrl-Z, from a timer, where no window is in context."""
    windows = bpy.context.window_manager.windows
    with bpy.context.temp_override(**({"window": windows[0]} if windows else {})):
        bpy.ops.ed.undo_push(message=message)
