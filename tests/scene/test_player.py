"""The player shows the right cloud at every frame, and the artist's filters do what they say."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.nodes import FILTER, PLAYER, get_input, set_input
from tests.scene.captures import imported, player_of, shown, small, with_frames_skipped


def numbered(frames):
    """A capture whose frame i is all of the grey i, so that a point's colour says where it comes from."""
    capture = small(frames)
    rgb = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None, None], capture.rgb.shape)
    return replace(capture, rgb=rgb)


def frame_shown(player, scene, frame, subframe=0.0):
    """Which frame of the capture the player shows; None when it shows nothing."""
    scene.frame_set(frame, subframe=subframe)
    points = shown(player)
    return int(points["Color"][0, 0]) if len(points["position"]) else None


def played(player, scene, frames):
    return [frame_shown(player, scene, f) for f in frames]


@pytest.fixture
def player(tmp_path, scene):
    return player_of(imported(numbered(4), tmp_path, scene, start_frame=10))


def test_each_frame_shows_its_own_cloud(player, scene):
    assert played(player, scene, range(10, 14)) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("outside", "expected"),
    [("Hold", [0, 0, 0, 1, 3, 3, 3]), ("Loop", [2, 3, 0, 1, 3, 0, 1]), ("Hide", [None, None, 0, 1, 3, None, None])],
)
def test_outside_the_clip_it_holds_loops_or_hides(player, scene, outside, expected):
    set_input(player.modifiers[0], "Outside", outside)
    assert get_input(player.modifiers[0], "Outside") == outside
    assert played(player, scene, [8, 9, 10, 11, 13, 14, 15]) == expected


def test_speed_and_start_retime(player, scene):
    modifier = player.modifiers[0]
    set_input(modifier, "Speed", 0.5)
    assert played(player, scene, range(10, 18)) == [0, 0, 1, 1, 2, 2, 3, 3]
    set_input(modifier, "Speed", 2.0)
    assert played(player, scene, [10, 11, 12]) == [0, 2, 3]
    set_input(modifier, "Speed", 1.0)
    set_input(modifier, "Start Frame", 12.0)
    assert played(player, scene, [11, 12, 13]) == [0, 0, 1]


def test_a_third_of_the_speed_steps_at_every_third_frame(player, scene):
    set_input(player.modifiers[0], "Speed", 0.33333)
    assert played(player, scene, range(10, 17)) == [0, 0, 0, 1, 1, 1, 2]


def test_one_shutter_sees_one_cloud(player, scene):
    """Motion blur asks for half a frame before and after: another cloud there would smear."""
    assert [frame_shown(player, scene, 11, s) for s in (0.0, 0.25, 0.49)] == [1, 1, 1]
    assert [frame_shown(player, scene, 10, s) for s in (0.51, 0.75, 0.99)] == [1, 1, 1]


def test_skipped_frames_of_the_clip_are_held(tmp_path, scene):
    capture = with_frames_skipped(numbered(4), (5, 7, 8, 12))
    player = player_of(imported(capture, tmp_path, scene))
    # Scene frame 1 is frame 5 of the clip; 12 is the last one.
    assert played(player, scene, range(1, 10)) == [0, 0, 1, 2, 2, 2, 2, 3, 3]


def test_confidence_hides_what_is_less_certain_and_keeps_what_is_equal(tmp_path, scene):
    confidence = np.full((2, 32, 48), 0.1, np.float16)  # as float16 that is 0.09998
    confidence[:, :8] = 0.9
    capture = replace(small(2), confidence=confidence, confidence_default=0.5)
    player = player_of(imported(capture, tmp_path, scene))
    assert get_input(player.modifiers[0], "Min Confidence") == 0.5  # the capture's own recommendation
    for least, count in ((0.5, 8 * 48), (0.1, 32 * 48), (0.0, 32 * 48), (0.95, 0)):
        set_input(player.modifiers[0], "Min Confidence", least)
        assert len(shown(player)["position"]) == count


def test_static_and_moving_points_make_the_whole(tmp_path, scene):
    capture = small(3)
    player = player_of(imported(capture, tmp_path, scene))
    scene.frame_set(2)
    moving = int(capture.dynamic[1].sum())
    assert 0 < moving < 48 * 32
    for static, dynamic, count in ((1, 1, 48 * 32), (0, 1, moving), (1, 0, 48 * 32 - moving), (0, 0, 0)):
        set_input(player.modifiers[0], "Show Static", bool(static))
        set_input(player.modifiers[0], "Show Dynamic", bool(dynamic))
        assert len(shown(player)["position"]) == count


def test_density_keeps_that_share(player, scene):
    set_input(player.modifiers[0], "Density", 0.25)
    assert len(shown(player)["position"]) == pytest.approx(0.25 * 48 * 32, rel=0.15)


def test_two_imports_share_one_player_group(tmp_path, scene):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        imported(small(2), tmp_path / name, scene)
    assert sum(t.name.startswith((PLAYER, FILTER)) for t in bpy.data.node_groups) == 2
