"""Showing a datablock in the editor that it belongs to: one that is open already, or a new window."""

from __future__ import annotations

import bpy
import numpy as np

from ..scene.images import Timing
from ..wire.errors import UserError

#: Editor -> its name, and what an area's `ui_type` calls it.
EDITORS = {
    "IMAGE": ("Image Editor", "IMAGE_EDITOR"),
    "CLIP": ("Movie Clip Editor", "CLIP_EDITOR"),
    "COMPOSITOR": ("Compositor", "CompositorNodeTree"),
    "SEQUENCER": ("Video Sequencer", "SEQUENCE_EDITOR"),
}


def open_editor(context: bpy.types.Context, editor: str) -> bpy.types.Area:
    """The area of an editor in this window, else in a new one. Raises UserError where Blender has no windows."""
    label, ui_type = EDITORS[editor]
    if bpy.app.background or context.window is None:
        raise UserError(f"There is no window for the {label}", "run Blender with its interface")
    found = next((area for area in context.screen.areas if area.ui_type == ui_type), None)
    if found is not None:
        return found
    before = set(context.window_manager.windows)
    bpy.ops.wm.window_new()
    (window,) = set(context.window_manager.windows) - before
    area = max(window.screen.areas, key=lambda area: area.width * area.height)
    area.ui_type = ui_type
    return area


def show_image(context: bpy.types.Context, image: bpy.types.Image, timing: Timing, *, paint: bool = False) -> None:
    """Show an image sequence in the Image Editor, in step with the scene.

    Where frames of the plate were skipped, Blender's editor has no key to hold pictures with: it shows that of the
    current frame.
    """
    space = open_editor(context, "IMAGE").spaces.active
    space.image = image
    elapsed = int(np.clip(context.scene.frame_current - timing.start_frame, 0, timing.length - 1))
    user = space.image_user
    user.frame_start, user.frame_duration = timing.start_frame, timing.length
    user.frame_offset = int(np.searchsorted(timing.clip_frames, elapsed, side="right")) - 1 - (elapsed + 1)
    user.use_auto_refresh = True
    space.mode = "PAINT" if paint else "VIEW"


def show_clip(context: bpy.types.Context, clip: bpy.types.MovieClip, mask: bpy.types.Mask | None = None) -> None:
    """Show a movie clip in the Movie Clip Editor, with a mask to edit over it when one is given."""
    space = open_editor(context, "CLIP").spaces.active
    space.clip = clip
    if mask is not None:
        space.mode = "MASK"
        space.mask = mask
