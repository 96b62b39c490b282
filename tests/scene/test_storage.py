"""One capture on one root as embedded, linked or depth-projected points: added, converted into each other, removed."""

import shutil
import time

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from blender_addon.scene.imported import LINKED, PLAYER, PROJECTED, STATIC, imported_in
from blender_addon.scene.nodes import find_modifier, get_input, input_path, set_input
from blender_addon.scene.projection import set_use, use_of
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import add_storage, convert_storage, remove_storage
from blender_addon.scene.stored import EMBEDDED, storages
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported, shown, small

KINDS = (EMBEDDED, LINKED, PROJECTED)


@pytest.fixture(scope="module")
def artists_file(tmp_path_factory):
    """A .blend with an import of a small room, every frame embedded."""
    folder = tmp_path_factory.mktemp("made")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    imported(small(), folder, bpy.context.scene, storage="frames")
    bpy.ops.wm.save_as_mainfile(filepath=str(folder / "shot.blend"))
    return folder


@pytest.fixture
def one(artists_file, tmp_path):
    """The import, in a copy of the file beside a copy of its capture."""
    shutil.copytree(artists_file, tmp_path, dirs_exist_ok=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    one = imported_in(bpy.context.scene)[0]
    one.root["kinora_folder"] = str(tmp_path / "capture")
    return one


@pytest.fixture
def scene(one):
    return bpy.context.scene


def points_of(one, kind: str) -> np.ndarray:
    """(N, 3) sorted world points that a storage shows now."""
    stored = next(s for s in storages(one) if s.kind == kind)
    points = np.concatenate([shown(ob)["position"] for ob in stored.objects])
    return points[np.lexsort(np.round(points, 3).T)]


def datablocks() -> set[str]:
    return {f"{type(d).__name__} {d.name}" for d in bpy.data.user_map()}


def test_the_three_storages_show_the_same_points_on_one_root(one, scene):
    for kind in (LINKED, PROJECTED):
        finish(add_storage(one, kind))
    assert [stored.kind for stored in storages(one)] == list(KINDS)
    for frame in (1, 3):
        scene.frame_set(frame)
        truth = points_of(one, EMBEDDED)
        assert len(truth) == 48 * 32
        for kind in (LINKED, PROJECTED):
            assert np.abs(points_of(one, kind) - truth).max() < 1e-5


@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_any_storage_becomes_any_other_with_what_the_artist_chose(one, scene, source, kind):
    if source != EMBEDDED:
        finish(convert_storage(one, EMBEDDED, source, split=False))
    player = storages(one)[0].players[0]
    material = bpy.data.materials.new("Artist's")
    chosen = {"Material": material, "Density": 0.25, "Point Size": 2.5, "Outside": "Hide", "Speed": 0.5}
    for name, value in chosen.items():
        set_input(find_modifier(player), name, value)
    lamp = bpy.data.objects.new("Artist's lamp", None)
    scene.collection.objects.link(lamp)
    lamp.parent, lamp.location = player, (1, 2, 3)
    one.root.matrix_world = Matrix.Translation((1, 1, 1)) @ Matrix.Scale(3.0, 4)
    bpy.context.view_layer.update()
    placed = lamp.matrix_world.copy()

    finish(convert_storage(one, source, kind, split=False))
    bpy.context.view_layer.update()
    assert [stored.kind for stored in storages(one)] == [kind]
    new = storages(one)[0].players[0]
    assert {name: get_input(find_modifier(new), name) for name in chosen} == chosen
    assert np.allclose(lamp.matrix_world, placed, atol=1e-5)
    assert lamp.parent is (one.root if PROJECTED in (source, kind) else new)
    assert new.parent is (one.camera if kind == PROJECTED else one.root)
    assert np.allclose(one.root.matrix_world, Matrix.Translation((1, 1, 1)) @ Matrix.Scale(3.0, 4))


def test_there_and_back_leaves_nothing_behind(one, scene):
    scene.frame_set(2)
    before, points = datablocks(), points_of(one, EMBEDDED)
    bpy.ops.wm.save_mainfile()
    for source, kind in ((EMBEDDED, LINKED), (LINKED, PROJECTED), (PROJECTED, EMBEDDED)):
        finish(convert_storage(one, source, kind, split=False))
        bpy.ops.wm.save_mainfile()  # Blender 5.2 counts users wrongly from then on
        assert kind == EMBEDDED or not any("Frames" in name for name in datablocks())
    assert np.array_equal(points_of(one, EMBEDDED), points)
    assert len(datablocks()) == len(before), datablocks() ^ before


def test_a_split_capture_is_one_storage_with_its_static_cloud(one):
    finish(convert_storage(one, EMBEDDED, EMBEDDED, split=True))
    assert [ob["kinora_role"] for ob in storages(one)[0].objects] == [PLAYER, STATIC]
    finish(convert_storage(one, EMBEDDED, LINKED))
    assert not one.objects(PLAYER)
    assert not one.objects(STATIC)
    finish(convert_storage(one, LINKED, EMBEDDED, split=True))
    assert [ob["kinora_role"] for ob in storages(one)[0].objects] == [PLAYER, STATIC]


def test_several_players_of_one_storage_stay_several(one, scene):
    player = one.objects(PLAYER)[0]
    second = player.copy()
    scene.collection.objects.link(second)
    set_input(find_modifier(second), "Show Static", False)
    for source, kind in ((EMBEDDED, LINKED), (LINKED, EMBEDDED)):
        finish(convert_storage(one, source, kind, split=False))
        both = storages(one)[0].players
        assert sorted(get_input(find_modifier(ob), "Show Static") for ob in both) == [False, True]
        assert sorted(len(shown(ob)["position"]) for ob in both)[1] == 48 * 32


def test_what_points_to_a_player_points_to_what_replaces_it(one, scene):
    other = bpy.data.objects.new("Artist's", None)
    scene.collection.objects.link(other)
    other.constraints.new("COPY_LOCATION").target = one.objects(PLAYER)[0]
    finish(convert_storage(one, EMBEDDED, LINKED))
    assert other.constraints[0].target is one.objects(LINKED)[0]


def test_removing_one_storage_leaves_the_others_and_the_artist_alone(one, scene):
    scene.frame_set(2)
    before, points = datablocks(), points_of(one, EMBEDDED)
    finish(add_storage(one, PROJECTED))
    lamp = bpy.data.objects.new("Artist's lamp", None)
    scene.collection.objects.link(lamp)
    lamp.parent, lamp.location = one.objects(PROJECTED)[0], (1, 2, 3)
    bpy.context.view_layer.update()
    placed = lamp.matrix_world.copy()
    folder = storages(one)[1].files
    assert storages(one)[1].bytes == sum(f.stat().st_size for f in folder.iterdir() if f.name != "storage.json")
    remove_storage(one, PROJECTED)
    bpy.context.view_layer.update()
    assert np.allclose(lamp.matrix_world, placed, atol=1e-5)
    assert np.array_equal(points_of(one, EMBEDDED), points)
    new = {d for d in datablocks() - before if "lamp" not in d}
    assert not {d for d in new if not d.startswith("GeometryNodeTree")}, new
    assert (folder / "storage.json").is_file()

    finish(add_storage(one, PROJECTED))
    assert storages(one)[1].files == folder  # what is whole and of this capture is not written again
    remove_storage(one, PROJECTED, delete_files=True)
    assert not folder.exists()


def test_embedded_points_cost_21_bytes_each(one):
    assert storages(one)[0].bytes == 4 * 48 * 32 * 21


def test_errors_say_what_to_do_and_change_nothing(one, scene):
    before = datablocks()
    with pytest.raises(UserError, match="already"):
        add_storage(one, EMBEDDED)
    with pytest.raises(UserError, match="has no Linked points"):
        convert_storage(one, LINKED, PROJECTED)
    bpy.data.objects.remove(one.camera)
    with pytest.raises(UserError, match="has no camera"):
        finish(add_storage(one, PROJECTED))
    one.folder.rename(one.folder.with_name("moved"))
    with pytest.raises(UserError, match="Relink Capture"):
        finish(convert_storage(one, EMBEDDED, LINKED))
    assert [stored.kind for stored in storages(one)] == [EMBEDDED]
    assert not {d for d in datablocks() - before}


def test_given_up_half_way_nothing_stays(one, tmp_path):
    before, points = datablocks(), points_of(one, EMBEDDED)
    for kind in (LINKED, PROJECTED):
        steps = convert_storage(one, EMBEDDED, kind)
        for _ in range(3):
            next(steps)
        steps.close()
        assert datablocks() == before
    assert np.array_equal(points_of(one, EMBEDDED), points)
    end = time.monotonic() + 10
    while any("partial" in path.name for path in tmp_path.iterdir()):  # the thread that writes ends at its next frame
        assert time.monotonic() < end
        time.sleep(0.01)
    assert {path.name for path in tmp_path.iterdir()} <= {"capture", "shot.blend", "capture_linked"}


def test_a_folder_of_something_else_is_left_alone(one, tmp_path):
    mine = tmp_path / "capture_linked"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    finish(add_storage(one, LINKED))
    assert storages(one)[1].files == tmp_path / "capture_linked_2"
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("source", "kind"), [(EMBEDDED, LINKED), (LINKED, PROJECTED), (PROJECTED, LINKED)])
def test_keys_drivers_and_visibility_go_over(one, scene, source, kind):
    if source != EMBEDDED:
        finish(convert_storage(one, EMBEDDED, source))
    player = storages(one)[0].players[0]
    player.hide_render, player.visible_shadow, player.pass_index = True, False, 7
    modifier = find_modifier(player)
    set_input(modifier, "Use Clip Frame", True)
    for frame, clip_frame in ((1, 4.0), (4, 1.0)):
        set_input(modifier, "Clip Frame", clip_frame)
        player.keyframe_insert(input_path(modifier, "Clip Frame"), frame=frame)
    driver = player.driver_add(input_path(modifier, "Min Confidence")).driver
    driver.type = "SUM"
    variable = driver.variables.new()
    variable.targets[0].id, variable.targets[0].data_path = one.root, "pass_index"
    player.location.x = 0.5

    finish(convert_storage(one, source, kind))
    new = storages(one)[0].players[0]
    assert (new.hide_render, new.visible_shadow, new.pass_index) == (True, False, 7)
    assert new.location.x == (0.0 if PROJECTED in (source, kind) else 0.5)
    for frame, clip_frame in ((1, 4.0), (4, 1.0)):
        scene.frame_set(frame)
        assert get_input(find_modifier(new), "Clip Frame") == clip_frame
    one.root.pass_index = 1
    bpy.context.view_layer.update()
    assert get_input(find_modifier(new), "Min Confidence") == 1.0


def test_the_use_of_a_mesh_outlives_its_making_again(one, scene):
    finish(convert_storage(one, EMBEDDED, PROJECTED))
    look = get_input(find_modifier(one.objects(PROJECTED)[0]), "Material")
    for use in ("shadow_catcher", "holdout", "projection"):
        set_use(one, one.objects(PROJECTED)[0], use)
        shutil.rmtree(storages(one)[0].files)
        finish(convert_storage(one, PROJECTED, PROJECTED))
        new = one.objects(PROJECTED)[0]
        assert use_of(new) == use
        assert get_input(find_modifier(new), "Surface")
        assert (new.is_holdout, new.is_shadow_catcher) == (use == "holdout", use == "shadow_catcher")
    material = get_input(find_modifier(new), "Material")
    assert material.node_tree.nodes["Plate"].image is get_input(find_modifier(new), "Plate")
    finish(convert_storage(one, PROJECTED, EMBEDDED))
    assert get_input(find_modifier(one.objects(PLAYER)[0]), "Material") is look
    assert not [d for d in datablocks() if "Catcher" in d or "Projection" in d]
