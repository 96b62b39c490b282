"""An import's own affairs: update it, find its moved capture, keep its paths relative, remove it; and many at once."""

# Annotations must stay objects here: Blender reads the properties from them.
import logging
from dataclasses import replace
from pathlib import Path

import bpy

from ..scene.baseline import read_options
from ..scene.batch import import_captures
from ..scene.build import import_capture
from ..scene.imported import Imported
from ..scene.metric import metres_per_unit
from ..scene.options import ImportOptions
from ..scene.paths import make_relative, paths_of
from ..scene.relink import find_nearby, relink
from ..scene.removal import take_out
from ..scene.report import ImportReport
from ..wire.errors import UserError
from .acting import ActionOperator, ImportOperator, ImportPanel
from .importing import progress_at_cursor
from .panels import fact
from .properties import absolute, properties_of, read_group
from .text import draw_wrapped, sentence

log = logging.getLogger(__name__)


def folder_property(description: str):
    return bpy.props.StringProperty(
        name="Folder", description=description, subtype="DIR_PATH", options={"PATH_SUPPORTS_BLEND_RELATIVE"}
    )


def chosen(directory: str) -> Path:
    """The folder that an operator was given. Raises UserError when it was given none."""
    if not directory:
        raise UserError("No folder was chosen", "choose one")
    return absolute(directory)


class KINORA_OT_update_capture(ImportOperator, bpy.types.Operator):
    """A capture takes the place of the one that an import was made from."""

    bl_idname = "kinora.update_capture"
    bl_label = "Update"
    bl_description = (
        "Read the capture again into this import, as after reconstructing it anew. Place, names, materials, modifier "
        "settings, constraints, camera settings and whatever hangs on it stay"
    )

    directory: folder_property("Folder of another capture of the clip; empty reads the same folder again")
    restore_deleted: bpy.props.BoolProperty(
        name="Restore Deleted", description="Bring back the objects of the import that were deleted"
    )

    def act_on(self, context, imported: Imported) -> str:
        folder = absolute(self.directory) if self.directory else imported.capture().folder
        options = replace(read_options(imported.root), restore_deleted=self.restore_deleted)
        with progress_at_cursor() as progress:
            import_capture(folder, context.scene, options, progress, onto=imported.root.session_uid)
        report = ImportReport.read(imported.root)
        for note in report.notes:
            self.report({"WARNING"}, note)
        return f"Updated {imported.name}: {report.points:,} points"


class KINORA_OT_relink_capture(ImportOperator, bpy.types.Operator):
    """Find the capture of this import where it was moved to, and let all its pictures and points lead there"""

    bl_idname = "kinora.relink_capture"
    bl_label = "Relink Capture"

    directory: folder_property("Folder that the capture was moved to; empty looks for it beside the .blend file")
    filter_glob: bpy.props.StringProperty(default="capture.json", options={"HIDDEN"})

    def invoke(self, context, event):
        if not self.directory:
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        return self.execute(context)

    def act_on(self, context, imported: Imported) -> str:
        folder = absolute(self.directory) if self.directory else find_nearby(imported)
        if folder is None:
            raise UserError(
                f"The capture of {imported.name} is not beside the .blend file", "choose the folder it was moved to"
            )
        moved = relink(imported, folder)
        return f"{imported.name} is linked to {folder} ({moved} paths changed)"


class KINORA_OT_remove_import(ImportOperator, bpy.types.Operator):
    """Take this import out of the file. The capture on the disk and everything of yours stays"""

    bl_idname = "kinora.remove_import"
    bl_label = "Remove Import"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    @classmethod
    def allowed_on(cls, context, imported: Imported) -> str:
        return "" if imported.root.is_editable else "The import is linked from another file"

    def act_on(self, context, imported: Imported) -> str:
        name = imported.name
        take_out(imported)
        return f"Removed {name}"


