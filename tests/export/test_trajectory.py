"""The TUM trajectory, read back by evo, and the table of intrinsics."""

import numpy as np
import pytest
from evo.tools.file_interface import read_tum_trajectory_file

from backend.export.trajectory import add_trajectory, continuous_quaternions
from tests.worlds import look

from .conftest import FRAMES, LOST


def test_evo_reads_the_cameras_that_were_written(exact, tmp_path):
    add_trajectory(exact, tmp_path)
    path = read_tum_trajectory_file(tmp_path / "pred_traj.txt")
    np.testing.assert_allclose(path.poses_se3, exact.world_from_camera, atol=1e-10)
    np.testing.assert_allclose(path.timestamps, np.arange(FRAMES) * 1001 / 24000, atol=1e-10)
    assert path.check()[0]


def test_a_frame_without_a_camera_is_left_out(holed, tmp_path):
    add_trajectory(holed, tmp_path)
    path = read_tum_trajectory_file(tmp_path / "pred_traj.txt")
    np.testing.assert_allclose(path.timestamps, [i * 1001 / 24000 for i in range(FRAMES) if i != LOST], atol=1e-10)


def test_a_capture_without_any_camera_gives_an_empty_path(exact, tmp_path):
    lost = type(exact)(**{**vars(exact), "world_from_camera": np.full((FRAMES, 4, 4), np.nan)})
    add_trajectory(lost, tmp_path)
    lines = (tmp_path / "pred_traj.txt").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)


def test_intrinsics_have_a_row_for_every_frame(holed, tmp_path):
    add_trajectory(holed, tmp_path)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "pred_intrinsics.txt"), holed.intrinsics, rtol=1e-11)
    header = (tmp_path / "pred_intrinsics.txt").read_text().splitlines()[:2]
    assert "edge-origin" in header[0]
    assert header[1] == "# fx fy cx cy"


def test_the_headers_say_whether_the_scale_is_metric(exact, tmp_path):
    add_trajectory(exact, tmp_path)
    assert "metres" in (tmp_path / "pred_traj.txt").read_text()
    add_trajectory(type(exact)(**{**vars(exact), "metric": False}), tmp_path)
    assert "arbitrary scale" in (tmp_path / "pred_traj.txt").read_text()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quaternions_of_a_full_turn_never_jump(axis):
    """Over two full turns about any axis, neighbours stay within the step between them."""
    angles = np.linspace(0, 4 * np.pi, 61)
    turns = np.stack([look(*np.eye(3)[axis] * angle, (0, 0, 0))[:3, :3] for angle in angles])
    xyzw = continuous_quaternions(turns)
    steps = np.linalg.norm(np.diff(xyzw, axis=0), axis=1)
    # A step is 4 pi / 60 rad, and a quaternion moves by half of the angle: 0.105, chord 0.1046.
    np.testing.assert_allclose(steps, 2 * np.sin(np.pi / 60), rtol=1e-6)
