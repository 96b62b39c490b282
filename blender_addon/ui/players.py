"""Points: what each player of an import shows and how, further players, and frames that got out of order."""

# Annotations must stay objects here: Blender reads the properties from them.
import bpy

from ..scene import nodes
from ..scene.imported import Imported
from ..scene.players import add_player, disorders, frames_in, frames_of, players_of, point_count
from ..scene.repair import repair_frames
from .acting import ImportOperator, ImportPanel
from .text import draw_wrapped

#: Inputs that say what a player is made of, which is no artist's business.
HIDDEN = {"Frames", "Length", "Clip Rate", "Facing"}


class KINORA_OT_add_player(ImportOperator, bpy.types.Operator):
    """Add a player that shows a part of the same points."""

    bl_idname = "kinora.add_player"
    bl_label = "Add Player"
    bl_description = (
        "Add another player of the same frames that shows only a part of the points, for a material or a look of its "
        "own. No data is copied"
    )

    show: bpy.props.EnumProperty(
        name="Show",
        description="Which points the new player shows",
        items=[
            ("static", "Static", "What stands still"),
            ("dynamic", "Moving", "What moves by itself"),
            ("object", "One Mover", "One of the things that move, by its number"),
        ],
        default="dynamic",
    )
    object_id: bpy.props.IntProperty(
        name="Mover",
        description="Number of the mover, from 1 up; 0 takes the first one without a player of its own",
        default=0,
        min=0,
        max=255,
    )

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "show")
        row = layout.row()
        row.active = self.show == "object"
        row.prop(self, "object_id")

    @classmethod
    def allowed_on(cls, context, imported):
        return "" if players_of(imported) else "This import has no players any more"

    def act_on(self, context, imported):
        player = add_player(imported, self.show, self.object_id)
        for ob in context.selected_objects:
            ob.select_set(False)
        player.select_set(True)
        context.view_layer.objects.active = player
        return f"Added {player.name}"


class KINORA_OT_repair_frames(ImportOperator, bpy.types.Operator):
    """Give every frame its name and time again. A missing one is empty, what is no frame moves beside the players"""

    bl_idname = "kinora.repair_frames"
    bl_label = "Repair Frames"

    @classmethod
    def allowed_on(cls, context, imported):
        return "" if frames_in(imported) else "This import has no frames of its own"

    def act_on(self, context, imported):
        broken = disorders(imported)
        counts = frames_in(imported)
        for frames in broken:
            repair_frames(frames, counts[frames], imported.collection)
        for disorder in broken.values():
            if disorder.missing:
                numbers = ", ".join(str(n + 1) for n in disorder.missing[:10])
                more = " ..." if len(disorder.missing) > 10 else ""
                self.report({"WARNING"}, f"Nothing is left of frame {numbers}{more} of the capture: empty now")
            if disorder.strangers:
                where = imported.collection.name
                self.report({"WARNING"}, f"{disorder.strangers} objects that are no frames were moved to {where}")
        return "; ".join(f"Repaired: {d}" for d in broken.values()) or "The frames are in order"


class KINORA_OT_solid_colors(ImportOperator, bpy.types.Operator):
    """Show the points in colour in Solid shading, or as points again."""

    bl_idname = "kinora.solid_colors"
    bl_label = "Colors in Solid Mode"
    bl_description = (
        "Draw squares in place of the points in the viewport and turn the views to Solid with Color: Attribute, "
        "where Blender draws points themselves in one color. Renders keep the points. It takes several times "
        "the memory and time of points"
    )

    enable: bpy.props.BoolProperty(
        name="Enable", description="Draw squares; otherwise points, seen in Material Preview", default=True
    )

    @classmethod
    def allowed_on(cls, context, imported):
        able = any("Solid Colors" in nodes.input_names(nodes.find_modifier(ob)) for ob in players_of(imported))
        return "" if able else "This import has no players that can draw squares"

    def act_on(self, context, imported):
        for modifier in map(nodes.find_modifier, players_of(imported)):
            if "Solid Colors" in nodes.input_names(modifier):
                nodes.set_input(modifier, "Solid Colors", self.enable)
        for window in context.window_manager.windows:
            for area in window.screen.areas:
                if window.scene == context.scene and area.type == "VIEW_3D":
                    shading = area.spaces.active.shading
                    shading.type = "SOLID" if self.enable else "MATERIAL"
                    if self.enable:
                        shading.color_type, shading.light = "VERTEX", "FLAT"


