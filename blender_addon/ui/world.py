"""World: where the import stands, by picking on its points, by what is selected, or by numbers."""

# Annotations must stay objects here: Blender reads the properties from them.
import bpy
import numpy as np

from ..scene import metric, world
from ..wire.errors import UserError
from .acting import ImportOperator, ImportPanel
from .picking import PickOperator, point_property

AXES = (("X", "X", "The way leads along the world's x axis"), ("Y", "Y", "The way leads along the world's y axis"))
#: A length that Blender shows and reads in the units of the scene; it is stored in Blender units.
LENGTH = {"subtype": "DISTANCE", "unit": "LENGTH", "min": 1e-6, "soft_min": 0.001, "precision": 3}
METHODS = (
    ("SCALE", "Scale", "Scale the capture about the world's origin; its floor stays at z = 0"),
    ("MOVE", "Move", "Move the capture up or down; its scale stays"),
)


class PlaceOperator(PickOperator):
    """A PickOperator that also takes what is selected: vertices in Edit Mode, which it leaves, else objects."""

    allowed_in_edit_mode = True

    @classmethod
    def allowed_on(cls, context, imported) -> str:
        if context.mode not in {"OBJECT", "EDIT_MESH"}:
            return "Switch to Object Mode first"
        return ""

    def places(self, context, count: int, what: str) -> np.ndarray:
        """(N, 3) world points that were given, picked or selected; of two, the 3D cursor may be the first.

        Raises UserError when they are fewer than `count`.
        """
        if self.given:
            return np.array([tuple(p) for p in self.points])
        points = world.selected_points(context)
        if len(points) == 1 and count == 2:
            points = np.stack([context.scene.cursor.location, points[0]])
        if len(points) < count:
            several = {2: "two", 3: "three"}[count]
            raise UserError(
                f"{len(points) or 'No'} point{'s are' if len(points) != 1 else ' is'} selected for {what}",
                f"select {several} empties, or {several} vertices in Edit Mode, or pick them on the capture",
            )
        if context.mode == "EDIT_MESH":  # Blender keeps moves of objects for Undo in Object Mode alone
            bpy.ops.object.mode_set(mode="OBJECT")
        return points


class KINORA_OT_auto_orient(ImportOperator, bpy.types.Operator):
    """Find the horizon from the cameras and the floor from the points, and stand the capture on it. Its scale stays"""

    bl_idname = "kinora.auto_orient"
    bl_label = "Auto Orient"

    def act_on(self, context, imported) -> str | None:
        orientation = world.auto_orient(imported, context.view_layer)
        if orientation.note:
            self.report({"WARNING"}, orientation.note)
            return None
        return "The floor was found and is at z = 0"


class KINORA_OT_set_floor(PlaceOperator, bpy.types.Operator):
    """Make three points of the floor level and put them at z = 0."""

    bl_idname = "kinora.set_floor"
    bl_label = "Set Floor"
    bl_description = (
        "Make three points of the floor level and put them at z = 0. "
        "Click points of the capture, or select three empties, or three vertices in Edit Mode"
    )
    prompts = ("click the first point of the floor", "click the second point, far from it", "click the third point")

    points: point_property(3, "Three world points of the floor, not on one line; when not set, what is selected")

    def act_on(self, context, imported) -> str:
        points = self.places(context, 3, "the floor")
        off = world.set_floor(imported, points, context.view_layer)
        return "The floor is at z = 0" if len(points) == 3 else f"The floor is at z = 0, points are up to {off:.3g} off"


