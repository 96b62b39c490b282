"""A clip's poses as a path: frames that jump away from their neighbours are told."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.rigid import poses_from
from .pose import Pose, errors_px
from .sightings import Sightings

#: A frame jumps when its neighbours put its points so many times as far off as they do in the clip's better frames, and
#: so many times the error that points may have.
UNUSUAL, LEAST = 8.0, 2.0
#: Neighbours, as places among the frames with a pose, two of which foretell a frame: between them or beyond.
NEIGHBOURS = ((-1, 1), (-2, 1), (-1, 2), (-2, -1), (1, 2), (-3, -1), (1, 3), (-3, -2), (2, 3))
#: Neighbours farther away than this many frames say nothing.
REACH = 6


def jumps(
    sightings: Sequence[Sightings], poses: Sequence[Pose | None], times: np.ndarray, max_error_px: float
) -> np.ndarray:
    """(T,) bool: frames whose points no two of their neighbours see where they are.

    That one of several pairs agrees is enough, so a bad frame does not make its neighbours look bad.
    """
    known = [t for t, pose in enumerate(poses) if pose is not None]
    off = np.full(len(poses), np.nan)
    for place, t in enumerate(known):
        pairs = [(place + a, place + b) for a, b in NEIGHBOURS if place + a >= 0 and place + b < len(known)]
        pairs = [(known[a], known[b]) for a, b in pairs if max(abs(known[a] - t), abs(known[b] - t)) <= REACH]
        told = [_off(sightings[t], poses[t], _foretold(poses[a], poses[b], times[[a, t, b]])) for a, b in pairs]
        off[t] = min(told, default=np.nan)
    if not np.isfinite(off).any():
        return np.zeros(len(poses), bool)
    return off > max(LEAST * max_error_px, UNUSUAL * float(np.nanquantile(off, 0.25)))


def _foretold(before: Pose, after: Pose, times: np.ndarray) -> np.ndarray:
    """(4, 4) pose at the middle one of three times, of a camera that moves evenly through two poses."""
    a, b = before.world_from_camera, after.world_from_camera
    share = (times[1] - times[0]) / (times[2] - times[0])
    turn = Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).as_rotvec()
    rotation = a[:3, :3] @ Rotation.from_rotvec(share * turn).as_matrix()
    return poses_from(rotation, a[:3, 3] + share * (b[:3, 3] - a[:3, 3]))


def _off(sightings: Sightings, pose: Pose, foretold: np.ndarray) -> float:
    """Median pixels by which a frame's points are farther off in a foretold camera."""
    agree = sightings.where(pose.inliers)
    away = errors_px(agree.plate_xy, agree.points_world, pose.intrinsics, foretold)
    own = errors_px(agree.plate_xy, agree.points_world, pose.intrinsics, pose.world_from_camera)
    return float(np.median(away) - np.median(own))
