"""Camera paths: their length, how two of them agree, and poses for the frames between known ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from .rigid import (
    Similarity,
    invert_poses,
    is_straight,
    mean_rotation,
    poses_from,
    rotation_angles_deg,
    similarity_between,
)


@dataclass(frozen=True)
class TrajectoryError:
    """How far an estimated camera path is from the true one after the best alignment.

    Lengths are in the truth's unit. `ate_rmse` is the root mean square distance of the camera centres (Sturm et al.
    2012), `ate_relative` the same as a fraction of `path_length`, the true path's length over the frames compared.
    `rotation_deg_rmse` compares orientations after the one rotation that brings them nearest to each other, since
    the centres of a nearly straight path leave the turn about it open; the two step errors compare the motion from
    each frame to the next one compared. `missing` frames had no estimate (or no truth) and are in none of the
    figures; `alignment` brings the estimate to the truth.
    """

    ate_rmse: float
    path_length: float
    ate_relative: float
    rotation_deg_rmse: float
    step_translation_rmse: float
    step_rotation_deg_rmse: float
    compared: int
    missing: int
    alignment: Similarity


def has_pose(world_from_camera: np.ndarray) -> np.ndarray:
    """(T,) bool: which of (T, 4, 4) poses are known, that is, free of NaN."""
    return np.isfinite(world_from_camera).all(axis=(-2, -1))


def path_length(world_from_camera: np.ndarray) -> float:
    """Length of the line through the centres of (T, 4, 4) poses in order, passing over unknown (NaN) ones."""
    centres = world_from_camera[has_pose(world_from_camera)][:, :3, 3]
    return float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum())


def on_the_spot(world_from_camera: np.ndarray, depth: np.ndarray, limit: float) -> bool:
    """Whether cameras (T, 4, 4) all stand near one place, within `limit` times the median of (T, H, W) known depth."""
    centres = world_from_camera[has_pose(world_from_camera)][:, :3, 3]
    known = depth[:, ::8, ::8][depth[:, ::8, ::8] > 0]
    if not (len(known) and len(centres)):
        return False
    return bool(np.linalg.norm(centres - centres.mean(axis=0), axis=1).max() < limit * np.median(known))


def align_trajectories(estimate: np.ndarray, truth: np.ndarray, with_scale: bool = True) -> Similarity:
    """The similarity from the world of `estimate` (T, 4, 4) to that of `truth`, over frames known in both.

    It is the least-squares fit of the camera centres; on a straight path, which leaves the rotation about itself
    free, the rotation comes from the orientations. Raises ValueError when a camera path has no extent to align by.
    """
    both = has_pose(estimate) & has_pose(truth)
    source, target = estimate[both][:, :3, 3], truth[both][:, :3, 3]
    if both.sum() < 2:
        raise ValueError("fewer than two frames are known in both camera paths")
    if not (is_straight(source) or is_straight(target)):
        return similarity_between(source, target, with_scale)
    a, b = source - source.mean(0), target - target.mean(0)
    extent = np.sqrt((a**2).sum())
    if with_scale and extent <= 1e-9 * max(np.abs(source).max(), 1e-300):
        raise ValueError("the estimated camera stands still, so its scale is not determined")
    rotation = mean_rotation(truth[both][:, :3, :3] @ np.swapaxes(estimate[both][:, :3, :3], 1, 2))
    scale = float((b * (a @ rotation.T)).sum() / extent**2) if with_scale else 1.0
    if scale <= 0:
        raise ValueError("the camera paths run in opposite directions for the cameras' orientations")
    return Similarity(scale, rotation, target.mean(0) - scale * rotation @ source.mean(0))


def absolute_trajectory_error(estimate: np.ndarray, truth: np.ndarray, with_scale: bool = True) -> TrajectoryError:
    """Compare (T, 4, 4) world_from_camera poses with the truth; frames that are NaN in either are counted, not used.

    `ate_relative` is NaN when the true camera stands still. Raises ValueError as `align_trajectories` does.
    """
    estimate, truth = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if estimate.shape != truth.shape:
        raise ValueError(f"the paths have {len(estimate)} and {len(truth)} frames")
    alignment = align_trajectories(estimate, truth, with_scale)
    both = has_pose(estimate) & has_pose(truth)
    a, b = alignment.apply_to_poses(estimate[both]), truth[both]
    distance = np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)
    length = path_length(b)
    step_error = invert_poses(_steps(b)) @ _steps(a)
    to_truth = mean_rotation(b[:, :3, :3] @ np.swapaxes(a[:, :3, :3], 1, 2))
    turned = to_truth @ a[:, :3, :3]
    return TrajectoryError(
        ate_rmse=_rms(distance),
        path_length=length,
        ate_relative=_rms(distance) / length if length > 0 else float("nan"),
        rotation_deg_rmse=_rms(rotation_angles_deg(np.swapaxes(b[:, :3, :3], 1, 2) @ turned)),
        step_translation_rmse=_rms(np.linalg.norm(step_error[:, :3, 3], axis=1)),
        step_rotation_deg_rmse=_rms(rotation_angles_deg(step_error[:, :3, :3])),
        compared=int(both.sum()),
        missing=int((~both).sum()),
        alignment=alignment,
    )


def interpolate_poses(world_from_camera: np.ndarray, times: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Fill unknown (NaN) poses that have a known one before and after, and say which: (T, 4, 4), (T,) bool.

    Centres go linearly and rotations by slerp over `times` (T,), by default the frame numbers. Poses before the
    first known frame and after the last stay NaN: nothing is extrapolated.
    """
    poses = np.array(world_from_camera, np.float64)
    known = has_pose(poses)
    times = np.arange(len(poses), dtype=np.float64) if times is None else np.asarray(times, np.float64)
    filled = np.zeros(len(poses), bool)
    if known.sum() < 2:
        return poses, filled
    first, last = np.flatnonzero(known)[[0, -1]]
    filled[first:last] = ~known[first:last]
    if filled.any():
        at = times[filled]
        rotations = Slerp(times[known], Rotation.from_matrix(poses[known, :3, :3]))(at).as_matrix()
        centres = np.stack([np.interp(at, times[known], poses[known, k, 3]) for k in range(3)], axis=1)
        poses[filled] = poses_from(rotations, centres)
    return poses, filled


def _steps(poses: np.ndarray) -> np.ndarray:
    """(T - 1, 4, 4) motion of each camera to the next, in its own frame."""
    return invert_poses(poses[:-1]) @ poses[1:]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else float("nan")
