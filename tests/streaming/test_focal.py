"""The lens of a stream: of a frame's points, and one of a clip's frames."""

import numpy as np
import pytest

from backend.geometry.camera import rays
from backend.streaming.focal import frame_focal, shared_focal


def points(focal_px: float, width: int = 48, height: int = 32) -> np.ndarray:
    depth = 2 + np.random.default_rng(0).random((height, width))
    # pixels counted from the first one's centre, with the principal point at (W // 2, H // 2)
    lens = np.array([focal_px, focal_px, width // 2 + 0.5, height // 2 + 0.5])
    return (rays(lens, width, height) * depth[..., None]).astype(np.float32)


def test_the_focal_length_of_exact_points():
    assert frame_focal(points(41.5)) == pytest.approx(41.5, rel=1e-5)


def test_points_outside_the_mask_say_nothing():
    cloud, keep = points(41.5), np.ones((32, 48), bool)
    cloud[:16, :, :2] *= 3
    keep[:16] = False
    assert frame_focal(cloud, keep) == pytest.approx(41.5, rel=1e-5)
    assert np.isnan(frame_focal(cloud, np.zeros((32, 48), bool)))


def test_one_lens_for_a_clip_leaves_out_frames_that_are_far_off():
    rng = np.random.default_rng(1)
    focal = 100 * np.exp(rng.normal(0, 0.01, 60))
    focal[[3, 20]] = 30, 400
    focal[7] = np.nan
    found = shared_focal(focal)
    assert found.focal_px == pytest.approx(100, rel=0.005)
    assert 50 <= found.used <= 57
    assert found.spread == pytest.approx(0.01, rel=0.4)
    assert not found.changes
    with pytest.raises(ValueError, match="no frame"):
        shared_focal(np.full(3, np.nan))


def test_a_zoom_is_told_from_noise():
    noise = np.exp(np.random.default_rng(2).normal(0, 0.02, 60))
    assert not shared_focal(100 * noise).changes
    assert shared_focal(100 * noise * np.linspace(1, 1.4, 60)).changes
