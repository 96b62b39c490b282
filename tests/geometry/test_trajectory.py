"""Laws of camera paths: length, agreement after alignment, interpolation."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.geometry.rigid import Similarity, rotation_angles_deg
from backend.geometry.trajectory import absolute_trajectory_error, align_trajectories, interpolate_poses, path_length
from tests.worlds import hand_held, look

ANOTHER_WORLD = Similarity(0.37, Rotation.from_euler("xyz", [20, 130, -40], degrees=True).as_matrix(), np.ones(3))


def straight(frames: int) -> np.ndarray:
    return np.stack([look(0.02 * i, 0.0, 0.0, [0.1 * i, 0.0, 0.0]) for i in range(frames)])


def test_the_length_of_a_path_is_the_sum_of_its_steps_over_known_frames():
    cameras = straight(11)
    assert path_length(cameras) == pytest.approx(1.0)
    cameras[4] = np.nan
    assert path_length(cameras) == pytest.approx(1.0)
    assert path_length(hand_held(5, "locked")) == 0.0


@pytest.mark.parametrize("truth", [hand_held(30), straight(30)], ids=["hand-held", "straight"])
def test_a_path_told_in_another_world_has_no_error(truth):
    error = absolute_trajectory_error(ANOTHER_WORLD.apply_to_poses(truth), truth)
    assert error.ate_rmse == pytest.approx(0, abs=1e-9)
    assert error.rotation_deg_rmse == pytest.approx(0, abs=1e-5)
    assert error.step_translation_rmse == pytest.approx(0, abs=1e-9)
    assert error.step_rotation_deg_rmse == pytest.approx(0, abs=1e-5)
    assert error.alignment.scale == pytest.approx(1 / 0.37)
    assert (error.compared, error.missing) == (30, 0)


def test_error_grows_with_the_noise_and_is_told_against_the_true_length():
    truth = hand_held(40)
    rng = np.random.default_rng(0)
    errors = []
    for sigma in (0.001, 0.01, 0.1):
        noisy = truth.copy()
        noisy[:, :3, 3] += rng.normal(0, sigma, (40, 3))
        errors.append(absolute_trajectory_error(noisy, truth))
    assert errors[0].ate_rmse < errors[1].ate_rmse < errors[2].ate_rmse
    assert errors[0].ate_rmse == pytest.approx(0.001 * np.sqrt(3), rel=0.3)
    assert errors[1].ate_relative == pytest.approx(errors[1].ate_rmse / path_length(truth))


def test_a_camera_that_turns_wrongly_is_seen_in_rotation_and_not_in_position():
    truth = hand_held(20)
    turned = truth.copy()
    wrong = np.where(np.arange(20) % 2, 3.0, -3.0)  # degrees to either side of where it should look
    turned[:, :3, :3] = truth[:, :3, :3] @ Rotation.from_euler("y", wrong[:, None], degrees=True).as_matrix()
    error = absolute_trajectory_error(turned, truth)
    assert error.ate_rmse == pytest.approx(0, abs=1e-9)
    assert error.rotation_deg_rmse == pytest.approx(3, rel=0.01)
    assert error.step_rotation_deg_rmse == pytest.approx(6, rel=0.01)


def test_rotation_is_told_well_where_the_path_is_nearly_straight():
    """A tenth of a millimetre of noise may turn the aligned path about itself, and that is no error of rotation."""
    truth = straight(20)
    noisy = truth.copy()
    noisy[:, 1:3, 3] += 1e-4 * np.stack([np.sin(np.arange(20)), np.cos(np.arange(20))], 1)
    assert absolute_trajectory_error(noisy, truth).rotation_deg_rmse < 0.01


def test_without_scale_a_path_of_another_size_is_wrong():
    truth = hand_held(20)
    assert absolute_trajectory_error(Similarity(2.0).apply_to_poses(truth), truth, with_scale=False).ate_rmse > 0.1


def test_unknown_frames_are_counted_and_change_nothing_else():
    truth = hand_held(20)
    estimate = truth.copy()
    estimate[[3, 19]] = np.nan
    error = absolute_trajectory_error(estimate, truth)
    assert (error.compared, error.missing) == (18, 2)
    assert error.ate_rmse == pytest.approx(0, abs=1e-9)


def test_paths_that_cannot_be_aligned_are_refused():
    moving, locked = hand_held(10), hand_held(10, "locked")
    with pytest.raises(ValueError, match="stands still"):
        align_trajectories(locked, moving)
    with pytest.raises(ValueError, match="fewer than two"):
        align_trajectories(np.full((10, 4, 4), np.nan), moving)
    with pytest.raises(ValueError, match="9 and 10 frames"):
        absolute_trajectory_error(moving[:9], moving)


def test_gaps_are_filled_between_known_frames_and_never_beyond_them():
    cameras = hand_held(12)
    holes = cameras.copy()
    holes[[0, 4, 5, 11]] = np.nan
    filled, which = interpolate_poses(holes)
    assert which.nonzero()[0].tolist() == [4, 5]
    assert np.isnan(filled[[0, 11]]).all()
    known = [1, 2, 3, 6, 7, 8, 9, 10]
    np.testing.assert_array_equal(filled[known], cameras[known])
    np.testing.assert_allclose(filled[4, :3, 3], cameras[3, :3, 3] * 2 / 3 + cameras[6, :3, 3] / 3)
    assert (np.linalg.norm((filled - cameras)[4:6, :3, 3], axis=1) < 0.02).all()
    np.testing.assert_allclose(np.linalg.det(filled[4:6, :3, :3]), 1)


def test_a_steady_turn_is_interpolated_exactly_in_true_time():
    times = np.array([0.0, 1.0, 4.0])
    cameras = np.stack([look(0.1 * t, 0, 0, [t, 0, 0]) for t in times])
    holes = cameras.copy()
    holes[1] = np.nan
    filled, which = interpolate_poses(holes, times)
    assert which.tolist() == [False, True, False]
    np.testing.assert_allclose(filled[1, :3, 3], cameras[1, :3, 3])
    assert rotation_angles_deg(filled[1, :3, :3].T @ cameras[1, :3, :3]) == pytest.approx(0, abs=1e-6)


def test_a_single_known_frame_gives_no_other():
    cameras = np.full((4, 4, 4), np.nan)
    cameras[2] = np.eye(4)
    filled, which = interpolate_poses(cameras)
    assert not which.any()
    np.testing.assert_array_equal(np.isnan(filled), np.isnan(cameras))
