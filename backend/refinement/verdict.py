"""The verdict: whether refined cameras are better than the engine's, by what they were not fitted to.

Two tests, by the halves of the tracks, each solved by itself from the same start. One half's cameras must explain the
other half's sightings better than the engine's cameras do. And the halves must agree with each other better than the
result agrees with the engine, or else refinement is the less certain of the two (see `certain`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np

from ..geometry.rigid import rotation_angles_deg
from ..geometry.trajectory import absolute_trajectory_error
from .cameras import Cameras
from .gauge import groups, robust_mean
from .points import measure, typical_error
from .sightings import Static
from .solve import Solved

log = logging.getLogger(__name__)

FEW = "too few points could be followed"
NO_BETTER = "it explains held-out points no better"
#: Errors count up to so many pixels, and so many times the engine's typical error, so that no mover decides.
CAP_PX, CAP_TIMES = 4.0, 3.0
#: Held-out errors must fall to this share of the engine's.
LOWER = 0.95
#: Largest turn of the cameras for the errors that the engine's left: how often their angle at the typical error.
#: More is another explanation of the picture, as a mover makes one, not a refinement of the engine's.
TURN_TIMES = 6.0


@dataclass(frozen=True)
class Verdict:
    """`better` (T,) are frames on which the refined camera holds; held-out errors in plate pixels before and after.

    `focal_spread` is by how much the halves' focal lengths differ, `focal_change` the result's from the engine's (both
    as fractions, over all frames). `reason` says why nothing is better, and is empty when something is.
    """

    better: np.ndarray
    before_px: float
    after_px: float
    focal_spread: float
    focal_change: float
    reason: str


def judge(
    halves: tuple[Static, Static], solved: tuple[Solved, Solved], whole: Solved, engine: Cameras, still: bool
) -> Verdict:
    """Compare the engine's cameras with those of the `whole`, by the `halves` of the sightings as they were `solved`.

    `still` says that the solved camera only turns, so that there is no path to compare.
    """
    frame_count = len(engine.focal_px)
    firm = whole.refined & solved[0].refined & solved[1].refined
    tested = [half.where(firm[half.seen.frame]) for half in halves]
    if min(len(half.seen) for half in tested) == 0:
        return Verdict(np.zeros(frame_count, bool), math.nan, math.nan, 0.0, 0.0, FEW)
    before = np.concatenate([measure(half, engine)[1] for half in tested])
    after = np.concatenate([measure(half, other.cameras)[1] for half, other in zip(tested, solved[::-1])])
    frame = np.concatenate([half.seen.frame for half in tested])
    typical = typical_error(before)
    cap = max(CAP_PX, CAP_TIMES * typical)
    before, after = np.minimum(before, cap), np.minimum(after, cap)
    improved = mean_by_frame(after, frame, frame_count) < mean_by_frame(before, frame, frame_count)
    group = np.where(firm, groups(whole.static, frame_count), -1)
    better, reason = np.zeros(frame_count, bool), FEW
    for g in np.unique(group[group >= 0]):
        frames = group == g
        away, turned = apart(whole.cameras, engine, frames, still)
        spread, spread_turn = apart(solved[0].cameras, solved[1].cameras, frames, still)
        limit = TURN_TIMES * math.degrees(typical / np.median(engine.focal_px[frames]))
        log.info(
            "Held out %.3f -> %.3f px; path %.5f of %.5f, turn %.4f of %.4f, at most %.3f degrees",
            before[frames[frame]].mean(),
            after[frames[frame]].mean(),
            spread,
            away,
            spread_turn,
            turned,
            limit,
        )
        if after[frames[frame]].mean() > LOWER * before[frames[frame]].mean():
            reason = NO_BETTER
        elif not certain(spread, away, spread_turn, turned):
            reason = "two halves of the tracked points do not agree on the camera"
        elif turned > limit:
            reason = "the tracked points tell of quite another camera, as something large that moves would"
        else:
            better |= frames & improved
    return Verdict(
        better=better,
        before_px=float(before.mean()),
        after_px=float(after.mean()),
        focal_spread=focal_difference(solved[0].cameras, solved[1].cameras, firm),
        focal_change=focal_difference(whole.cameras, engine, firm),
        reason="" if better.any() else reason,
    )


def certain(spread: float, away: float, spread_turn: float, turned: float) -> bool:
    """Whether differences between the halves, of path and turn, leave the whole better than the engine's.

    With errors s of the whole and e of the engine, the halves differ by 2 s and the whole from the engine by
    sqrt(s^2 + e^2): s < e means that the first is below sqrt(2) of the second. Path and turn must each be, and their
    squares on average at half of that.
    """
    if not (math.isfinite(spread) and math.isfinite(away)):
        return False
    path, turn = (math.inf if b == 0 < a else (a / b if b else 0.0) for a, b in ((spread, away), (spread_turn, turned)))
    return max(path, turn) < math.sqrt(2) and path**2 + turn**2 < 2


def apart(a: Cameras, b: Cameras, frames: np.ndarray, still: bool) -> tuple[float, float]:
    """RMS distance of two camera paths, and RMS turn in degrees, over `frames` (T,) and after alignment.

    The distance is 0 for cameras that stand still, infinite for paths that cannot be aligned.
    """
    if still:
        turns = np.swapaxes(b.world_from_camera[frames, :3, :3], 1, 2) @ (
            robust_mean(b.world_from_camera[frames, :3, :3] @ np.swapaxes(a.world_from_camera[frames, :3, :3], 1, 2))
            @ a.world_from_camera[frames, :3, :3]
        )
        return 0.0, float(np.sqrt(np.mean(rotation_angles_deg(turns) ** 2)))
    try:
        error = absolute_trajectory_error(a.world_from_camera[frames], b.world_from_camera[frames])
    except ValueError:
        return math.inf, math.inf
    return error.ate_rmse, error.rotation_deg_rmse


def focal_difference(a: Cameras, b: Cameras, frames: np.ndarray) -> float:
    """RMS over frames of the logarithm of focal lengths' ratio; 0 without frames."""
    if not frames.any():
        return 0.0
    return float(np.sqrt(np.mean(np.log(a.focal_px[frames] / b.focal_px[frames]) ** 2)))


def mean_by_frame(values: np.ndarray, frame: np.ndarray, frame_count: int) -> np.ndarray:
    """(T,) means of (M,) values by frame, NaN where there are none."""
    count = np.bincount(frame, minlength=frame_count)
    total = np.bincount(frame, values, minlength=frame_count)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