class KINORA_OT_set_origin(PickOperator, bpy.types.Operator):
    """Move the capture so that a point of it is the world's origin"""

    bl_idname = "kinora.set_origin"
    bl_label = "Set Origin"
    picked = "point"
    prompts = ("click the point that becomes the world's origin",)

    source: bpy.props.EnumProperty(
        name="Origin",
        description="What becomes the world's origin when no point is given",
        items=(
            ("CURSOR", "3D Cursor", "The place of the 3D cursor"),
            ("ACTIVE", "Active Object", "The origin of the active object"),
        ),
    )
    keep_height: bpy.props.BoolProperty(
        name="Keep Height", description="Move along the floor only, not up or down", default=False
    )
    point: point_property(1, "World point that becomes the origin; when not set, the 3D cursor or the active object")

    def act_on(self, context, imported) -> None:
        active = context.view_layer.objects.active
        if self.given:
            point = self.point
        elif self.source == "CURSOR":
            point = context.scene.cursor.location
        elif active is None or active == imported.root:
            raise UserError("No object marks the new origin", "make an empty there, and make it the active object")
        else:
            point = active.matrix_world.translation
        world.set_origin(imported, tuple(point), context.view_layer, keep_height=self.keep_height)


class KINORA_OT_set_axis(PlaceOperator, bpy.types.Operator):
    """Turn the capture about the world's z axis until the way between two points leads along an axis."""

    bl_idname = "kinora.set_axis"
    bl_label = "Set Axis"
    bl_description = (
        "Turn the capture about the world's z axis until the way from one point to another leads along an axis. "
        "Click points of the capture, or select two empties, of which the active one is where it leads to, "
        "or one, to which it leads from the 3D cursor"
    )
    prompts = ("click where the axis begins", "click a point that it leads to")

    axis: bpy.props.EnumProperty(name="Axis", description="Axis that the way leads along", items=AXES)
    points: point_property(2, "Two world points, from and to; when not set, what is selected")

    def act_on(self, context, imported) -> None:
        start, end = self.places(context, 2, "an axis")[:2]
        world.set_axis(imported, start, end, self.axis, context.view_layer)


class KINORA_OT_set_scale(PlaceOperator, bpy.types.Operator):
    """Scale the capture about the world's origin until two points are a known length apart."""

    bl_idname = "kinora.set_scale"
    bl_label = "Set Scale"
    bl_description = (
        "Scale the capture about the world's origin until two points are a known length apart. "
        "Click points of the capture, or select two empties, two vertices in Edit Mode, or one, which with the cursor "
        "makes two"
    )
    prompts = ("click one end of the known length", "click its other end")

    length: bpy.props.FloatProperty(
        name="Length", description="How far apart the two points are, in the units of the scene", default=1.0, **LENGTH
    )
    points: point_property(2, "Two world points whose distance is known; when not set, what is selected")

    def act_on(self, context, imported) -> str:
        start, end = self.places(context, 2, "a length")[:2]
        return f"Scaled by {world.set_scale(imported, start, end, self.length, context.view_layer):.4g}"


class KINORA_OT_use_metric_scale(ImportOperator, bpy.types.Operator):
    """Scale the capture about the world's origin to true size, as far as it knows its scale. Reset takes it back"""

    bl_idname = "kinora.use_metric_scale"
    bl_label = "Use Metric Scale"

    @classmethod
    def allowed_on(cls, context, imported) -> str:
        if metric.metres_per_unit(imported) is None:
            return "The scale of the capture is not known; use Set Scale, or reconstruct with Metric Scale"
        return "The capture is at true size already" if metric.in_metres(imported, context.scene) else ""

    def act_on(self, context, imported) -> str:
        factor = metric.use_metric_scale(imported, context.scene, context.view_layer)
        likely, least, most = metric.metres_per_unit(imported)
        off = max(most / likely, likely / least) - 1
        return f"Scaled by {factor:.4g} to true size" + (f", sure to about {off:.1%}" if off > 0 else "")


class KINORA_OT_set_camera_height(ImportOperator, bpy.types.Operator):
    """Put the camera of the current frame at a known height above the floor, z = 0"""

    bl_idname = "kinora.set_camera_height"
    bl_label = "Set Camera Height"

    height: bpy.props.FloatProperty(
        name="Height",
        description="Height of the camera above z = 0 at the current frame, in the units of the scene",
        default=1.6,
        **LENGTH,
    )
    method: bpy.props.EnumProperty(name="By", description="How the capture gets there", items=METHODS)

    def act_on(self, context, imported) -> str | None:
        by_scale = self.method == "SCALE"
        factor = world.set_camera_height(imported, self.height, context.view_layer, by_scale=by_scale)
        return f"Scaled by {factor:.4g}" if by_scale else None


