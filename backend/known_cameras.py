"""Cameras that the user knows: a path and a lens from plain files, for the frames of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from .geometry.rigid import poses_from
from .wire import ClipInfo, UserError

#: Seconds by which a pose's time may miss its frame's, as a share of the time between frames.
NEAR = 0.5


@dataclass(frozen=True)
class KnownCameras:
    """`world_from_camera` (T, 4, 4), NaN where no pose is known; `plate_intrinsics` (T, 4) fx fy cx cy in edge-origin
    plate pixels; either may be None."""

    world_from_camera: np.ndarray | None = None
    plate_intrinsics: np.ndarray | None = None


def read_known_cameras(clip: ClipInfo, poses: Path | None, intrinsics: Path | None) -> KnownCameras | None:
    """What the files say of the clip's frames; None without files. Raises UserError when they do not fit it."""
    if poses is None and intrinsics is None:
        return None
    return KnownCameras(
        None if poses is None else read_poses(poses, clip),
        None if intrinsics is None else read_intrinsics(intrinsics, len(clip.timestamps)),
    )


def read_poses(path: Path, clip: ClipInfo) -> np.ndarray:
    """(T, 4, 4) world_from_camera of a TUM file: timestamp tx ty tz qx qy qz qw, camera to world.

    Timestamps are seconds of the clip; a row belongs to the nearest frame, if that is near, and of several the nearest
    counts. Frames without a row are NaN. Raises UserError when the file is not that, or no row is near a frame.
    """
    rows = _numbers(path)
    if rows.shape[1] != 8:
        raise UserError(
            f"{path.name} has {rows.shape[1]} numbers in a row instead of 8",
            "give a TUM file: timestamp tx ty tz qx qy qz qw",
        )
    norms = np.linalg.norm(rows[:, 4:], axis=1)
    if not (np.isfinite(rows).all() and (np.abs(norms - 1) < 0.01).all()):
        raise UserError(f"{path.name} holds rotations that are not unit quaternions", "give a TUM file, qw last")
    times = np.array(clip.timestamps)
    step = float(np.median(np.diff(times)))
    distance = np.abs(rows[:, :1] - times).min(axis=1)
    rows = rows[np.argsort(-distance, kind="stable")]  # of several at one frame, the nearest is last
    frame = np.abs(rows[:, :1] - times).argmin(axis=1)
    near = np.abs(rows[:, 0] - times[frame]) < NEAR * step
    if not near.any():
        raise UserError(
            f"No pose of {path.name} is at the time of a frame of the clip",
            f"its timestamps must be seconds from {times[0]:g} to {times[-1]:g}",
        )
    known = np.full((len(times), 4, 4), np.nan)
    known[frame[near]] = poses_from(Rotation.from_quat(rows[near, 4:]).as_matrix(), rows[near, 1:4])
    return known


def read_intrinsics(path: Path, frame_count: int) -> np.ndarray:
    """(T, 4) fx fy cx cy of a text file with one row for all frames, or one for each: 4 numbers, or 9 of a 3x3 matrix.

    Plate pixels, the image from 0 to its width. Raises UserError when the file is not that.
    """
    rows = _numbers(path)
    if rows.shape == (3, 3):
        rows = rows.reshape(1, 9)
    if rows.shape[1] == 9:
        rows = rows[:, [0, 4, 2, 5]]
    if rows.shape[1] != 4 or len(rows) not in (1, frame_count):
        raise UserError(
            f"{path.name} has {len(rows)} rows of {rows.shape[1]} numbers",
            f"give fx fy cx cy in plate pixels, once or for each of the {frame_count} frames",
        )
    if not (np.isfinite(rows).all() and (rows[:, :2] > 0).all()):
        raise UserError(f"{path.name} holds a focal length that is not positive", "give fx fy cx cy in plate pixels")
    return np.broadcast_to(rows, (frame_count, 4)).copy()


def _numbers(path: Path) -> np.ndarray:
    """(N, M) numbers of a text file, whatever separates them; lines that begin with # are comments."""
    try:
        lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
        rows = [[float(x) for x in line.split()] for line in lines if line.strip() and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as numbers ({error})", "give a plain text file") from error
    if not rows or len({len(row) for row in rows}) != 1:
        raise UserError(f"{path.name} does not hold rows of equally many numbers", "give one row for each frame")
    return np.array(rows)
