"""The mask round trip: edit a copy of the masks by brush or spline, split the points by them, reconstruct with them."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy
import numpy as np

from ..scene.images import timing_of
from ..scene.mask_editing import (
    copy_masks,
    edited_masks,
    free_folder,
    masks_to_splines,
    plate_clip,
    show_masks,
)
from ..scene.mask_render import render_masks
from ..scene.mask_use import use_masks
from ..wire.errors import UserError
from .acting import ImportOperator, ImportPanel
from .editors import show_clip, show_image
from .properties import absolute

FOLDER = {"name": "Folder", "subtype": "DIR_PATH", "options": {"PATH_SUPPORTS_BLEND_RELATIVE", "SKIP_SAVE"}}


def new_folder(directory: str, imported) -> Path:
    """The folder that the artist named, else a new one beside the capture."""
    return absolute(directory) if directory else free_folder(imported)


class KINORA_OT_edit_masks(ImportOperator, bpy.types.Operator):
    """Copy the masks of the capture to a new folder and open them for painting: white moves, black stands still"""

    bl_idname = "kinora.edit_masks"
    bl_label = "Edit Masks"

    directory: bpy.props.StringProperty(
        description="New folder for the copy; empty takes one beside the capture", **FOLDER
    )

    def act_on(self, context, imported) -> str:
        folder = new_folder(self.directory, imported)
        image = copy_masks(imported, folder)
        context.scene.kinora_masks.folder = str(folder)
        if not bpy.app.background:
            show_image(context, image, timing_of(imported, imported.capture()), paint=True)
        return f"Copied to {folder}; paint, then Image > Save Sequence"


class KINORA_OT_masks_to_splines(ImportOperator, bpy.types.Operator):
    """Make splines for the mask editor from the outlines of what moves, and show them over the plate"""

    bl_idname = "kinora.masks_to_splines"
    bl_label = "Masks to Splines"

    frames: bpy.props.EnumProperty(
        name="Frames",
        description="Frames whose outlines become splines",
        items=(
            ("CURRENT", "Current", "The current frame; keep the splines on what moves with keys of the mask editor"),
            ("ALL", "All", "A layer for every n-th frame of the capture, shown until the next one"),
        ),
    )
    step: bpy.props.IntProperty(name="Step", description="Frames from one layer to the next", default=1, min=1)
    tolerance: bpy.props.FloatProperty(
        name="Tolerance",
        description="How far in plate pixels a spline may stay from the edge of the mask; 0 follows every pixel",
        default=1.0,
        min=0.0,
        soft_max=10.0,
        subtype="PIXEL",
    )
    smallest: bpy.props.FloatProperty(
        name="Smallest",
        description="Pieces and holes of fewer square pixels are left out",
        default=64.0,
        min=0.0,
        soft_max=10000.0,
    )

    def act_on(self, context, imported) -> str:
        timing = timing_of(imported, imported.capture())
        if self.frames == "ALL":
            frames = list(range(0, len(timing.clip_frames), self.step))
        else:
            elapsed = context.scene.frame_current - timing.start_frame
            frames = [max(0, int(np.searchsorted(timing.clip_frames, elapsed, side="right")) - 1)]
        mask = masks_to_splines(imported, frames, self.tolerance, self.smallest)
        context.scene.kinora_masks.mask = mask
        clip = plate_clip(imported)
        if clip is not None and not bpy.app.background:
            show_clip(context, clip, mask)
        layers = len(mask.layers)
        return (
            f"{mask.name}: {sum(len(one.splines) for one in mask.layers)} splines on {layers} layer{'s' * (layers > 1)}"
        )


class KINORA_OT_render_masks(ImportOperator, bpy.types.Operator):
    """Write the splines of a mask as pictures of the plate's size, one for each frame of the capture"""

    bl_idname = "kinora.render_masks"
    bl_label = "Render Masks"

    mask: bpy.props.StringProperty(name="Mask", description="Name of the mask; empty takes the one in the panel")
    directory: bpy.props.StringProperty(
        description="New folder for the pictures; empty takes one beside the capture", **FOLDER
    )

    def act_on(self, context, imported) -> str:
        settings = context.scene.kinora_masks
        mask = bpy.data.masks.get(self.mask) if self.mask else settings.mask
        if mask is None:
            raise UserError("No mask is chosen", "choose one, or make one with Masks to Splines")
        folder = new_folder(self.directory, imported)
        manager = context.window_manager
        manager.progress_begin(0, 100)
        try:
            render_masks(imported, mask, folder, lambda part: manager.progress_update(100 * part))
        finally:
            manager.progress_end()
        show_masks(imported, folder)
        settings.folder = str(folder)
        return f"Masks written to {folder}"


