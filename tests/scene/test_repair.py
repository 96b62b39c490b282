"""Frames that were renamed, doubled or deleted are told, and put back to their own time."""

from dataclasses import replace
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from blender_addon.scene.imported import Imported
from blender_addon.scene.nodes import get_input
from blender_addon.scene.players import disorders, frames_of
from blender_addon.scene.repair import find_disorder, repair_frames, shown_order
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported, player_of, shown, small


def greys(player, scene):
    """The grey that each scene frame shows, which is the number of the cloud; None where nothing is."""
    found = []
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
        points = shown(player)
        found.append(int(points["Color"][0, 0]) if len(points["position"]) else None)
    return found


@pytest.fixture
def capture():
    """Five frames, frame i all of the grey i."""
    capture = small(5)
    return replace(capture, rgb=np.broadcast_to(np.arange(5, dtype=np.uint8)[:, None, None, None], capture.rgb.shape))


@pytest.fixture
def made(capture, tmp_path, scene):
    collection = imported(capture, tmp_path, scene)
    player = player_of(collection)
    return SimpleNamespace(collection=collection, player=player, frames=frames_of(player), root=player.parent)


def child(frames, number):
    return next(ob for ob in frames.objects if ob["kinora_frame"] == number)


def test_frames_as_imported_are_in_order(made):
    assert not find_disorder(made.frames, 5)
    assert not disorders(Imported(made.root))


def test_a_renamed_frame_shifts_the_others_until_it_is_repaired(made, scene):
    child(made.frames, 1).name = "zebra"
    assert greys(made.player, scene) == [0, 2, 3, 4, 1]
    assert find_disorder(made.frames, 5).shifted == 4
    repair_frames(made.frames, 5, made.collection)
    assert greys(made.player, scene) == [0, 1, 2, 3, 4]
    assert [ob.name for ob in made.frames.objects if ob["kinora_frame"] == 1] == ["room Frames_f00001"]
    assert not find_disorder(made.frames, 5)


def test_a_doubled_frame_goes_beside_the_players(made, scene):
    double = child(made.frames, 2).copy()
    made.frames.objects.link(double)
    assert double.name.endswith(".001")
    assert greys(made.player, scene) == [0, 1, 2, 2, 3]
    found = repair_frames(made.frames, 5, made.collection)
    assert (found.strangers, found.missing) == (1, ())
    assert greys(made.player, scene) == [0, 1, 2, 3, 4]
    assert double.users_collection == (made.collection,)
    assert len(made.frames.objects) == 5


def test_a_deleted_frame_becomes_an_empty_one(made, scene):
    bpy.data.objects.remove(child(made.frames, 3))
    assert greys(made.player, scene) == [0, 1, 2, 4, 4]
    found = repair_frames(made.frames, 5, made.collection)
    assert found.missing == (3,)
    assert greys(made.player, scene) == [0, 1, 2, None, 4]


def test_a_stranger_is_not_lost(made, scene):
    thing = bpy.data.objects.new("aaa", bpy.data.meshes.new("aaa"))
    made.frames.objects.link(thing)
    inner = bpy.data.collections.new("aab")
    made.frames.children.link(inner)
    assert find_disorder(made.frames, 5).strangers == 2
    repair_frames(made.frames, 5, made.collection)
    assert greys(made.player, scene) == [0, 1, 2, 3, 4]
    assert thing.users_collection == (made.collection,)
    assert list(made.collection.children) == [inner]


def test_a_name_that_something_else_has_is_avoided(made, scene):
    child(made.frames, 0).name = "zebra"
    bpy.data.objects.new("room Frames_f00000", None)
    repair_frames(made.frames, 5, made.collection)
    assert greys(made.player, scene) == [0, 1, 2, 3, 4]
    assert {ob.name[:-7] for ob in made.frames.objects} == {"2 room Frames"}


def test_an_appended_import_whose_names_were_taken_is_repaired(made, tmp_path, scene):
    """Appending suffixes the names that the file has already: some of them here, so the frames are shuffled."""
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend")) as (_, wanted):
        wanted.collections = ["room"]
    bpy.context.scene.collection.children.link(wanted.collections[0])
    player = player_of(wanted.collections[0])
    frames = get_input(player.modifiers[0], "Frames")
    child(frames, 2).name = "Frames_f00002.001"
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, 5
    assert greys(player, scene) == [2, 0, 1, 3, 4]
    repair_frames(frames, 5, wanted.collections[0])
    assert greys(player, scene) == [0, 1, 2, 3, 4]


def test_frames_of_a_linked_library_are_refused(made, tmp_path):
    child(made.frames, 1).name = "zebra"
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "library.blend"))
    bpy.ops.wm.read_factory_settings(use_empty=True)
    with bpy.data.libraries.load(str(tmp_path / "library.blend"), link=True) as (_, wanted):
        wanted.collections = ["room"]
    frames = get_input(player_of(wanted.collections[0]).modifiers[0], "Frames")
    with pytest.raises(UserError, match="another file"):
        repair_frames(frames, 5, wanted.collections[0])


def test_the_order_is_the_one_that_blender_shows(made, scene):
    """Case, dots, spaces, leading zeros and numbers of different lengths."""
    names = ["b.2", "B 10", "b002", "a_f9", "A_F10"]
    for number, name in enumerate(names):
        child(made.frames, number).name = name
    assert greys(made.player, scene) == [ob["kinora_frame"] for ob in shown_order(made.frames)]
    for number, name in enumerate(["x1", "x01", "X1.001", "x 1", "é1"]):
        child(made.frames, number).name = name
    assert greys(made.player, scene) == [ob["kinora_frame"] for ob in shown_order(made.frames)]


def test_names_of_63_bytes_still_sort(capture, tmp_path, scene):
    player = player_of(imported(capture, tmp_path, scene, collection_name="a very long name of a shot, " * 3))
    assert greys(player, scene) == [0, 1, 2, 3, 4]
