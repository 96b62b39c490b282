"""A clip's poses as a path: frames that jump away from their neighbours are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry.trajectory import has_pose, interpolate_poses
from .pose import Pose, errors_px
from .sightings import Sightings

#: A frame jumps when what its neighbours say of it is so many times as far off as is usual in the clip, and so many
#: times the error that points may have.
UNUSUAL, LEAST = 6.0, 2.0
#: Neighbours farther away than this many frames say nothing.
REACH = 3


def jumps(
    sightings: Sequence[Sightings], poses: Sequence[Pose | None], times: np.ndarray, max_error_px: float
) -> np.ndarray:
    """(T,) bool: frames whose points the poses of the frames before and after see elsewhere.

    The worst is taken out first, so that one bad frame does not make its neighbours look bad.
    """
    path = np.full((len(poses), 4, 4), np.nan)
    for t, pose in enumerate(poses):
        if pose is not None:
            path[t] = pose.world_from_camera
    usual = _off(path, sightings, poses, times)
    limit = max(LEAST * max_error_px, UNUSUAL * float(np.nanmedian(usual))) if np.isfinite(usual).any() else np.inf
    found = np.zeros(len(poses), bool)
    for _ in poses:
        off = _off(path, sightings, poses, times)
        if not np.isfinite(off).any() or np.nanmax(off) <= limit:
            break
        worst = int(np.nanargmax(off))
        found[worst], path[worst] = True, np.nan
    return found


def _off(
    path: np.ndarray, sightings: Sequence[Sightings], poses: Sequence[Pose | None], times: np.ndarray
) -> np.ndarray:
    """(T,) median pixels by which a frame's points move when its pose is taken from its neighbours; NaN without."""
    known = np.flatnonzero(has_pose(path))
    off = np.full(len(path), np.nan)
    for before, t, after in zip(known, known[1:], known[2:]):
        if after - before > 2 * REACH:
            continue
        three = np.stack([path[before], np.full((4, 4), np.nan), path[after]])
        between = interpolate_poses(three, times[[before, t, after]])[0][1]
        agree = sightings[t].where(poses[t].inliers)
        away = errors_px(agree.plate_xy, agree.points_world, poses[t].intrinsics, between)
        own = errors_px(agree.plate_xy, agree.points_world, poses[t].intrinsics, path[t])
        off[t] = float(np.median(away) - np.median(own))
    return off
