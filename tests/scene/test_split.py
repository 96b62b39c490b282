"""Static points are kept once, moving ones frame by frame, and together they are the scene."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.fusion import merge_static
from blender_addon.scene.nodes import set_input
from blender_addon.scene.report import ImportReport
from tests.scene.captures import imported, player_of, seen_at, shown, small, static_of
from tests.worlds import as_capture, room


def test_a_locked_camera_keeps_each_static_pixel_once():
    capture = as_capture(room(6, 48, 32, motion="locked"))
    chosen = merge_static(capture)
    assert not (chosen & capture.dynamic).any()
    # All of the first frame's static pixels; later ones only where the box had been in the way, less the rim of
    # one pixel that its neighbours cover.
    assert np.array_equal(chosen[0], ~capture.dynamic[0])
    behind = capture.dynamic[0] & ~capture.dynamic[-1]
    assert not (chosen[1:].any(axis=0) & ~behind & ~capture.dynamic.any(axis=0)).any()
    assert (chosen.sum(axis=0) <= 1).all()
    assert chosen[1:].any()


def test_a_moving_camera_adds_only_what_it_newly_sees():
    capture = as_capture(room(8, 96, 64))
    chosen = merge_static(capture)
    assert chosen[0].sum() == (~capture.dynamic[0]).sum()
    assert chosen[1:].sum() < 0.5 * chosen[0].sum()


def test_a_measured_pixel_is_not_kept_out_by_a_guess():
    capture = as_capture(room(2, 48, 32, motion="locked", with_box=False))
    confidence = np.stack([np.full((32, 48), 0.1), np.full((32, 48), 0.9)]).astype(np.float16)
    chosen = merge_static(replace(capture, confidence=confidence))
    assert chosen.all()
    chosen = merge_static(replace(capture, confidence=confidence[::-1]))
    assert chosen[0].all()
    assert not chosen[1].any()


def test_the_static_cloud_stays_and_the_player_shows_what_moves(tmp_path, scene):
    capture = small(4)
    collection = imported(capture, tmp_path, scene, storage="split")
    player, static = player_of(collection), static_of(collection)
    counts = []
    for frame in range(1, 5):
        scene.frame_set(frame)
        counts.append((len(shown(player)["position"]), len(shown(static)["position"])))
    assert [c[0] for c in counts] == [int(m.sum()) for m in capture.dynamic]
    assert len({c[1] for c in counts}) == 1
    assert ImportReport.read(collection).points == sum(c[0] for c in counts) + counts[0][1]
    assert shown(player)["dynamic"].all()
    assert not shown(static)["dynamic"].any()


def test_static_points_of_the_first_frame_stand_on_their_pixels(tmp_path, scene):
    capture = small(2, (1920, 1080))
    static = static_of(imported(capture, tmp_path, scene, storage="split"))
    scene.frame_set(1)
    v, u = np.nonzero(~capture.dynamic[0])
    expected = np.stack([(u + 0.5) * 40, (v + 0.5) * 33.75], axis=1)  # 1920 / 48, 1080 / 32
    found = seen_at(shown(static)["position"][: len(expected) : 9], scene)
    assert np.abs(found - expected[::9]).max() < 0.05


def test_static_points_are_sized_and_filtered_as_the_players_are(tmp_path, scene):
    capture = small(2)
    collection = imported(capture, tmp_path, scene, storage="split", point_size=2.0)
    static = static_of(collection)
    points = shown(static)
    camera = scene.camera.evaluated_get(bpy.context.evaluated_depsgraph_get())
    centre = np.array(camera.matrix_world.translation)
    distance = np.linalg.norm(points["position"] - centre, axis=1)
    first = slice(0, int((~capture.dynamic[0]).sum()))
    assert points["radius"][first] == pytest.approx((distance / capture.intrinsics[0, 0])[first], rel=1e-3)
    set_input(static.modifiers[0], "Min Confidence", 2.0)
    assert len(shown(static)["position"]) == 0


def test_a_huge_static_set_has_the_same_colours_as_a_small_one(tmp_path, scene, monkeypatch):
    """Its colours are floats, since bytes would hold the window up; what is shown is the same to the bit."""
    capture = small(3)
    few = shown(static_of(imported(capture, tmp_path / "few", scene, storage="split")))
    monkeypatch.setattr("blender_addon.scene.points.MANY", 10)
    many = static_of(imported(capture, tmp_path / "many", scene, storage="split"))
    assert many.data.attributes["Color"].data_type == "FLOAT_COLOR"
    np.testing.assert_array_equal(shown(many)["Color"], few["Color"])
    np.testing.assert_array_equal(shown(many)["position"], few["position"])
