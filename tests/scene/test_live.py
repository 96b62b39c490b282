"""The live view: it plays what has arrived, in any order, and gives way without a trace or with what the artist did."""

from __future__ import annotations

from dataclasses import replace

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from blender_addon.scene.live import begin_live, find_live, live_views
from tests.pipeline_for_tests import live_frame, shown_world
from tests.scene.captures import camera_of, imported, player_of, seen_at, shown, small

FRAMES = 5
WORLD, INFO = shown_world(FRAMES)


ALL = [live_frame(WORLD, INFO, frame) for frame in range(FRAMES)]


@pytest.fixture
def view(scene):
    return begin_live(scene, "room", "ticket", start_frame=1, point_size=1.5)


def in_scene(view, points: np.ndarray) -> np.ndarray:
    """Points of the capture's world where the view's root puts them."""
    matrix = np.array(view.root.matrix_basis)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def datablocks() -> set[str]:
    return {d.name_full for d in bpy.data.user_map() if not d.name.startswith("Kinora")}


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 0, 3, 1, 2)])
def test_each_frame_shows_the_truth_whatever_order_they_came_in(order, view, scene):
    for frame in order:
        view.append(ALL[frame])
    scene.camera = view.camera
    scene.render.resolution_x, scene.render.resolution_y = INFO.plate_size
    for frame, live in enumerate(ALL):
        scene.frame_set(1 + 3 * frame)
        got = shown(view.player)
        assert np.allclose(got["position"], in_scene(view, live.points), atol=1e-4)
        assert np.array_equal(got["Color"][:, :3], live.colours)
        assert np.array_equal(got["dynamic"], live.dynamic)
        x, y = np.meshgrid(np.arange(48) + 0.5, np.arange(32) + 0.5)
        pixels = np.stack([x, y], axis=-1)[WORLD.depth[frame] > 0]
        assert np.abs(seen_at(got["position"][::97], scene) - pixels[::97]).max() < 0.01


def test_until_a_frame_arrives_the_one_before_it_stays(view, scene):
    for frame in (0, 3):
        view.append(ALL[frame])
    for scene_frame, expected in ((1, 0), (9, 0), (10, 3), (99, 3)):
        scene.frame_set(scene_frame)
        assert np.allclose(shown(view.player)["position"], in_scene(view, ALL[expected].points), atol=1e-4)


def test_a_better_version_of_a_frame_takes_its_place(view, scene):
    view.append(ALL[0])
    better = replace(ALL[0], points=ALL[0].points * 2)
    view.append(better)
    scene.frame_set(1)
    assert np.allclose(shown(view.player)["position"], in_scene(view, better.points), atol=1e-4)
    assert view.shown == [0]
    assert len(bpy.data.pointclouds) == 2  # the frame's and the player's own


def test_a_new_world_starts_over_and_an_old_one_is_ignored(view):
    for frame in (0, 1):
        view.append(ALL[frame])
    assert view.append(replace(ALL[2], world=1))
    assert view.shown == [2]
    assert not view.append(ALL[3])
    assert view.append(ALL[0], attempt=1)  # the job was begun again
    assert view.shown == [0]


def test_a_frame_without_points_gives_its_camera(view, scene):
    nothing = replace(ALL[1], points=ALL[1].points[:0], colours=ALL[1].colours[:0], dynamic=ALL[1].dynamic[:0])
    view.append(ALL[0])
    view.append(nothing)
    scene.frame_set(4)
    assert not len(shown(view.player)["position"])
    expected = np.array(view.root.matrix_world) @ WORLD.world_from_camera[1]
    camera = view.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    assert np.allclose(np.array(camera.matrix_world)[:3, 3], expected[:3, 3], atol=1e-5)


def test_more_frames_than_the_player_first_had_room_for(view, scene):
    for frame in range(150):
        view.append(replace(ALL[frame % FRAMES], frame=frame, clip_frame=frame))
    for frame in (0, 63, 64, 149):
        scene.frame_set(1 + frame)
        assert np.allclose(shown(view.player)["position"], in_scene(view, ALL[frame % FRAMES].points), atol=1e-4)


def test_the_work_of_a_frame_does_not_grow_with_those_before_it(view):
    """Each frame makes one object and one cloud, and replaces nothing but the player's own points, now and then."""
    view.append(ALL[0])
    for frame in range(1, 60):
        before = {d.session_uid for d in bpy.data.user_map()}
        view.append(replace(ALL[1], frame=frame, clip_frame=frame))
        made = [d for d in bpy.data.user_map() if d.session_uid not in before]
        assert sorted(type(d).__name__ for d in made) == ["Object", "PointCloud"]


def test_it_changes_nothing_else_of_the_scene(scene):
    before = (scene.frame_start, scene.frame_end, scene.camera, scene.render.fps, scene.frame_current)
    view = begin_live(scene, "room", "ticket", 1, 1.5)
    for live in ALL:
        view.append(live)
    assert (scene.frame_start, scene.frame_end, scene.camera, scene.render.fps, scene.frame_current) == before
    assert {ob.type for ob in scene.objects} == {"EMPTY", "CAMERA", "POINTCLOUD"}