class KINORA_OT_use_relative_paths(ImportOperator, bpy.types.Operator):
    """Keep the paths of this import relative to the .blend file, so that both can be moved together"""

    bl_idname = "kinora.use_relative_paths"
    bl_label = "Make Paths Relative"

    @classmethod
    def allowed_on(cls, context, imported: Imported) -> str:
        return "" if bpy.data.filepath else "Save the file first"

    def act_on(self, context, imported: Imported) -> str:
        changed = make_relative(imported.root)
        return f"{changed} paths are relative to the file now" if changed else "All paths are relative already"


class KINORA_OT_import_captures(ActionOperator, bpy.types.Operator):
    """Import every capture in a folder and the folders below it, each as a collection of its own"""

    bl_idname = "kinora.import_captures"
    bl_label = "Import Captures"

    directory: folder_property("Folder that holds the captures")
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    side_by_side: bpy.props.BoolProperty(
        name="Side by Side", description="Stand the captures in a row along X; otherwise all at the origin"
    )

    @classmethod
    def allowed(cls, context) -> str:
        return "" if context.mode == "OBJECT" else "Leave Edit Mode first"

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        self.layout.use_property_split = True
        self.layout.use_property_decorate = False
        self.layout.prop(self, "side_by_side")
        for name in properties_of(ImportOptions):
            if name != "collection_name":
                self.layout.prop(self, name)

    def act(self, context) -> str:
        options = read_group(ImportOptions, self)
        with progress_at_cursor() as progress:
            batch = import_captures(chosen(self.directory), context.scene, options, self.side_by_side, progress)
        for folder, why in batch.skipped.items():
            self.report({"WARNING"}, f"Skipped {folder.name}: {why}")
        if not batch.collections:
            raise UserError("None of the captures could be imported", "see the warnings")
        return f"Imported {len(batch.collections)} captures" + (
            f", skipped {len(batch.skipped)} folders" if batch.skipped else ""
        )


KINORA_OT_import_captures.__annotations__.update(properties_of(ImportOptions))


def draw_scale(layout, imported: Imported) -> None:
    """What is known of the length of a capture's unit."""
    known = metres_per_unit(imported)
    if known is None:
        fact(layout, "Scale", "Not metric")
    elif known == (1.0, 1.0, 1.0):
        fact(layout, "Scale", "Metric")
    else:
        likely, least, most = known
        fact(layout, "Scale", f"{likely:.3g} m a unit")
        fact(layout, "Between", f"{least:.3g} and {most:.3g} m")


class KINORA_PT_import_source(ImportPanel, bpy.types.Panel):
    """Which capture it is, whether it is there, what is to know of it; Update, Relink, Remove."""

    bl_label = "Capture"
    bl_idname = "KINORA_PT_import_source"
    bl_order = 5
    bl_options = set()

    def draw_import(self, context, imported: Imported) -> None:
        layout, root = self.layout, imported.root
        here = (imported.folder / "capture.json").is_file()
        row = layout.row()
        row.alert = not here
        row.label(
            text=imported.folder.name if here else f"{imported.folder.name} is not where it was",
            icon="FILE_FOLDER" if here else "ERROR",
        )
        row = layout.row(align=True)
        if here:
            row.operator("kinora.update_capture", icon="FILE_REFRESH")
        else:
            row.operator("kinora.relink_capture", icon="FILEBROWSER")
        row.operator("kinora.remove_import", text="", icon="TRASH")
        if bpy.data.filepath and any(not path.read().startswith("//") for path in paths_of(root)):
            layout.operator("kinora.use_relative_paths")
        report = ImportReport.read(root)
        column = layout.column(align=True)
        fact(column, "Engine", f"{report.engine} {report.engine_version}")
        fact(column, "Licence", report.licence, alert=not report.commercial_use)
        fact(column, "Points", f"{report.points:,}")
        draw_scale(column, imported)
        for note in report.notes:
            draw_wrapped(layout, context, sentence(note), icon="INFO")


def _menu_import(self, context):
    self.layout.operator(KINORA_OT_import_captures.bl_idname, text="Kinora Captures in a Folder")


CLASSES = (
    KINORA_OT_update_capture,
    KINORA_OT_relink_capture,
    KINORA_OT_remove_import,
    KINORA_OT_use_relative_paths,
    KINORA_OT_import_captures,
    KINORA_PT_import_source,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_menu_import)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu_import)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
