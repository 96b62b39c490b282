"""Players that show a part of the frames: together they are the whole, and no data is copied for them."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.graph import VERSION, VERSION_KEY
from blender_addon.scene.imported import Imported
from blender_addon.scene.nodes import get_input, set_input
from blender_addon.scene.players import add_player
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported, player_of, shown, small, static_of


def test_players_of_single_movers_share_out_what_moves(tmp_path, scene):
    capture = small(3)
    numbers = np.where(np.arange(48) < 22, 1, 2) * capture.dynamic
    collection = imported(replace(capture, objects=numbers.astype(np.uint8)), tmp_path, scene, storage="split")
    whole = player_of(collection)
    first = add_player(Imported(whole.parent), "object", 1)
    second = add_player(Imported(whole.parent), "object")  # the one that has no player yet
    with pytest.raises(UserError, match="Every mover of room has a player already"):
        add_player(Imported(whole.parent), "object")
    assert [ob.name for ob in (first, second)] == ["room Object 1", "room Object 2"]
    for frame in (1, 2, 3):
        scene.frame_set(frame)
        parts = [shown(ob) for ob in (first, second)]
        counts = [int((numbers[frame - 1] == number).sum()) for number in (1, 2)]
        assert [len(part["position"]) for part in parts] == counts
        together = np.concatenate([part["position"] for part in parts])
        everything = shown(whole)["position"]
        assert np.array_equal(together[np.lexsort(together.T)], everything[np.lexsort(everything.T)])
        assert all((part["object"] == number).all() for part, number in zip(parts, (1, 2)) if len(part["position"]))
    assert len(bpy.data.pointclouds) == 3 + 1 + 1  # frames, cameras and the static set: nothing was copied


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_added_static_and_moving_players_make_the_whole(storage, tmp_path, scene):
    capture = small(3)
    collection = imported(capture, tmp_path, scene, storage=storage)
    whole = player_of(collection)
    static, moving = (add_player(Imported(whole.parent), show) for show in ("static", "dynamic"))
    scene.frame_set(2)
    assert len(shown(moving)["position"]) == capture.dynamic[1].sum()
    assert shown(moving)["dynamic"].all()
    assert not shown(static)["dynamic"].any()
    expected = (~capture.dynamic[1]).sum() if storage == "frames" else len(static_of(collection).data.points)
    assert len(shown(static)["position"]) == expected
    assert static.parent == moving.parent == whole.parent
    assert {static.name, moving.name} <= set(collection.objects.keys())


def test_a_mover_that_is_not_there_is_refused(tmp_path, scene):
    whole = player_of(imported(small(2), tmp_path, scene))
    with pytest.raises(UserError, match="does not tell its movers apart"):
        add_player(Imported(whole.parent), "object", 1)
    (tmp_path / "b").mkdir()
    capture = small(2)
    whole = player_of(imported(replace(capture, objects=capture.dynamic * np.uint8(3)), tmp_path / "b", scene))
    with pytest.raises(UserError, match="no mover 1; choose one of these: 3"):
        add_player(Imported(whole.parent), "object", 1)


def test_a_group_of_an_earlier_version_stays_as_it_is(tmp_path, scene):
    """As in a file of last year: what is added beside its player gets today's group, with the values of the old."""
    player = player_of(imported(small(2), tmp_path, scene))
    modifier = player.modifiers[0]
    old = modifier.node_group
    old[VERSION_KEY] = 1
    nodes = [node.bl_idname for node in old.nodes]
    set_input(modifier, "Speed", 0.5)
    added = add_player(Imported(player.parent), "dynamic")
    assert modifier.node_group == old
    assert added.modifiers[0].node_group != old
    assert added.modifiers[0].node_group[VERSION_KEY] == VERSION
    assert get_input(added.modifiers[0], "Speed") == 0.5
    assert get_input(added.modifiers[0], "Frames") == get_input(modifier, "Frames")
    assert [node.bl_idname for node in old.nodes] == nodes
    scene.frame_set(2)
    assert len(shown(added)["position"]) == small(2).dynamic[0].sum()
