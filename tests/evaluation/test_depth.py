"""Laws of the video-depth protocol: what each alignment undoes, and what the figures count."""

import numpy as np
import pytest

from backend.evaluation.depth import ALIGNMENTS, depth_error, least_absolute, least_absolute_scale, least_squares

TRUTH = np.random.default_rng(0).uniform(1, 9, 5000)
SCALED, SHIFTED = (
    ["median scale", "scale, least absolute"],
    [
        "scale and shift, least squares",
        "scale and shift, least absolute",
    ],
)


@pytest.mark.parametrize("alignment", SCALED + SHIFTED)
def test_any_alignment_undoes_a_scale(alignment):
    found = depth_error(TRUTH / 3, TRUTH, alignment)
    assert (found.abs_rel, found.delta_125) == (pytest.approx(0, abs=1e-6), 1)
    assert found.scale == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("alignment", SHIFTED)
def test_scale_and_shift_undo_both(alignment):
    found = depth_error((TRUTH - 0.5) / 2, TRUTH, alignment)
    assert found.abs_rel == pytest.approx(0, abs=1e-6)
    assert (found.scale, found.shift) == (pytest.approx(2, abs=1e-5), pytest.approx(0.5, abs=1e-5))


def test_figures_are_means_over_the_pixels():
    estimate = np.where(np.arange(5000) % 4 == 0, 1.5, 1.0) * TRUTH
    found = depth_error(estimate, TRUTH, "none")
    assert found.abs_rel == pytest.approx(0.125)
    assert found.delta_125 == 0.75
    assert depth_error(TRUTH / 1.5, TRUTH, "none").delta_125 == 0  # too near counts as too far does


def test_the_least_sums_are_least():
    """No scale (and shift) nearby has a smaller sum than the one that is said to have the least."""
    rng = np.random.default_rng(1)
    estimate = TRUTH * rng.lognormal(0, 0.2, 5000) + rng.uniform(0, 0.5, 5000)
    steps = (-1e-3, 0, 1e-3)
    scale, _ = least_absolute_scale(estimate, TRUTH)
    sums = [np.abs((scale + ds) * estimate - TRUTH).sum() for ds in steps]
    assert np.argmin(sums) == 1
    for fit, power in ((least_squares, 2), (least_absolute, 1)):
        scale, shift = fit(estimate, TRUTH)
        sums = [(np.abs((scale + ds) * estimate + shift + dt - TRUTH) ** power).sum() for ds in steps for dt in steps]
        assert np.argmin(sums) == 4


def test_absolute_sums_do_not_mind_a_few_wild_depths():
    estimate = TRUTH / 2
    estimate[::50] *= 20
    assert least_absolute(estimate, TRUTH) == pytest.approx((2, 0), abs=1e-3)
    assert least_absolute_scale(estimate, TRUTH)[0] == pytest.approx(2)
    assert least_squares(estimate, TRUTH)[0] < 1


def test_what_lies_beyond_the_farthest_depth_is_clipped():
    found = depth_error(np.array([1.0, 2.0, 100.0]), np.array([1.0, 2.0, 8.0]), "none", max_depth=10)
    assert found.abs_rel == pytest.approx(0.25 / 3)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_nothing_to_compare_is_no_figure_and_a_flat_estimate_is_none_the_less_aligned(alignment):
    assert np.isnan(depth_error(np.zeros(0), np.zeros(0), alignment).abs_rel)
    assert np.isfinite(depth_error(np.full(5000, 2.0), TRUTH, alignment).abs_rel)
