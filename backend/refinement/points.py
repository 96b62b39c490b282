"""Points from sightings: robust triangulation that leans on the engine's depth where parallax says little."""

from __future__ import annotations

import numpy as np

from ..geometry.triangulation import points_on_planes
from .cameras import Cameras
from .sightings import Static

#: What the engine's depth of a point counts as: one observation with this relative error. Where the engine knows
#: nothing, the median depth stands in, and says next to nothing.
DEPTH_ERROR, NO_DEPTH_ERROR = 0.1, 100.0
#: Most rounds of Gauss-Newton, which end when half the points move by less than this fraction of the depth.
ROUNDS, SETTLED = 12, 1e-5


def triangulate(static: Static, cameras: Cameras, noise_px: float, start: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) world points of the tracks.

    Minimises reprojection errors under a Cauchy loss of scale `noise_px`, plus the distance in depth to where the
    engine has the point, by Gauss-Newton over all points at once; from `start`, or else from the points nearest to
    all rays.
    """
    seen, count = static.seen, static.track_count
    poses = cameras.world_from_camera[seen.frame]
    right, down, forward = (np.ascontiguousarray(poses[:, :3, k]) for k in range(3))
    centres, rays = poses[:, :3, 3], cameras.rays(seen)
    focal = cameras.focal_px[seen.frame]
    known = static.depth > 0
    typical = float(np.median(static.depth[known])) if known.any() else 1.0
    depth = np.where(known, static.depth, typical)
    depth_error = np.where(known, DEPTH_ERROR, NO_DEPTH_ERROR) * depth
    prior = 1 / depth_error**2 / np.bincount(seen.track, minlength=count)[seen.track]

    def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]

    points = start
    if points is None:
        # The two planes through the camera that hold the ray; their distance times focal / depth is pixels.
        across, above = (side - rays[:, k, None] * forward for k, side in enumerate((right, down)))
        weight = (focal / depth / noise_px) ** 2
        parts = [(plane, dot(plane, centres), weight) for plane in (across, above)]
        points = points_on_planes(seen.track, [*parts, (forward, dot(forward, centres) + depth, prior)], count)
    for _ in range(ROUNDS):
        away = points[seen.track] - centres
        z = dot(forward, away)
        ahead = z > 1e-6 * typical
        z = np.where(ahead, z, 1.0)
        x, y = dot(right, away) / z, dot(down, away) / z
        miss_x, miss_y = (rays[:, 0] - x) * focal, (rays[:, 1] - y) * focal
        by_x, by_y = ((focal / z)[:, None] * (side - at[:, None] * forward) for side, at in ((right, x), (down, y)))
        weight = ahead / (noise_px**2 + miss_x**2 + miss_y**2)
        off = np.where(ahead, depth - z, 0.0)
        leaning = forward, off, prior / (1 + (off / depth_error) ** 2)
        step = points_on_planes(seen.track, [(by_x, miss_x, weight), (by_y, miss_y, weight), leaning], count)
        points = points + step
        if np.median(np.abs(step).max(axis=1)) < SETTLED * typical:
            break
    return points


def measure(static: Static, cameras: Cameras, start_px: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """The tracks' (N, 3) points in these cameras and the (M,) reprojection errors in plate pixels.

    The loss narrows from `start_px` to what the errors turn out to be, so that a bad camera is measured as fairly as
    a good one.
    """
    points = triangulate(static, cameras, start_px)
    noise = loss_scale(cameras.errors_px(points, static.seen))
    points = triangulate(static, cameras, noise, points)
    return points, cameras.errors_px(points, static.seen)


def loss_scale(errors_px: np.ndarray) -> float:
    """The Cauchy scale that fits errors of that size, at least half a pixel."""
    return max(0.5, 2 * typical_error(errors_px))


def typical_error(errors_px: np.ndarray) -> float:
    """The median of errors of which up to two thirds are of something else: from their lower quartile.

    The length of a vector with normal errors in x and y has its median at 1.55 times its lower quartile.
    """
    quarter = len(errors_px) // 4
    return 1.55 * float(np.partition(errors_px, quarter)[quarter])
