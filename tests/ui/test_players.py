"""The panel Points and its operators: every input is there and is the modifier's own; scripts can do all of it."""

from types import SimpleNamespace

import bpy
import pytest

from blender_addon.scene.imported import Imported
from blender_addon.scene.nodes import get_input, input_path, sections
from blender_addon.scene.players import disorders, frames_of, players_of
from blender_addon.ui.players import HIDDEN, KINORA_PT_points


class Layout:
    """Stands for a UILayout and remembers which properties were drawn, by their label, and all other texts."""

    def __init__(self, drawn=None, texts=None):
        self.__dict__.update(drawn={} if drawn is None else drawn, texts=[] if texts is None else texts)

    def __setattr__(self, name, value):
        assert name in bpy.types.UILayout.bl_rna.properties, name

    def _sub(self, *args, **keywords):
        return Layout(self.drawn, self.texts)

    row = column = box = split = _sub

    def panel(self, idname, default_closed=False):
        return self._sub(), self._sub()

    def label(self, text="", icon="NONE"):
        self.texts.append(text)

    def prop(self, data, path, text=None, **keywords):
        self.drawn.setdefault(text or path, []).append((data, path))

    def prop_search(self, data, path, search, name, text=None):
        self.prop(data, path, text)

    def operator(self, name, **keywords):
        self.texts.append(name)
        return SimpleNamespace()

    def operator_menu_enum(self, name, prop, **keywords):
        self.texts.append(name)


@pytest.fixture
def imported(capture_folder, scene):
    bpy.ops.kinora.import_capture(directory=str(capture_folder), storage="split")
    return Imported(next(ob for ob in scene.objects if ob.get("kinora_role") == "root"))


@pytest.fixture
def draw(imported):
    """What the panel draws, in a sidebar."""
    window = bpy.context.window_manager.windows[0]
    area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
    region = next(r for r in area.regions if r.type == "UI")

    def drawn() -> Layout:
        layout = Layout()
        panel = SimpleNamespace(layout=layout)
        panel.draw_import = lambda *args: KINORA_PT_points.draw_import(panel, *args)
        with bpy.context.temp_override(window=window, area=area, region=region):
            KINORA_PT_points.draw(panel, bpy.context)
        return layout

    return drawn


def test_every_input_of_every_player_is_drawn_from_the_modifier(imported, draw):
    drawn = draw().drawn
    player, static = players_of(imported)
    for ob in (player, static):
        for name, _ in sections(ob.modifiers[0]):
            assert (name in drawn) == (name not in HIDDEN), name
    assert len(drawn["Point Size"]) == 2
    assert len(drawn["Speed"]) == 1
    data, path = drawn["Speed"][0]
    modifier = player.modifiers[0]
    if path == "value":
        data.value = 0.25
    else:
        data[path[2:-2]] = 0.25
    assert get_input(modifier, "Speed") == 0.25


def test_the_panel_counts_what_is_kept(draw):
    texts = draw().texts
    assert any(text.endswith(" points in 4 frames") for text in texts)
    assert "kinora.add_player" in texts
    assert "kinora.repair_frames" not in texts


def test_frames_out_of_order_are_told_and_repaired(imported, draw):
    frames = frames_of(players_of(imported)[0])
    frames.objects[0].name = "zebra"
    texts = draw().texts
    assert "kinora.repair_frames" in texts
    assert "framesshownatanotherone'stime:4" in "".join(texts).replace(" ", "")  # wrapped
    assert bpy.ops.kinora.repair_frames() == {"FINISHED"}
    assert not disorders(imported)
    bpy.data.objects.remove(frames.objects[1])
    assert bpy.ops.kinora.repair_frames() == {"FINISHED"}
    assert len(frames.objects) == 4
    assert bpy.ops.kinora.repair_frames() == {"FINISHED"}  # nothing to do is no error


def test_a_player_is_added_from_a_script(imported, draw):
    assert bpy.ops.kinora.add_player(show="dynamic") == {"FINISHED"}
    added = bpy.context.active_object
    assert added in players_of(imported)
    assert added.select_get()
    assert not get_input(added.modifiers[0], "Show Static")
    draw()
    with pytest.raises(RuntimeError, match="does not tell its movers apart"):
        bpy.ops.kinora.add_player(show="object", object_id=2)


def test_solid_mode_shows_colors_after_one_click(imported, draw):
    space = next(a for a in bpy.context.screen.areas if a.type == "VIEW_3D").spaces.active
    players = players_of(imported)
    for enable, shading in ((True, "SOLID"), (False, "MATERIAL")):
        assert bpy.ops.kinora.solid_colors(enable=enable) == {"FINISHED"}
        assert [get_input(ob.modifiers[0], "Solid Colors") for ob in players] == [enable, enable]
        assert space.shading.type == shading
    assert (space.shading.color_type, space.shading.light) == ("VERTEX", "FLAT")
    draw()


def test_clip_frame_is_keyed_by_the_panels_button(imported):
    player = players_of(imported)[0]
    bpy.context.scene.frame_set(7)
    assert bpy.ops.kinora.key_clip_frame(player=player.name) == {"FINISHED"}
    assert get_input(player.modifiers[0], "Use Clip Frame")
    action = player.animation_data.action
    curves = [c for layer in action.layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]
    assert [c.data_path for c in curves] == [input_path(player.modifiers[0], "Clip Frame")]
    assert [tuple(k.co) for k in curves[0].keyframe_points] == [(7.0, 1.0)]
    with pytest.raises(RuntimeError, match="no player with a Clip Frame"):
        bpy.ops.kinora.key_clip_frame(player=players_of(imported)[1].name)


def test_without_players_nothing_is_offered_and_nothing_fails(imported, draw):
    for player in players_of(imported):
        bpy.data.objects.remove(player)
    assert draw().texts == ["No embedded points are left"]
    for name in ("add_player", "repair_frames"):
        assert not getattr(bpy.ops.kinora, name).poll()


def test_undo_takes_an_added_player_away(imported):
    bpy.ops.ed.undo_push(message="before")
    bpy.ops.kinora.add_player("EXEC_DEFAULT", True, show="static")
    names = {ob.name for ob in bpy.context.scene.objects}
    assert "room Static.001" in names
    bpy.ops.ed.undo()
    assert "room Static.001" not in {ob.name for ob in bpy.context.scene.objects}
