"""Video depth as papers measure it: one alignment for the whole clip, then Abs Rel and the share within 1.25 times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Iterative fits look at no more pixels than this, evenly taken from all.
_FITTED = 2_000_000


@dataclass(frozen=True)
class DepthError:
    """Means over the pixels compared: `abs_rel` of |d - t| / t, `delta_125` of max(d / t, t / d) < 1.25, t the truth.

    `scale` and `shift` are the alignment, d = scale * estimate + shift.
    """

    abs_rel: float
    delta_125: float
    scale: float
    shift: float


def median_scale(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The ratio of the medians, and no shift."""
    return float(np.median(truth) / np.median(estimate)), 0.0


def least_absolute_scale(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The scale with the least sum |scale * estimate - truth|: what Weiszfeld's iterations converge to.

    That sum is estimate * |scale - truth / estimate|, so the median of the ratios weighted by the estimates.
    """
    estimate, truth = _fitted(estimate, truth)
    ratios = truth / estimate
    order = np.argsort(ratios)
    share = np.cumsum(estimate[order], dtype=np.float64)
    return float(ratios[order][np.searchsorted(share, share[-1] / 2)]), 0.0


def least_squares(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Scale and shift with the least sum (scale * estimate + shift - truth)^2."""
    estimate, truth = np.float64(estimate), np.float64(truth)
    spread = estimate.var()
    if spread <= 1e-12 * estimate.mean() ** 2:  # a flat estimate tells shift and scale not apart
        return float(truth.mean() / estimate.mean()), 0.0
    scale = ((estimate - estimate.mean()) * (truth - truth.mean())).mean() / spread
    return float(scale), float(truth.mean() - scale * estimate.mean())


def least_absolute(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Scale and shift with the least sum |scale * estimate + shift - truth|, by reweighted least squares.

    The original evaluation goes towards the same minimum with 1000 steps of Adam, and may stop before it.
    """
    estimate, truth = (np.float64(a) for a in _fitted(estimate, truth))
    scale, shift = median_scale(estimate, truth)
    least = 1e-6 * float(np.median(truth))
    cost = np.inf
    for _ in range(200):
        residual = np.abs(scale * estimate + shift - truth)
        if residual.sum() > cost * (1 - 1e-9):
            break
        cost = residual.sum()
        weight = 1 / np.maximum(residual, least)
        weight /= weight.sum()
        x, y = (weight * estimate).sum(), (weight * truth).sum()
        spread = (weight * (estimate - x) ** 2).sum()
        if spread <= 1e-12 * x**2:
            break
        scale = (weight * (estimate - x) * (truth - y)).sum() / spread
        shift = y - scale * x
    return float(scale), float(shift)


def no_alignment(estimate: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The estimate as it is, for one that claims to be metric."""
    return 1.0, 0.0


#: Name -> (scale, shift) of an estimate and the truth, both (N,) and positive.
ALIGNMENTS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {
    "median scale": median_scale,
    "scale, least absolute": least_absolute_scale,
    "scale and shift, least squares": least_squares,
    "scale and shift, least absolute": least_absolute,
    "none": no_alignment,
}


def depth_error(estimate: np.ndarray, truth: np.ndarray, alignment: str, max_depth: float = np.inf) -> DepthError:
    """Error of depth (N,) against the true one (N,), both positive, after one alignment of them all.

    The aligned estimate is clipped at `max_depth`, beyond which the truth must have been left out. A depth that the
    alignment makes zero or negative counts as beyond 1.25 times. NaN when there is nothing to compare.
    """
    if not len(truth):
        return DepthError(*[float("nan")] * 4)
    scale, shift = ALIGNMENTS[alignment](estimate, truth)
    aligned = np.minimum(scale * np.float64(estimate) + shift, max_depth)
    low, high = np.minimum(aligned, truth), np.maximum(aligned, truth)
    return DepthError(
        abs_rel=float(np.mean(np.abs(aligned - truth) / truth)),
        delta_125=float(np.mean(high < 1.25 * low)),
        scale=scale,
        shift=shift,
    )


def _fitted(estimate: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = -(-len(truth) // _FITTED)
    return estimate[::every], truth[::every]
