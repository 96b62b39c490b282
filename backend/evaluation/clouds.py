"""Reconstructions as papers measure them: accuracy, completeness and normal consistency of two clouds of points.

Distances are to the nearest point of the other cloud, in the truth's unit. Facts sheet of Point3R, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..geometry.rigid import Similarity, similarity_between

#: Points pair up in ICP when they are not further apart, in metres.
ICP_REACH = 0.1
_ICP_STEPS = 30
#: A step of ICP that changes the share of pairs and their distance by less than this is the last.
_ICP_STILL = 1e-6
#: A normal is that of the plane through so many nearest points, the point itself among them.
NEIGHBOURS = 30
#: Normals are computed of so many points at once.
_AT_ONCE = 100_000


@dataclass(frozen=True)
class CloudErrors:
    """Means and medians over points.

    `accuracy` is the distance from estimated points to the true ones, `completeness` from true to estimated ones;
    `normals` the cosine between the normals of such neighbours, either way, the mean of both directions.
    """

    accuracy: float
    accuracy_median: float
    completeness: float
    completeness_median: float
    normals: float
    normals_median: float


def scale_and_shift(estimate: np.ndarray, truth: np.ndarray) -> Similarity:
    """What brings (N, 3) points in the first camera's frame to the true size and median depth.

    Point n of both is of the same pixel. The size is the median distance from the median point. Raises ValueError for
    points that have none.
    """
    sizes = [np.median(np.linalg.norm(p - np.median(p, axis=0), axis=1)) for p in (estimate, truth)]
    if not len(truth) or not min(sizes) > 0:
        raise ValueError("the points have no extent")
    scale = float(sizes[1] / sizes[0])
    shift = np.median(truth[:, 2]) - scale * np.median(estimate[:, 2])
    return Similarity(scale, translation=np.array([0, 0, shift]))


def icp(estimate: np.ndarray, truth: np.ndarray, reach: float = ICP_REACH) -> Similarity:
    """The rigid motion that brings a cloud (N, 3) onto the true one (M, 3), from where it is.

    Besl and McKay 1992, point to point, on pairs within `reach`; the identity when hardly any point has a pair.
    """
    tree, found = cKDTree(truth), Similarity()
    share, error = 0.0, np.inf
    for _ in range(_ICP_STEPS):
        distance, nearest = tree.query(found.apply(estimate), distance_upper_bound=reach, workers=-1)
        paired = np.isfinite(distance)
        now = paired.mean(), float(np.sqrt(np.mean(distance[paired] ** 2))) if paired.any() else np.inf
        if abs(now[0] - share) < _ICP_STILL and abs(now[1] - error) < _ICP_STILL:
            break
        share, error = now
        try:
            found = similarity_between(estimate[paired], truth[nearest[paired]], with_scale=False)
        except ValueError:  # too few pairs, or all on one line
            break
    return found


def normals_of(points: np.ndarray, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """(N, 3) unit normals of points (N, 3), of either sign: where the nearest points extend least."""
    tree, found = cKDTree(points), np.empty_like(points, np.float64)
    for begin in range(0, len(points), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        _, nearest = tree.query(points[part], k=min(neighbours, len(points)), workers=-1)
        around = points[nearest.reshape(len(nearest), -1)]
        around = around - around.mean(1, keepdims=True)
        found[part] = np.linalg.eigh(np.swapaxes(around, 1, 2) @ around)[1][..., 0]
    return found


def cloud_errors(estimate: np.ndarray, truth: np.ndarray) -> CloudErrors:
    """How far two clouds (N, 3) and (M, 3) are from each other."""
    normals, true_normals = normals_of(estimate), normals_of(truth)
    accuracy, nearest_true = cKDTree(truth).query(estimate, workers=-1)
    completeness, nearest = cKDTree(estimate).query(truth, workers=-1)
    forth = np.abs((normals * true_normals[nearest_true]).sum(1))
    back = np.abs((true_normals * normals[nearest]).sum(1))
    return CloudErrors(
        accuracy=float(accuracy.mean()),
        accuracy_median=float(np.median(accuracy)),
        completeness=float(completeness.mean()),
        completeness_median=float(np.median(completeness)),
        normals=float((forth.mean() + back.mean()) / 2),
        normals_median=float((np.median(forth) + np.median(back)) / 2),
    )
