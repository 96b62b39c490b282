"""A camera path brought into the world of the cameras that the user gives."""

from __future__ import annotations

import numpy as np

from ..geometry.rigid import Similarity, invert_poses, mean_rotation
from ..geometry.trajectory import align_trajectories, has_pose, interpolate_poses


def in_given_world(world_from_camera: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, float]:
    """The path (T, 4, 4) where `given` (T, 4, 4), NaN where unknown, has it, and the factor that depth must take.

    Given cameras are kept. The others keep their place among those beside them: what these are off after the whole path
    was laid onto the given one is interpolated, and held before the first and after the last.
    """
    kept = has_pose(given)
    both = kept & has_pose(world_from_camera)
    if not both.any():
        return np.where(kept[:, None, None], given, np.nan), 1.0
    move = _onto(world_from_camera[both], given[both])
    moved = move.apply_to_poses(world_from_camera)
    off = np.full_like(moved, np.nan)
    off[both] = invert_poses(moved[both]) @ given[both]
    off, _ = interpolate_poses(off)
    first, last = np.flatnonzero(both)[[0, -1]]
    off[:first], off[last + 1 :] = off[first], off[last]
    return np.where(kept[:, None, None], given, moved @ off), move.scale


def _onto(path: np.ndarray, given: np.ndarray) -> Similarity:
    """The similarity from the world of `path` to that of `given`, both (N, 4, 4); of its own size where one stands."""
    try:
        return align_trajectories(path, given)
    except ValueError:  # one of them stands still
        turn = mean_rotation(given[:, :3, :3] @ np.swapaxes(path[:, :3, :3], 1, 2))
        shift = given[:, :3, 3].mean(axis=0) - turn @ path[:, :3, 3].mean(axis=0)
        return Similarity(1.0, turn, shift)