def test_saved_halfway_it_plays_without_the_add_on_and_goes_on_growing(view, scene, tmp_path):
    for live in ALL[:3]:
        view.append(live)
    expected = in_scene(view, ALL[2].points)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "live.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "live.blend"))
    view = find_live("ticket")
    bpy.context.scene.frame_set(7)
    assert np.allclose(shown(view.player)["position"], expected, atol=1e-4)
    assert view.append(ALL[3])
    assert view.shown == [0, 1, 2, 3]


def test_undo_takes_frames_back_and_they_can_be_added_again(view):
    view.append(ALL[0])
    bpy.ops.ed.undo_push(message="one")
    view.append(ALL[1])
    bpy.ops.ed.undo_push(message="two")
    find_live("ticket").append(ALL[2])
    bpy.ops.ed.undo()
    assert find_live("ticket").shown == [0]
    for live in ALL:
        find_live("ticket").append(live)
    scene = bpy.context.scene
    scene.frame_set(7)
    assert np.allclose(
        shown(find_live("ticket").player)["position"], in_scene(find_live("ticket"), ALL[2].points), atol=1e-4
    )
    bpy.ops.ed.redo()
    assert find_live("ticket").shown == [0, 1]


def test_what_the_artist_deleted_is_not_found(view):
    view.append(ALL[0])
    bpy.data.objects.remove(view.player)
    assert find_live("ticket") is None


@pytest.mark.parametrize("gone", ["root", "camera"])
def test_without_its_root_or_camera_it_still_grows(gone, view, scene):
    view.append(ALL[0])
    bpy.data.objects.remove(getattr(view, gone))
    view = find_live("ticket")
    assert view.append(ALL[1])
    assert view.shown == [0, 1]


def test_an_import_takes_its_place_and_what_the_artist_did_with_it(view, scene, tmp_path):
    for live in ALL:
        view.append(live)
    place = Matrix.Translation((1, 2, 3)) @ Matrix.Rotation(0.3, 4, "Z") @ Matrix.Scale(2.5, 4)
    view.root.matrix_basis = place
    prop = bpy.data.objects.new("Prop", None)
    scene.collection.objects.link(prop)
    prop.parent = view.root
    light = bpy.data.objects.new("Light", bpy.data.lights.new("Light", "POINT"))
    view.collection.objects.link(light)
    light.parent = view.camera
    scene.camera = view.camera
    collection = imported(small(), tmp_path, scene, set_scene=False)
    root, camera = camera_of(collection).parent, camera_of(collection)
    view.hand_over(root, camera)
    assert np.allclose(root.matrix_basis, place, atol=1e-6)
    assert (prop.parent, light.parent, scene.camera) == (root, camera, camera)
    assert light.name in scene.objects  # it stood in the view's collection
    assert find_live("ticket") is None
    assert not live_views(scene)
    assert player_of(collection).parent == root


def test_a_view_that_nobody_moved_leaves_the_import_where_it_is(view, scene, tmp_path):
    view.append(ALL[0])
    collection = imported(small(), tmp_path, scene)
    root = camera_of(collection).parent
    place = root.matrix_basis.copy()
    view.hand_over(root, camera_of(collection))
    assert root.matrix_basis == place


def test_removed_it_leaves_nothing(scene):
    before = datablocks()
    view = begin_live(scene, "room", "ticket", 1, 1.5)
    for live in ALL:
        view.append(live)
    view.remove()
    assert datablocks() == before


def test_a_partial_view_says_so_and_plays(view, scene):
    for live in ALL[:2]:
        view.append(live)
    view.end_partial()
    view = find_live("ticket")
    assert view.partial
    assert view.collection.name == "room Partial"
    scene.frame_set(4)
    assert np.allclose(shown(view.player)["position"], in_scene(view, ALL[1].points), atol=1e-4)


def test_what_was_shown_can_be_read_back(view):
    for live in ALL[::-1]:
        view.append(live)
    for ob, live in zip(view.objects_of_frames(), ALL, strict=True):
        back = view.read(ob)
        for name, value in vars(live).items():
            assert np.array_equal(getattr(back, name), value), name


def test_several_frames_settle_together(view, scene):
    for live in ALL:
        view.append(live, settle=False)
    view.settle()
    scene.frame_set(1 + 3 * 4)
    assert np.allclose(shown(view.player)["position"], in_scene(view, ALL[4].points), atol=1e-4)


def memory_of(view):
    return next(ob for ob in view.collection.objects if ob.name.endswith("Memory"))


def test_the_newest_memory_is_shown_and_not_rendered(view):
    places = [np.float32([[0, 0, 3], [1, 0, 4]]), np.float32([[0, 0, 3], [1, 0, 4], [2, 1, 5]])]
    for frame, pointers in ((1, places[0]), (3, places[1]), (2, places[0])):
        view.append(replace(ALL[frame], pointers=pointers))
    memory = memory_of(view)
    assert np.allclose(shown(memory)["position"], in_scene(view, places[1]), atol=1e-5)
    assert memory.hide_render
    view.append(replace(ALL[0], pointers=places[0]), attempt=1)  # begun again: what was remembered before is gone
    assert len(shown(memory_of(view))["position"]) == 2
    view.remove()
    assert not bpy.data.pointclouds
    assert not [ob for ob in bpy.data.objects if not ob.name.startswith("Kinora")]