class KINORA_OT_use_masks(ImportOperator, bpy.types.Operator):
    """Split static and moving points by the edited masks, and reconstruct with them from now on. What you set stays"""

    bl_idname = "kinora.use_masks"
    bl_label = "Use Masks"

    directory: bpy.props.StringProperty(
        description="Folder of masks of the plate's size, white moves, one for each frame that is used; "
        "empty takes the one in the panel",
        **FOLDER,
    )
    split: bpy.props.BoolProperty(
        name="Split Points", description="Split static and moving points of this import at once", default=True
    )
    reconstruct_with: bpy.props.BoolProperty(
        name="Reconstruct With Them", description="Make them the Known Masks of this scene", default=True
    )

    def act_on(self, context, imported) -> str:
        directory = self.directory or context.scene.kinora_masks.folder
        if not directory:
            raise UserError("No folder of masks is chosen", "use Edit Masks first, or choose a folder")
        folder = absolute(directory)
        _save_painted(context, edited_masks(imported))
        changed = None
        if self.split:
            manager = context.window_manager
            manager.progress_begin(0, 100)
            try:
                changed = use_masks(
                    imported, folder, context.scene, lambda _, part: manager.progress_update(100 * part)
                )
            finally:
                manager.progress_end()
        elif not folder.is_dir():
            raise UserError(f"{folder} is no folder", "choose the folder of the masks")
        if self.reconstruct_with:
            context.scene.kinora.masks_path = str(folder)
        return "The masks are used" if changed is None else f"{changed:,} pixels changed between static and moving"


def _save_painted(context, image: bpy.types.Image | None) -> None:
    """Save what was painted and not saved. Raises UserError when Blender has no editor to save it from."""
    if image is None or not image.is_dirty:
        return
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "IMAGE_EDITOR" and area.spaces.active.image == image:
                with context.temp_override(window=window, area=area):
                    bpy.ops.image.save_sequence()
                return
    raise UserError(f"{image.name} was painted on and not saved", "show it in the Image Editor: Image > Save Sequence")


class KINORA_PG_masks(bpy.types.PropertyGroup):
    """What the Edit Masks panel works on."""

    folder: bpy.props.StringProperty(
        name="Masks",
        description="Folder of edited masks of the plate's size, white moves, one for each frame that is used",
        subtype="DIR_PATH",
        options={"PATH_SUPPORTS_BLEND_RELATIVE"},
    )
    mask: bpy.props.PointerProperty(name="Splines", description="Mask of the mask editor", type=bpy.types.Mask)


class KINORA_PT_masks(ImportPanel, bpy.types.Panel):
    """Edit Masks, splines, Use Masks."""

    bl_label = "Edit Masks"
    bl_idname = "KINORA_PT_masks"
    bl_parent_id = "KINORA_PT_elements"

    def draw_import(self, context, imported) -> None:
        layout, settings = self.layout, context.scene.kinora_masks
        layout.operator("kinora.edit_masks", text="Paint on a Copy", icon="BRUSH_DATA")
        column = layout.column(align=True)
        column.operator("kinora.masks_to_splines", icon="OUTLINER_OB_CURVE")
        column.prop(settings, "mask", text="")
        row = column.row(align=True)
        row.enabled = settings.mask is not None
        row.operator("kinora.render_masks", icon="RENDER_ANIMATION")
        column = layout.column(align=True)
        column.prop(settings, "folder", text="")
        column.operator("kinora.use_masks", icon="CHECKMARK")


CLASSES = (
    KINORA_OT_edit_masks,
    KINORA_OT_masks_to_splines,
    KINORA_OT_render_masks,
    KINORA_OT_use_masks,
    KINORA_PG_masks,
    KINORA_PT_masks,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.kinora_masks = bpy.props.PointerProperty(type=KINORA_PG_masks, name="Kinora Masks")


def unregister() -> None:
    del bpy.types.Scene.kinora_masks
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
