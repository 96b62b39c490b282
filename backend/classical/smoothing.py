"""Edge-aware smoothing and interpolation in linear time (Min et al. 2014, "Fast Global Image Smoothing")."""

from __future__ import annotations

import numpy as np

#: Rounds of horizontal and vertical solves; three leave no streaks (section III-C of the paper).
ROUNDS = 3


def edge_aware_mean(
    values: np.ndarray, weights: np.ndarray, guides: np.ndarray, reach: float, edge: float
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means of `values` over regions that the guide picture does not divide.

    `values` and `weights` (T, H, W) with weight 0 where nothing is known, `guides` (T, H, W, 3) uint8 pictures.
    `reach` is how far a value carries across even ground, in pixels, and `edge` the colour step (0-255) that stops
    it. Returns the means (T, H, W) float32 and the weight (T, H, W) that reached each pixel: where it vanishes, the
    mean says nothing and is 0.
    """
    similar_x = np.exp(_step(guides[:, :, 1:], guides[:, :, :-1]) / -np.float32(edge))
    similar_y = np.exp(_step(guides[:, 1:], guides[:, :-1]) / -np.float32(edge))
    state = np.stack([values * weights, weights]).astype(np.float32)
    for i in range(ROUNDS):
        strength = 1.5 * 4.0 ** (ROUNDS - 1 - i) / (4.0**ROUNDS - 1) * reach**2
        state = _solve(state, similar_x[None], strength, axis=3)
        state = _solve(state, similar_y[None], strength, axis=2)
    total, weight = state
    return np.where(weight > 1e-12, total / np.maximum(weight, 1e-12), 0).astype(np.float32), weight


def _step(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The largest difference of colour channels between pixels."""
    channels = (np.maximum(a[..., k], b[..., k]) - np.minimum(a[..., k], b[..., k]) for k in range(3))
    return np.maximum(np.maximum(next(channels), next(channels)), next(channels)).astype(np.float32)


def _solve(state: np.ndarray, similar: np.ndarray, strength: float, axis: int) -> np.ndarray:
    """(I + strength * L) u = state along one axis, L the Laplacian of the links `similar`: Thomas' algorithm."""
    rhs = np.ascontiguousarray(np.moveaxis(state, axis, 0))
    link = np.ascontiguousarray(np.moveaxis(similar, axis, 0)) * np.float32(strength)
    n = len(rhs)
    upper = np.empty_like(link)
    out = np.empty_like(rhs)
    diagonal = 1 + link[0]
    upper[0] = -link[0] / diagonal
    out[0] = rhs[0] / diagonal
    for i in range(1, n):
        diagonal = 1 + link[i - 1] * (1 + upper[i - 1])
        if i < n - 1:
            diagonal += link[i]
            upper[i] = -link[i] / diagonal
        out[i] = (rhs[i] + link[i - 1] * out[i - 1]) / diagonal
    for i in range(n - 2, -1, -1):
        out[i] -= upper[i] * out[i + 1]
    return np.moveaxis(out, 0, axis)
