"""Smoothing takes noise out of a camera path and leaves what was meant exactly as it was."""

import numpy as np
import pytest

from blender_addon.scene.camera_path import CameraPath
from blender_addon.scene.smoothing import Smoothing, smooth, smooth_rotations, smooth_values

FRAMES = np.arange(60)


def quaternions(angles, axis=(0.3, 0.9, 0.1)):
    half, axis = np.asarray(angles)[:, None] / 2, np.array(axis) / np.linalg.norm(axis)
    return np.concatenate([np.cos(half), np.sin(half) * axis], axis=1)


def angles_between(a, b):
    apart = np.minimum(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    return 4 * np.arcsin(apart / 2)


def test_a_strength_of_nothing_changes_not_one_bit():
    rng = np.random.default_rng(0)
    path = CameraPath(FRAMES, rng.random((60, 3)), quaternions(rng.random(60)), *rng.random((3, 60)))
    same = smooth(path, Smoothing())
    assert all(np.array_equal(getattr(same, name), value) for name, value in vars(path).items())


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0, 50.0])
def test_a_move_that_gathers_speed_is_kept_to_its_ends_and_across_gaps(strength):
    frames = np.delete(FRAMES, [7, 8, 9, 30])
    move = np.stack([0.01 * frames**2 - frames, np.full(len(frames), 5.0)], axis=1)
    found = smooth_values(frames, move, strength)
    assert np.abs(found - move).max() < 1e-6
    turning = quaternions(0.0005 * frames**2)
    assert angles_between(smooth_rotations(frames, turning, strength), turning).max() < 1e-6


def test_noise_goes():
    rng = np.random.default_rng(1)
    frames = np.arange(8000)
    noise = rng.normal(0, 1, (8000, 1))
    # Of white noise a Gaussian of 5 frames lets sqrt(1 / (2 sqrt(pi) 5)) = 0.2375 through; the quadratic's kernel,
    # (3 - x^2) / 2 times the Gaussian, has 27/16 of its energy.
    smoothed = smooth_values(frames, noise, 5.0)[20:-20]
    assert smoothed.std() == pytest.approx(0.2375 * np.sqrt(27 / 16), rel=0.05)
    wanted = quaternions(0.02 * np.sin(frames / 60))
    shaken = quaternions(0.02 * np.sin(frames / 60) + 0.001 * noise[:, 0])
    off = angles_between(smooth_rotations(frames, shaken, 5.0), wanted)[20:-20]
    assert np.sqrt((off**2).mean()) == pytest.approx(0.001 * 0.308, rel=0.05)


def test_a_turn_through_half_a_circle_and_more_is_followed():
    turning = quaternions(np.linspace(0, 4 * np.pi, 60))
    turning[20:] *= -1  # the same rotations, written on the other side
    found = smooth_rotations(FRAMES, turning, 2.0)
    assert angles_between(found, turning).max() < 1e-6
    assert ((found[1:] * found[:-1]).sum(axis=1) > 0).all()


def test_a_lens_that_does_not_zoom_stays_exactly_constant():
    path = CameraPath(FRAMES, np.zeros((60, 3)), quaternions(np.zeros(60)), np.full(60, 35.3), *np.zeros((2, 60)))
    assert np.ptp(smooth(path, Smoothing(5, 5, 5)).lens) == 0
