"""The lens of a stream, which the network does not say: a focal length of each frame's points, and one of a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..align.original_views import weiszfeld_focal

#: A frame's focal length further than this many standard deviations from the others' is left out.
FAR = 3.0
#: A lens changes when its course over the clip explains more than this change, and this many times its own error.
CHANGE, SURE = 0.05, 6.0


def centre_of(width: int, height: int) -> tuple[int, int]:
    """The principal point that the network takes for granted, in pixels from the first one's centre."""
    return width // 2, height // 2


def frame_focal(points_camera: np.ndarray, keep: np.ndarray | None = None) -> float:
    """Focal length in pixels of (H, W, 3) points in their camera; Point3R's facts sheet, section 6.

    Points outside `keep` (H, W) bool say nothing. NaN where nothing is left.
    """
    height, width = points_camera.shape[:2]
    points = torch.from_numpy(np.array(points_camera))
    if keep is not None:
        points[~torch.from_numpy(keep)] = torch.nan
    focal = float(weiszfeld_focal(points[None], centre_of(width, height))[0])
    return focal if np.isfinite(focal) and focal > 0 else float("nan")


@dataclass(frozen=True)
class SharedFocal:
    """`focal_px` of a clip, the standard deviation `spread` of the log focal lengths of its frames about it, how many
    frames were `used`, and whether the lens `changes` along the clip, so that no one focal length is that of all."""

    focal_px: float
    spread: float
    used: int
    changes: bool


def shared_focal(focal_px: np.ndarray) -> SharedFocal:
    """The one of (T,) focal lengths of frames, in order; NaN and what is far from the others is left out.

    Raises ValueError when no frame has one.
    """
    logs = np.log(np.asarray(focal_px, np.float64)[np.isfinite(focal_px)])
    if not len(logs):
        raise ValueError("no frame has a focal length")
    spread = 1.4826 * np.median(np.abs(logs - np.median(logs)))
    at = np.flatnonzero(np.abs(logs - np.median(logs)) <= max(FAR * spread, 1e-9))
    near = logs[at]
    return SharedFocal(float(np.exp(near.mean())), float(np.std(near)), len(near), _changes(at, near))


def _changes(at: np.ndarray, logs: np.ndarray) -> bool:
    """Whether a cubic through log focal lengths of frames (K,) goes further than chance would have it go."""
    if len(logs) < 12:
        return False
    course = np.polynomial.Chebyshev.fit(at, logs, 3)(at)
    error = 1.4826 * np.median(np.abs(logs - course)) * np.sqrt(4 / len(logs))
    return bool(np.ptp(course) > max(np.log1p(CHANGE), SURE * error))
