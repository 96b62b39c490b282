"""Accuracy, completeness and normals of clouds whose distance is known, and alignments that must find what was done."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.evaluation.clouds import cloud_errors, icp, normals_of, scale_and_shift
from backend.geometry.rigid import Similarity


def sheet(step: float = 0.02, size: int = 40, z: float = 2.0) -> np.ndarray:
    """A square of points that faces z."""
    x, y = np.meshgrid(np.arange(size) * step, np.arange(size) * step)
    return np.stack([x, y, np.full_like(x, z)], -1).reshape(-1, 3)


def bowl(size: int = 40) -> np.ndarray:
    """A surface that looks different from everywhere."""
    points = sheet(size=size)
    x, y = points[:, 0] - 0.4, points[:, 1] - 0.4
    points[:, 2] += 1.3 * x**2 + 0.5 * y**2 + 0.2 * x * y + 0.1 * np.sin(9 * x)
    return points


def test_parallel_sheets_are_as_far_apart_as_they_are_and_have_one_normal():
    errors = cloud_errors(sheet(z=2.05), sheet())
    assert errors.accuracy == errors.completeness == pytest.approx(0.05)
    assert errors.accuracy_median == errors.completeness_median == pytest.approx(0.05)
    assert errors.normals == pytest.approx(1, abs=1e-9)
    assert errors.normals_median == pytest.approx(1, abs=1e-9)


def test_half_of_a_sheet_is_accurate_and_not_complete():
    true = sheet()
    half = true[true[:, 0] < 0.4 - 1e-9]  # columns 0 to 19 of 40, 0.02 apart
    errors = cloud_errors(half, true)
    assert errors.accuracy == pytest.approx(0, abs=1e-12)
    assert errors.completeness == pytest.approx(np.mean([0] * 20 + [0.02 * k for k in range(1, 21)]))
    assert errors.completeness_median == pytest.approx(0.01)


def test_the_normal_of_a_tilted_sheet_is_off_by_the_tilt():
    tilt = Rotation.from_rotvec([0, np.radians(60), 0]).as_matrix()
    tilted = sheet() @ tilt.T
    assert np.abs(normals_of(tilted) @ (tilt @ [0, 0, 1])) == pytest.approx(1, abs=1e-9)
    assert cloud_errors(tilted, sheet()).normals == pytest.approx(0.5, abs=1e-6)


def test_scale_and_shift_in_depth_are_undone():
    true = bowl()
    done = Similarity(2.5, translation=np.array([0.3, -0.2, 4.0]))
    found = scale_and_shift(done.apply(true), true)
    assert found.scale == pytest.approx(1 / 2.5)
    back = found.apply(done.apply(true))
    np.testing.assert_allclose(back[:, 2], true[:, 2], atol=1e-9)  # what moved sideways is left to ICP
    np.testing.assert_allclose((back - true)[:, :2], [[0.12, -0.08]] * len(true), atol=1e-9)
    with pytest.raises(ValueError, match="no extent"):
        scale_and_shift(np.ones((5, 3)), true[:5])


def test_icp_undoes_a_small_motion():
    true = bowl() - bowl().mean(0)
    moved = Similarity(1.0, Rotation.from_rotvec([0.02, -0.03, 0.01]).as_matrix(), np.array([0.004, 0.003, -0.006]))
    found = icp(moved.apply(true), true)
    np.testing.assert_allclose(found.apply(moved.apply(true)), true, atol=2e-3)
    assert cloud_errors(found.apply(moved.apply(true)), true).accuracy < 1e-3
    assert cloud_errors(moved.apply(true), true).accuracy > 5e-3


def test_icp_leaves_alone_what_is_out_of_reach():
    true = bowl()
    far, near = true + np.array([0, 0, 0.5]), true + np.array([0, 0, 0.01])
    np.testing.assert_array_equal(icp(far, true).apply(far), far)
    with_outliers = np.concatenate([near, true[:200] + np.array([0, 0, 3.0])])
    np.testing.assert_allclose(icp(with_outliers, true).apply(near), true, atol=2e-3)
