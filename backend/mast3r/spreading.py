"""From the frames that were aligned to all frames of the clip: those between get camera and depth from the nearest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..geometry.trajectory import has_pose
from ..monst3r.between import Solved, fill_between
from ..nets.flow import ClassicalFlow
from ..run import Run
from .report import Placed


@dataclass(frozen=True)
class Aligned:
    """K frames as the alignment has them: `world_from_camera` (K, 4, 4), NaN where a frame could not be placed,
    `focal_px` (K,), `centre` (K, 2) the principal point, `depth` and `confidence` (K, H, W), 0 where nothing is known.
    """

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    centre: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray


def over_all_frames(
    aligned: Aligned, keys: np.ndarray, times: np.ndarray, pictures: np.ndarray, sequence: bool, run: Run
) -> Placed:
    """`aligned` of the frames `keys` (K,) for all of T frames, `pictures` (T, H, W, 3), at `times` (T,) in seconds.

    In a sequence the classic optical flow carries depth to frames that were not aligned. Those of a set stay unknown.
    """
    count = len(times)
    found = has_pose(aligned.world_from_camera)
    solved, wanted = np.zeros(count, bool), np.isin(np.arange(count), keys)
    solved[keys] = found
    # What a frame sees that was not placed is at no scale, and seen from nowhere.
    depth, confidence = (np.where(found[:, None, None], a, 0) for a in (aligned.depth, aligned.confidence))
    aligned = replace(aligned, depth=depth, confidence=confidence)
    centre = np.tile(np.median(aligned.centre[found], axis=0), (count, 1))
    centre[keys] = aligned.centre
    if len(keys) < count and sequence:
        nothing = np.zeros(aligned.depth.shape, np.float16)
        part = Solved(
            aligned.world_from_camera, aligned.focal_px, aligned.depth, aligned.confidence, nothing, ~found, found
        )
        flow = ClassicalFlow(pictures, run)
        filled = fill_between(part, keys, times, flow, run, tuple(centre[0]))
        poses, focal = filled.world_from_camera, filled.focal_px
        return Placed(poses, focal, centre, filled.depth, filled.confidence, solved, filled.interpolated, wanted)
    poses, focal = np.full((count, 4, 4), np.nan), np.full(count, np.nan)
    poses[keys], focal[keys] = aligned.world_from_camera, aligned.focal_px
    depth, confidence = (np.zeros((count, *aligned.depth.shape[1:]), np.float32) for _ in range(2))
    depth[keys], confidence[keys] = aligned.depth, aligned.confidence
    return Placed(poses, focal, centre, depth, confidence, solved, np.zeros(count, bool), wanted)
