"""Laws of edge-aware smoothing and filling."""

import numpy as np
import pytest

from backend.classical.fill import fill
from backend.classical.plates import guided_filter, plate_masks
from backend.classical.smoothing import _solve, edge_aware_mean
from backend.run import Run
from backend.wire import CONFIDENCE_FILLED

EVEN = np.full((1, 12, 40, 3), 100, np.uint8)


@pytest.fixture
def halves():
    """A picture that is black on the left and white on the right."""
    picture = EVEN.copy()
    picture[:, :, :20], picture[:, :, 20:] = 0, 255
    return picture


def test_the_solver_solves_its_equations():
    """Thomas' algorithm against a dense solve of (I + s L) u = f."""
    rng = np.random.default_rng(0)
    n, strength = 9, 3.0
    state, link = rng.random((1, 1, 1, n)), rng.random((1, 1, n - 1))
    laplacian = np.zeros((n, n))
    for i, w in enumerate(link[0, 0]):
        laplacian[i : i + 2, i : i + 2] += w * np.array([[1, -1], [-1, 1]])
    expected = np.linalg.solve(np.eye(n) + strength * laplacian, state[0, 0, 0])
    np.testing.assert_allclose(_solve(state, link[None], strength, axis=3)[0, 0, 0], expected, rtol=1e-5)


def test_a_constant_stays_and_weight_is_neither_made_nor_lost():
    rng = np.random.default_rng(0)
    weights = (rng.random(EVEN.shape[:3]) < 0.2).astype(np.float32)
    mean, reached = edge_aware_mean(7 * weights, weights, EVEN, reach=10, edge=8)
    np.testing.assert_allclose(mean[reached > 1e-6], 7, rtol=1e-4)
    assert reached.sum() == pytest.approx(weights.sum(), rel=1e-3)


def test_values_carry_over_even_ground_and_stop_at_an_edge(halves):
    weights = np.zeros(EVEN.shape[:3], np.float32)
    weights[:, :, 5] = 1
    _, open_ground = edge_aware_mean(weights, weights, EVEN, reach=15, edge=8)
    _, behind_edge = edge_aware_mean(weights, weights, halves, reach=15, edge=8)
    assert open_ground[0, 6, 30] > 1e-3
    assert behind_edge[0, 6, 30] < 1e-9


def test_filling_keeps_what_was_measured_and_marks_what_was_not(halves):
    depth, confidence = np.zeros((2, *EVEN.shape[:3]), np.float32)
    dynamic = np.zeros(EVEN.shape[:3], bool)
    depth[:, 2:10:2, 2:19:3], confidence[:, 2:10:2, 2:19:3] = 4.0, 0.9
    depth[:, 5, 10], confidence[:, 5, 10], dynamic[:, 5, 10] = 1.0, 0.9, True
    filled, marks = fill(depth, confidence, dynamic, halves, Run())
    measured = (depth > 0) & ~dynamic
    np.testing.assert_array_equal(filled[measured], depth[measured])
    np.testing.assert_array_equal(marks[measured], confidence[measured])
    holes = (filled > 0) & ~measured
    assert (marks[holes] == np.float32(CONFIDENCE_FILLED)).all()
    np.testing.assert_allclose(filled[holes], 4, rtol=1e-3)  # the mover's own depth of 1 went nowhere
    assert holes[0, 5, 10]
    assert (filled[:, :, 20:] == 0).all()  # nothing was measured on the white side, so nothing stands there
    assert (marks[:, :, 20:] == 0).all()


def test_a_guided_filter_follows_the_picture_and_not_the_ragged_mask():
    guide = np.zeros((40, 40), np.float32)
    guide[:, 20:] = 1
    ragged = np.zeros((40, 40), np.float32)
    ragged[:, 20:] = 1
    ragged[10:20, 17:20] = 1
    assert ((guided_filter(guide, ragged, 6) > 0.5) == (guide > 0.5)).mean() > 0.99


def test_plate_masks_are_of_the_plates_size(tmp_path):
    masks = np.zeros((2, 18, 32), bool)
    masks[:, 6:12, 10:20] = True
    frames = np.repeat(np.repeat(masks, 2, 1), 2, 2)[..., None].repeat(3, -1).astype(np.uint8) * 200
    full = plate_masks(masks, frames, (128, 72), Run(work_dir=tmp_path))
    assert full.shape == (2, 72, 128)
    expected = np.repeat(np.repeat(masks, 4, 1), 4, 2)
    assert (full & expected).sum() / (full | expected).sum() > 0.9
