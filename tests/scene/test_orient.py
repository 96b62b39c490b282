"""The import stands upright on its floor, however the camera was held, and only the root says so."""

from dataclasses import replace

import numpy as np
import pytest

from blender_addon.scene.orient import find_orientation
from tests.scene.captures import camera_of, imported, small
from tests.worlds import as_capture, look, room


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


def test_without_points_the_horizon_comes_from_the_cameras():
    cameras = np.stack([look(yaw, 0.2, 0, (0, 0, 0)) for yaw in np.linspace(-0.5, 0.5, 8)])
    capture = small(8)
    capture = replace(capture, depth=np.zeros_like(capture.depth), world_from_camera=cameras)
    orientation = find_orientation(capture)
    assert not orientation.floor_found
    assert up_error(orientation, np.eye(4)) < 0.5  # a pan, tilted down by 11 degrees


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
