"""The import stands upright on its floor, however the camera was held, and only the root says so."""

from dataclasses import replace

import numpy as np
import pytest

from blender_addon.scene.orient import find_orientation
from tests.scene.captures import camera_of, imported, small
from tests.worlds import as_capture, film, look, room, sliding_box, square_intrinsics


def tilted(capture, degrees_pitch, degrees_roll):
    """The same capture, told in a frame that is turned: as an engine tells it that makes its first camera the world."""
    turn = look(0, np.radians(degrees_pitch), np.radians(degrees_roll), (3.0, -2.0, 1.0))
    return replace(capture, world_from_camera=turn @ capture.world_from_camera), turn


def up_error(orientation, turn):
    """Degrees between where the true up of the room, -y, ends up and Blender's z."""
    up = orientation.blender_from_capture[:3, :3] @ turn[:3, :3] @ (0, -1, 0)
    return np.degrees(np.arccos(np.clip(up[2], -1, 1)))


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (12, 0), (-20, 4), (0, 8)])
def test_the_floor_is_level_and_at_zero(pitch, roll):
    capture, turn = tilted(as_capture(room(6, 160, 90)), pitch, roll)
    orientation = find_orientation(capture)
    assert orientation.floor_found
    assert up_error(orientation, turn) < 0.5
    # The room's floor is 1.2 below its origin: a point of it is at height 0, whatever else moved.
    floor = turn @ (0.3, 1.2, 2.0, 1)
    assert (orientation.blender_from_capture @ floor)[2] == pytest.approx(0, abs=0.02)
    matrix = orientation.blender_from_capture[:3, :3]
    assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)


def shot(kind, frames=12, width=128, height=72):
    """A capture of the room from a camera as shots have it: the sheet's table, specs/blender.md, 3.4."""
    rng = np.random.default_rng(3)
    s = np.linspace(0, 1, frames)
    tilt, roll = {"pan": (-12, 0), "dolly": (-15, 0), "handheld": (0, 5), "crane": (-40, 0)}[kind]
    cameras = []
    for t in s:
        yaw, position = {
            "pan": (50 * t - 25, (0.3 * t, 0, 0)),
            "dolly": (0, (0.1, -0.2, 1.2 * t - 0.6)),
            "handheld": (6 * np.sin(4 * t), (0.8 * t - 0.4, 0.05 * np.sin(9 * t), 0.3 * t)),
            "crane": (20 * t - 10, (0, -1.2 * t, -0.5)),
        }[kind]
        wobble = rng.normal(0, 1, 3) if kind == "handheld" else np.zeros(3)
        cameras.append(look(*np.radians([yaw + wobble[0], tilt + wobble[1], roll + wobble[2]]), position))
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return as_capture(film(np.stack(cameras), lens, width, height, sliding_box(frames)))


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("kind", ["pan", "dolly", "handheld", "crane"])
def test_every_shot_that_sees_the_floor_stands_upright(kind, noise):
    """With exact depth, and with depth that is 2 % off and wholly wrong in one pixel of ten."""
    capture, rng = shot(kind), np.random.default_rng(1)
    depth = capture.depth * (1 + noise * rng.normal(size=capture.depth.shape))
    wrong = rng.random(depth.shape) < 5 * noise
    depth[wrong] *= rng.uniform(0.3, 2, wrong.sum())
    orientation = find_orientation(replace(capture, depth=depth.astype(np.float32)))
    assert orientation.up_from == "floor"
    assert orientation.note == ""
    assert up_error(orientation, np.eye(4)) < 1


@pytest.mark.parametrize(("kind", "up_from", "error"), [("pan", "horizon", 0.5), ("dolly", "cameras", 15.5)])
def test_what_the_up_axis_rests_on_is_said_where_no_floor_is_seen(kind, up_from, error):
    capture = shot(kind)
    capture = replace(capture, depth=np.zeros_like(capture.depth))
    orientation = find_orientation(capture)
    assert orientation.up_from == up_from
    assert "No floor was found" in orientation.note
    assert ("may lean" in orientation.note) == (error > 1)
    assert up_error(orientation, np.eye(4)) < error


def test_walls_and_a_ceiling_are_no_floor():
    """Nothing below the camera was measured: what is left is walls and a ceiling."""
    capture = shot("pan")
    capture = replace(capture, depth=np.where(rows_below_horizon(capture), 0, capture.depth).astype(np.float32))
    orientation = find_orientation(capture)
    assert not orientation.floor_found
    assert up_error(orientation, np.eye(4)) < 0.5


def rows_below_horizon(capture):
    """(T, H, W) bool: pixels that look down."""
    from backend.geometry.camera import unproject

    points = unproject(capture.depth, capture.intrinsics, capture.world_from_camera)
    return points[..., 1] > capture.world_from_camera[:, 1, 3].max()


def test_without_points_the_horizon_comes_from_the_cameras():
    cameras = np.stack([look(yaw, 0.2, 0, (0, 0, 0)) for yaw in np.linspace(-0.5, 0.5, 8)])
    capture = small(8)
    capture = replace(capture, depth=np.zeros_like(capture.depth), world_from_camera=cameras)
    orientation = find_orientation(capture)
    assert not orientation.floor_found
    assert up_error(orientation, np.eye(4)) < 0.5  # a pan, tilted down by 11 degrees


def test_one_camera_is_enough():
    """A capture of one frame, as a localised image is: its own horizon, and the floor where it is seen."""
    capture = small(1)
    assert find_orientation(capture).up_from == "floor"
    bare = replace(capture, depth=np.zeros_like(capture.depth))
    found = find_orientation(bare)
    assert found.up_from == "cameras"
    assert up_error(found, np.eye(4)) < 1


def test_the_first_camera_looks_along_y_from_above_the_origin(tmp_path, scene):
    collection = imported(small(4), tmp_path, scene)
    scene.frame_set(1)
    world = np.array(camera_of(collection).matrix_world)
    assert world[:2, 3] == pytest.approx((0, 0), abs=1e-5)
    assert -world[0, 2] == pytest.approx(0, abs=1e-5)
    assert -world[1, 2] > 0.9


def test_as_shot_changes_the_axes_only(tmp_path, scene):
    capture = small(3)
    collection = imported(capture, tmp_path, scene, up_axis="none")
    scene.frame_set(3)
    x, y, z = capture.world_from_camera[2, :3, 3]
    assert tuple(camera_of(collection).matrix_world.translation) == pytest.approx((x, z, -y), abs=1e-5)