class KINORA_OT_key_clip_frame(bpy.types.Operator):
    """Have the player show its Clip Frame, and keyframe that at the current frame"""

    bl_idname = "kinora.key_clip_frame"
    bl_label = "Keyframe Clip Frame"
    bl_options = {"REGISTER", "UNDO"}

    player: bpy.props.StringProperty(name="Player", description="Name of the player's object; empty is the active one")

    def execute(self, context):
        ob = context.scene.objects.get(self.player) if self.player else context.active_object
        modifier = nodes.find_modifier(ob) if ob is not None else None
        if modifier is None or "Clip Frame" not in nodes.input_names(modifier):
            self.report({"ERROR"}, f"{self.player or 'The active object'} is no player with a Clip Frame")
            return {"CANCELLED"}
        nodes.set_input(modifier, "Use Clip Frame", True)
        ob.keyframe_insert(nodes.input_path(modifier, "Clip Frame"))
        return {"FINISHED"}


def draw_input(layout, modifier: bpy.types.Modifier, name: str) -> None:
    """An input of a Geometry Nodes modifier as Blender's own panel shows it."""
    path = nodes.input_path(modifier, name)
    if path.endswith(".value"):  # 5.2
        layout.prop(modifier.id_data.path_resolve(path.removesuffix(".value")), "value", text=name)
    elif name == "Material":
        layout.prop_search(modifier, path[path.rindex("[") :], bpy.data, "materials", text=name)
    else:
        layout.prop(modifier, path[path.rindex("[") :], text=name)


def draw_player(layout, player: bpy.types.Object) -> None:
    """The inputs of a player, in the sections of its node group."""
    modifier = nodes.find_modifier(player)
    section = None
    for name, parent in nodes.sections(modifier):
        if name in HIDDEN:
            continue
        if parent != section:
            section = parent
            layout.label(text=parent)
        if name == "Clip Frame":
            row = layout.row(align=True)
            row.active = bool(nodes.get_input(modifier, "Use Clip Frame"))
            draw_input(row, modifier, name)
            row.operator("kinora.key_clip_frame", text="", icon="KEY_HLT").player = player.name
        else:
            draw_input(layout, modifier, name)


class KINORA_PT_points(ImportPanel, bpy.types.Panel):
    """The players of the import, each with its inputs, and what is wrong with their frames."""

    bl_label = "Points"
    bl_idname = "KINORA_PT_points"
    bl_order = 10

    def draw_import(self, context, imported: Imported) -> None:
        layout = self.layout
        players = players_of(imported)
        if not players:
            layout.label(text="No embedded points are left", icon="INFO")
            return
        for frames, disorder in disorders(imported).items():
            box = layout.box()
            box.alert = True
            draw_wrapped(box, context, f"{frames.name}: {disorder}", icon="ERROR")
            box.operator("kinora.repair_frames", icon="SORTALPHA")
        for number, player in enumerate(players):
            header, body = layout.panel(f"KINORA_player_{number}", default_closed=number > 0)
            row = header.row(align=True)
            row.prop(player, "name", text="", emboss=False)
            row.prop(player, "hide_viewport", text="", emboss=False)
            row.prop(player, "hide_render", text="", emboss=False)
            if body is not None:
                points = point_count(player)
                text = f"{points / 1e6:.1f} million points" if points >= 1e6 else f"{points:,} points"
                frames = frames_of(player)
                body.label(text=text + (f" in {len(frames.objects)} frames" if frames is not None else ""))
                draw_player(body, player)
        layout.operator_menu_enum("kinora.add_player", "show", icon="ADD")
        modifiers = [nodes.find_modifier(player) for player in players]
        inputs = [m for m in modifiers if "Solid Colors" in nodes.input_names(m)]
        enable = not all(nodes.get_input(m, "Solid Colors") for m in inputs)
        text = "Colors in Solid Mode" if enable else "Points Again"
        layout.operator("kinora.solid_colors", text=text, icon="SHADING_SOLID").enable = enable


CLASSES = (
    KINORA_OT_add_player,
    KINORA_OT_repair_frames,
    KINORA_OT_solid_colors,
    KINORA_OT_key_clip_frame,
    KINORA_PT_points,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
