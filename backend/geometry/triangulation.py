"""Points from planes that they lie on: linear least squares of many points at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Ridge in shares of an equation's size, so that a point which its planes leave free stays finite.
_RIDGE = 1e-9


def points_on_planes(
    point: np.ndarray, planes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], count: int
) -> np.ndarray:
    """(count, 3) points nearest to planes `normal . x = value`.

    Each of `planes` is (M, 3) normals, (M,) values and (M,) weights of squared distances, which belong to the points
    `point` (M,). A camera's ray is two planes through it.
    """
    a, b = np.zeros((count, 3, 3)), np.zeros((count, 3))
    for i in range(3):
        for j in range(i, 3):
            total = sum(weight * normal[:, i] * normal[:, j] for normal, _, weight in planes)
            a[:, i, j] = a[:, j, i] = np.bincount(point, total, count)
        b[:, i] = np.bincount(point, sum(weight * normal[:, i] * value for normal, value, weight in planes), count)
    a += _RIDGE * np.trace(a, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    return np.linalg.solve(a, b[..., None])[..., 0]
