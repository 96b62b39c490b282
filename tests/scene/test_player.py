"""The player shows the right cloud at every frame, and the artist's filters do what they say."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.nodes import FILTER, PLAYER, get_input, input_path, set_input
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


def test_played_backwards_it_begins_with_the_last_frame(player, scene):
    set_input(player.modifiers[0], "Speed", -1.0)
    assert played(player, scene, range(9, 15)) == [3, 3, 2, 1, 0, 0]
    set_input(player.modifiers[0], "Outside", "Loop")
    assert played(player, scene, range(9, 19)) == [0, 3, 2, 1, 0, 3, 2, 1, 0, 3]


def test_a_keyed_clip_frame_retimes(player, scene):
    modifier = player.modifiers[0]
    set_input(modifier, "Use Clip Frame", True)
    for frame, clip_frame in ((1, 1.0), (5, 3.0), (6, 9.0)):  # half the speed, then far beyond the end
        set_input(modifier, "Clip Frame", clip_frame)
        player.keyframe_insert(input_path(modifier, "Clip Frame"), frame=frame)
    for curve in curves_of(player):
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"
    assert played(player, scene, range(1, 7)) == [0, 1, 1, 2, 2, 3]  # 1, 1.5, 2, 2.5, 3, 9: 1.5 shows frame 2
    set_input(modifier, "Outside", "Hide")
    assert played(player, scene, [5, 6]) == [2, None]


def curves_of(ob):
    action = ob.animation_data.action
    return [c for layer in action.layers for strip in layer.strips for bag in strip.channelbags for c in bag.fcurves]


def ghosts(player, scene, frame):
    """The frames that are shown at once: {which: its age}."""
    scene.frame_set(frame)
    points = shown(player)
    return {int(c): round(float(a), 4) + 0.0 for c, a in zip(points["Color"][:, 0], points["age"])}


def test_ghosts_are_the_frames_before_and_after_with_their_age(tmp_path, scene):
    player = player_of(imported(numbered(9), tmp_path, scene))
    modifier = player.modifiers[0]
    assert "age" not in shown(player)
    for name, value in (("Ghosts Before", 3), ("Ghosts After", 1), ("Ghost Step", 2)):
        set_input(modifier, name, value)
    assert ghosts(player, scene, 7) == {0: -0.75, 2: -0.5, 4: -0.25, 6: 0.0, 8: 0.5}
    assert ghosts(player, scene, 3) == {0: -0.25, 2: 0.0, 4: 0.5}  # there is nothing before the first frame
    set_input(modifier, "Ghosts After", 2)
    assert ghosts(player, scene, 9) == {2: -0.75, 4: -0.5, 6: -0.25, 8: 0.0}
    assert ghosts(player, scene, 20) == ghosts(player, scene, 9)  # held: the picture stands
    assert ghosts(player, scene, 1) == {0: 0.0, 2: 0.3333, 4: 0.6667}
    set_input(modifier, "Outside", "Loop")
    assert ghosts(player, scene, 1) == {3: -0.75, 5: -0.5, 7: -0.25, 0: 0.0, 2: 0.3333, 4: 0.6667}


def test_every_ghost_is_sized_for_the_camera_that_saw_it(tmp_path, scene):
    player = player_of(imported(numbered(4), tmp_path, scene, point_size=1.0))
    alone = []
    for frame in (2, 3, 4):
        scene.frame_set(frame)
        alone.append(shown(player)["radius"])
    for name in ("Ghosts Before", "Ghosts After", "Ghost Step"):
        set_input(player.modifiers[0], name, 1)
    scene.frame_set(3)
    points = shown(player)
    for number, radius in zip((1, 2, 3), alone):
        assert points["radius"][points["Color"][:, 0] == number] == pytest.approx(radius, rel=1e-5)


def test_while_frames_arrive_the_last_one_stays(tmp_path, scene):
    player = player_of(imported(numbered(4), tmp_path, scene))
    frames = get_input(player.modifiers[0], "Frames")
    for ob in sorted(frames.objects, key=lambda ob: ob.name)[2:]:
        frames.objects.unlink(ob)
    assert played(player, scene, range(1, 5)) == [0, 1, 1, 1]


def test_a_radius_of_ones_own_is_that_of_every_point(player, scene):
    set_input(player.modifiers[0], "Radius", 0.02)
    assert shown(player)["radius"] == pytest.approx(0.02)


def test_velocity_follows_the_speed_of_time(tmp_path, scene):
    capture = small(4)
    velocity = np.zeros((*capture.depth.shape, 3), np.float16)
    velocity[:] = (1.0, 2.0, -4.0)
    player = player_of(imported(replace(capture, velocity=velocity), tmp_path, scene))
    modifier = player.modifiers[0]

    def factor(frame=2):
        scene.frame_set(frame)
        ratio = shown(player)["velocity"] / (1.0, 2.0, -4.0)
        assert np.ptp(ratio) < 1e-4
        return round(float(ratio.mean()), 4)

    assert factor() == 1.0
    assert factor(0) == 0.0  # held
    assert factor(5) == 0.0
    for speed in (0.5, 2.0, -1.0):
        set_input(modifier, "Speed", speed)
        assert factor() == speed
    set_input(modifier, "Speed", 1.0)
    scene.render.fps = 48  # the clip has 24: twice the frames a second are shown
    assert factor() == 2.0
    set_input(modifier, "Outside", "Loop")
    assert factor(6) == 2.0


def test_without_flow_points_have_no_velocity(player, scene):
    set_input(player.modifiers[0], "Speed", 0.5)
    assert "velocity" not in shown(player)
    assert "object" not in shown(player)


def test_solid_colors_draws_squares_where_the_points_are(player, scene):
    scene.frame_set(11)
    points = shown(player)
    set_input(player.modifiers[0], "Solid Colors", True)
    geometry = player.evaluated_get(bpy.context.evaluated_depsgraph_get()).evaluated_geometry()
    mesh = geometry.mesh
    assert mesh.color_attributes.active_color_name == "Color"  # what Solid shading shows
    assert len(mesh.polygons) == len(points["position"])
    corners = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", corners)
    corners = corners.reshape(-1, 4, 3)
    world = np.array(player.matrix_world)
    centres = corners.mean(axis=1) @ world[:3, :3].T + world[:3, 3]
    assert centres == pytest.approx(points["position"], abs=1e-5)
    width = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)
    assert width == pytest.approx(2 * points["radius"], rel=1e-3)
    colors = np.empty(len(mesh.vertices) * 4, np.float32)
    mesh.attributes["Color"].data.foreach_get("color_srgb", colors)
    assert (np.round(colors.reshape(-1, 4, 4)[:, 0] * 255) == points["Color"]).all()
    assert np.array_equal(shown(player)["position"], points["position"])  # still there for exports
    assert (shown(player)["radius"] == 0).all()


def test_density_keeps_that_share(player, scene):
    set_input(player.modifiers[0], "Density", 0.25)
    assert len(shown(player)["position"]) == pytest.approx(0.25 * 48 * 32, rel=0.15)


def test_two_imports_share_one_player_group(tmp_path, scene):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        imported(small(2), tmp_path / name, scene)
    assert sum(t.name.startswith((PLAYER, FILTER)) for t in bpy.data.node_groups) == 2