class KINORA_OT_reset_world(ImportOperator, bpy.types.Operator):
    """Put the capture back where the import put it, at scale 1"""

    bl_idname = "kinora.reset_world"
    bl_label = "Reset World"

    def act_on(self, context, imported) -> None:
        world.reset(imported, context.view_layer)


class KINORA_PG_world(bpy.types.PropertyGroup):
    """What the World panel's buttons start with."""

    axis: bpy.props.EnumProperty(name="Axis", description="Axis that Set Axis turns the way to", items=AXES)
    length: bpy.props.FloatProperty(
        name="Known Length", description="How far apart the two points of Set Scale are", default=1.0, **LENGTH
    )
    height: bpy.props.FloatProperty(
        name="Camera Height", description="Height of the camera above z = 0 at the current frame", default=1.6, **LENGTH
    )
    method: bpy.props.EnumProperty(name="By", description="How the camera gets to its height", items=METHODS)


class KINORA_PT_world(ImportPanel, bpy.types.Panel):
    """Auto Orient, floor, origin, axis, scale, camera height."""

    bl_label = "World"
    bl_idname = "KINORA_PT_world"
    bl_order = 30

    def draw_import(self, context, imported) -> None:
        layout, settings = self.layout, context.scene.kinora_world
        row = layout.row(align=True)
        row.operator("kinora.auto_orient", icon="ORIENTATION_GIMBAL")
        row.operator("kinora.reset_world", text="Reset", icon="LOOP_BACK")

        column = layout.column(align=True)
        row = column.row(align=True)
        row.operator("kinora.set_floor", icon="EYEDROPPER")
        _selected(row, "kinora.set_floor")
        row = column.row(align=True)
        row.operator("kinora.set_origin", icon="EYEDROPPER")
        _at_once(row, "kinora.set_origin", "PIVOT_CURSOR").source = "CURSOR"
        _at_once(row, "kinora.set_origin", "PIVOT_ACTIVE").source = "ACTIVE"

        column = layout.column(align=True)
        column.row(align=True).prop(settings, "axis", expand=True)
        row = column.row(align=True)
        row.operator("kinora.set_axis", icon="EYEDROPPER").axis = settings.axis
        _selected(row, "kinora.set_axis").axis = settings.axis

        layout.operator("kinora.use_metric_scale", icon="DRIVER_DISTANCE")
        column = layout.column(align=True)
        column.prop(settings, "length")
        row = column.row(align=True)
        row.operator("kinora.set_scale", icon="EYEDROPPER").length = settings.length
        _selected(row, "kinora.set_scale").length = settings.length

        column = layout.column(align=True)
        column.prop(settings, "height")
        column.row(align=True).prop(settings, "method", expand=True)
        button = column.operator("kinora.set_camera_height")
        button.height, button.method = settings.height, settings.method


def _at_once(row, operator: str, icon: str):
    """A button that acts without picking."""
    part = row.row(align=True)
    part.operator_context = "EXEC_DEFAULT"
    return part.operator(operator, text="", icon=icon)


def _selected(row, operator: str):
    """A button that takes what is selected."""
    return _at_once(row, operator, "RESTRICT_SELECT_OFF")


CLASSES = (
    KINORA_OT_auto_orient,
    KINORA_OT_set_floor,
    KINORA_OT_set_origin,
    KINORA_OT_set_axis,
    KINORA_OT_set_scale,
    KINORA_OT_use_metric_scale,
    KINORA_OT_set_camera_height,
    KINORA_OT_reset_world,
    KINORA_PG_world,
    KINORA_PT_world,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.kinora_world = bpy.props.PointerProperty(type=KINORA_PG_world, name="Kinora World")


def unregister() -> None:
    del bpy.types.Scene.kinora_world
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
