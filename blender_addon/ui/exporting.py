"""Exporting an import: one operator for every format, in File > Export and in the panel, and from scripts."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy

from ..scene.exporting import FORMATS, Request, write
from .acting import ImportOperator, ImportPanel


class KINORA_OT_export(ImportOperator, bpy.types.Operator):
    """Write the camera and points of an imported capture, as this scene shows them, for another program"""

    bl_idname = "kinora.export"
    bl_label = "Export Capture"
    bl_options = {"REGISTER"}  # it changes nothing in the file

    filepath: bpy.props.StringProperty(
        name="File", description="File to write, or the new folder of a format that is one", subtype="FILE_PATH"
    )
    format: bpy.props.EnumProperty(
        name="Format",
        description="What to write",
        items=[(name, kind.label, kind.about) for name, kind in FORMATS.items()],
    )
    use_scene_range: bpy.props.BoolProperty(
        name="Scene Range", description="Write the frames of the scene's range", default=True
    )
    frame_start: bpy.props.IntProperty(name="First Frame", description="First scene frame to write", default=1)
    frame_end: bpy.props.IntProperty(name="Last Frame", description="Last scene frame to write", default=1)
    use_points: bpy.props.BoolProperty(
        name="Points", description="Write the points too, as they are shown and filtered", default=True
    )
    most_points: bpy.props.IntProperty(
        name="Most Points", description="Most moving points that a frame of a glTF file gets", default=50_000, min=1
    )

    def invoke(self, context, event):
        kind = FORMATS[self.format]
        if not self.filepath:
            beside = Path(bpy.data.filepath).parent if bpy.data.filepath else Path.home()
            name = bpy.path.clean_name(
                bpy.context.scene.name if not bpy.data.filepath else Path(bpy.data.filepath).stem
            )
            self.filepath = str(beside / f"{name}_{self.format.lower()}{kind.suffix}")
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "format")
        layout.label(text=FORMATS[self.format].about)
        layout.prop(self, "use_scene_range")
        if not self.use_scene_range:
            layout.prop(self, "frame_start")
            layout.prop(self, "frame_end")
        if FORMATS[self.format].has_points:
            layout.prop(self, "use_points")
        if self.format == "GLB":
            layout.prop(self, "most_points")

    def act_on(self, context, imported):
        scene, manager = context.scene, context.window_manager
        manager.progress_begin(0, 100)
        try:
            lost = write(
                Request(
                    imported,
                    scene,
                    first=scene.frame_start if self.use_scene_range else self.frame_start,
                    last=scene.frame_end if self.use_scene_range else self.frame_end,
                    points=self.use_points,
                    most_points=self.most_points,
                    told=lambda fraction: manager.progress_update(100 * fraction),
                ),
                self.format,
                Path(bpy.path.abspath(self.filepath)),
            )
        finally:
            manager.progress_end()
        for sentence in lost:
            self.report({"WARNING"}, sentence)
        return None if lost else f"Exported {imported.name} as {FORMATS[self.format].label}"


class KINORA_PT_export(ImportPanel, bpy.types.Panel):
    """Every format with its button."""

    bl_label = "Export"
    bl_idname = "KINORA_PT_export"
    bl_order = 50

    def draw_import(self, context, imported):
        grid = self.layout.grid_flow(columns=2, even_columns=True, align=True)
        for name, kind in FORMATS.items():
            grid.operator("kinora.export", text=kind.label).format = name


class KINORA_MT_export(bpy.types.Menu):
    """File > Export > Kinora Capture."""

    bl_idname = "KINORA_MT_export"
    bl_label = "Kinora Capture"

    def draw(self, context):
        for name, kind in FORMATS.items():
            suffix = f" ({kind.suffix})" if kind.suffix else ""
            self.layout.operator("kinora.export", text=kind.label + suffix).format = name


def _menu_export(self, context):
    self.layout.menu(KINORA_MT_export.bl_idname)


CLASSES = (KINORA_OT_export, KINORA_PT_export, KINORA_MT_export)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_export.append(_menu_export)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_export.remove(_menu_export)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
