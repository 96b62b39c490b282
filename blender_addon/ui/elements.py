"""Plate and Masks: where the pictures of an import are seen, CG behind the movers, strips, and the view transform."""

# Annotations must stay objects here: Blender reads the properties from them.
import bpy

from ..scene.behind_movers import add_behind_movers, find_behind_movers, remove_behind_movers
from ..scene.belongings import pictures
from ..scene.images import timing_of
from ..scene.strips import add_strips
from ..wire.errors import UserError
from .acting import ImportOperator, ImportPanel
from .editors import open_editor, show_clip, show_image
from .text import draw_wrapped

LABELS = ("Plate", "Frames", "Mask", "Depth", "Confidence")


class KINORA_OT_show_picture(ImportOperator, bpy.types.Operator):
    """Show a picture of the capture in the Image Editor, the plate in the Movie Clip Editor."""

    bl_idname = "kinora.show_picture"
    bl_label = "Show Picture"
    bl_description = "Show this picture in an open editor of its kind, or in a new window"
    bl_options = {"REGISTER"}

    label: bpy.props.EnumProperty(
        name="Picture", description="Which picture of the capture", items=[(name, name, "") for name in LABELS]
    )

    def act_on(self, context, imported) -> None:
        picture = pictures(imported.root).get(self.label)
        if picture is None:
            raise UserError(f"The import has no {self.label.lower()}", "make its files found and import again")
        if isinstance(picture, bpy.types.MovieClip):
            show_clip(context, picture)
        else:
            show_image(context, picture, timing_of(imported, imported.capture()))


class KINORA_OT_add_behind_movers(ImportOperator, bpy.types.Operator):
    """Add a group to the compositor in which CG passes behind what moves in the plate. Nothing else there is changed"""

    bl_idname = "kinora.add_behind_movers"
    bl_label = "Add CG Behind Movers"

    connect: bpy.props.BoolProperty(
        name="Connect",
        description="Put it before the result of the compositor; otherwise the node is added without links",
        default=True,
    )
    film_transparent: bpy.props.BoolProperty(
        name="Transparent Film",
        description="Render on transparent film, without which CG hides the whole plate",
        default=True,
    )

    @classmethod
    def allowed_on(cls, context, imported) -> str:
        return "The compositor has it already" if find_behind_movers(imported, context.scene) else ""

    def act_on(self, context, imported) -> None:
        add_behind_movers(imported, context.scene, connect=self.connect, film=self.film_transparent)


class KINORA_OT_remove_behind_movers(ImportOperator, bpy.types.Operator):
    """Take the group out of the compositor again and join what it came between"""

    bl_idname = "kinora.remove_behind_movers"
    bl_label = "Remove CG Behind Movers"

    @classmethod
    def allowed_on(cls, context, imported) -> str:
        return "" if find_behind_movers(imported, context.scene) else "The compositor does not have it"

    def act_on(self, context, imported) -> None:
        remove_behind_movers(imported, context.scene)


class KINORA_OT_show_compositor(ImportOperator, bpy.types.Operator):
    """Show the scene's compositor in an open editor, or in a new window"""

    bl_idname = "kinora.show_compositor"
    bl_label = "Show Compositor"
    bl_options = {"REGISTER"}

    def act_on(self, context, imported) -> None:
        open_editor(context, "COMPOSITOR")


class KINORA_OT_add_strips(ImportOperator, bpy.types.Operator):
    """Add strips of the pictures to the video sequencer, on free channels and in step with the camera"""

    bl_idname = "kinora.add_strips"
    bl_label = "Add Strips"

    plate: bpy.props.BoolProperty(name="Plate", description="Add the plate", default=True)
    mask: bpy.props.BoolProperty(name="Mask", description="Add the masks, muted", default=True)
    depth: bpy.props.BoolProperty(name="Depth", description="Add the depth, muted", default=False)
    confidence: bpy.props.BoolProperty(name="Confidence", description="Add the confidence, muted", default=False)

    def act_on(self, context, imported) -> str:
        labels = tuple(name for name in ("Plate", "Mask", "Depth", "Confidence") if getattr(self, name.lower()))
        if not labels:
            raise UserError("No picture is chosen", "choose plate or mask")
        made = add_strips(imported, context.scene, labels)
        where = ", ".join(str(strip.channel) for strip in made)
        rendered = "" if context.scene.render.use_sequencer else "; renders still show the 3D scene"
        return f"Strips on channel{'s' * (len(made) > 1)} {where}{rendered}"


class KINORA_OT_use_standard_view(ImportOperator, bpy.types.Operator):
    """Show colours as they are in the plate."""

    bl_idname = "kinora.use_standard_view"
    bl_label = "Use Standard View"
    bl_description = "Set the view transform to Standard, without a look: others change the colours of the plate"

    @classmethod
    def allowed_on(cls, context, imported) -> str:
        return "" if _tints(context.scene) else "The view transform is Standard already"

    def act_on(self, context, imported) -> None:
        context.scene.view_settings.view_transform = "Standard"
        context.scene.view_settings.look = "None"


def _tints(scene: bpy.types.Scene) -> bool:
    """Whether the view shows the plate in other colours than it has."""
    view = scene.view_settings
    return view.view_transform != "Standard" or view.look != "None"


class KINORA_PT_elements(ImportPanel, bpy.types.Panel):
    """The pictures of the import and what is made of them."""

    bl_label = "Plate and Masks"
    bl_idname = "KINORA_PT_elements"
    bl_order = 40

    def draw_import(self, context, imported) -> None:
        layout, scene = self.layout, context.scene
        have = pictures(imported.root)
        column = layout.column(align=True)
        for label in LABELS:
            if label not in have:
                continue
            row = column.row(align=True)
            preview = have[label].preview
            picture = {"icon_value": preview.icon_id} if preview and preview.icon_id else {"icon": "IMAGE_DATA"}
            row.label(text=label, **picture)
            editor = "TRACKER" if isinstance(have[label], bpy.types.MovieClip) else "IMAGE"
            row.operator("kinora.show_picture", text="", icon=editor).label = label
        if not have:
            column.label(text="Imported without pictures", icon="INFO")

        column = layout.column(align=True)
        row = column.row(align=True)
        if find_behind_movers(imported, scene):
            row.operator("kinora.remove_behind_movers", icon="X")
        else:
            row.operator("kinora.add_behind_movers", icon="NODE_COMPOSITING")
        row.operator("kinora.show_compositor", text="", icon="WINDOW")
        column.operator("kinora.add_strips", icon="SEQUENCE")
        if _tints(scene):
            column = layout.column(align=True)
            draw_wrapped(column, context, f"{scene.view_settings.view_transform} shows the plate in other colours")
            column.operator("kinora.use_standard_view", icon="COLOR")


CLASSES = (
    KINORA_OT_show_picture,
    KINORA_OT_add_behind_movers,
    KINORA_OT_remove_behind_movers,
    KINORA_OT_show_compositor,
    KINORA_OT_add_strips,
    KINORA_OT_use_standard_view,
    KINORA_PT_elements,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
