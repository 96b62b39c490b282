"""Camera path errors by evo agree with ours, and are no figures where a path has no extent."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.evaluation.path import path_error
from backend.geometry.rigid import Similarity
from backend.geometry.trajectory import absolute_trajectory_error
from tests.worlds import hand_held, look


def wrong(frames: int, amount: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(3)
    poses = hand_held(frames)
    return poses @ np.stack([look(*rng.normal(0, amount, 3), rng.normal(0, amount, 3)) for _ in range(frames)])


def test_another_world_and_scale_is_no_error():
    other = Similarity(0.2, Rotation.from_rotvec([0.3, -2, 0.5]).as_matrix(), np.ones(3))
    found = path_error(other.apply_to_poses(hand_held(12)), hand_held(12))
    assert (found.ate, found.rpe, found.rpe_deg) == pytest.approx((0, 0, 0), abs=1e-5)


def test_evo_and_our_own_geometry_agree():
    found, ours = path_error(wrong(30), hand_held(30)), absolute_trajectory_error(wrong(30), hand_held(30))
    assert found.ate == pytest.approx(ours.ate_rmse, rel=1e-6)
    assert found.rpe == pytest.approx(ours.step_translation_rmse, rel=1e-6)
    assert found.rpe_deg == pytest.approx(ours.step_rotation_deg_rmse, rel=1e-6)
    assert found.ate > 0.01


def test_frames_without_a_pose_in_either_are_left_out():
    estimate, truth = hand_held(12), hand_held(12)
    estimate[3], truth[7] = np.nan, np.nan
    found = path_error(estimate, truth)
    assert found.compared == 10
    assert found.ate == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("motion", ["locked", "rotation"])
def test_a_camera_that_stands_still_gives_no_figure(motion):
    assert np.isnan(path_error(wrong(8), hand_held(8, motion)).ate)
    assert np.isnan(path_error(hand_held(8, motion), wrong(8)).ate)
    assert np.isnan(path_error(wrong(2), wrong(2)).ate)
