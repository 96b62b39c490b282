"""Point tracks: corners followed from frame to frame (KLT), as a matchmove artist's tracker does it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..run import Run

#: A point that misses its start by more than this many pixels when tracked back again is lost.
ROUND_TRIP_PX = 0.3
#: A point that its first appearance places further than this from where it was followed to has drifted onto another.
DRIFT_PX = 1.0
#: A point may go unrecognised for so many frames, on which it is not counted as seen.
MAX_MISSES = 4
#: New points begin on every so many frames, and wherever fewer than this share of the wanted ones is left.
BEGIN_EVERY = 4
BEGIN_BELOW = 0.6
#: A frame that keeps less than this share of the points (a flash, a black frame) is passed over, for so many frames.
FRAME_LOST_BELOW = 0.1
MAX_PASSED_OVER = 3
#: Shortest track worth keeping, in frames.
SHORTEST = 3
#: Side of the patch that is followed, in pixels.
WINDOW = 17


@dataclass(frozen=True)
class Observations:
    """M sightings of points: point `track[m]` was seen in frame `frame[m]` at edge-origin pixel `xy[m]` (M, 2)."""

    track: np.ndarray
    frame: np.ndarray
    xy: np.ndarray

    def __len__(self) -> int:
        return len(self.track)

    def where(self, keep: np.ndarray) -> Observations:
        """Those for which `keep` (M,) is true."""
        return Observations(self.track[keep], self.frame[keep], self.xy[keep])


@dataclass
class _Points:
    """Points being followed: where they are now, and on which frame and where each began."""

    xy: np.ndarray
    track: np.ndarray
    begun_on: np.ndarray
    begun_at: np.ndarray
    misses: np.ndarray  # frames since the first appearance was last recognised

    def where(self, keep: np.ndarray) -> _Points:
        return _Points(self.xy[keep], self.track[keep], self.begun_on[keep], self.begun_at[keep], self.misses[keep])


def track_points(frames: np.ndarray, per_frame: int, run: Run) -> Observations:
    """Tracks through (T, H, W, 3) uint8 frames, about `per_frame` at a time and spread over the picture.

    Corners (Shi and Tomasi 1994) are followed by pyramidal Lucas-Kanade (Bouguet 2000) to the next frame and back,
    and then placed by their appearance on the frame where they began, so that small errors do not add up to drift.
    """
    height, width = frames.shape[1:3]
    spacing = 0.7 * np.sqrt(width * height / per_frame)
    greys: dict[int, np.ndarray] = {}
    points = _Points(
        np.zeros((0, 2), np.float32), np.zeros(0, int), np.zeros(0, int), np.zeros((0, 2), np.float32), np.zeros(0, int)
    )
    begun, latest = 0, 0
    seen: list[tuple[np.ndarray, int, np.ndarray]] = []
    for t, frame in enumerate(run.steps(frames)):
        greys[t] = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2GRAY)
        if len(points.xy):
            followed = _follow(points, greys, latest, t)
            if len(followed.xy) < FRAME_LOST_BELOW * len(points.xy) and t - latest <= MAX_PASSED_OVER:
                del greys[t]
                continue
            points = followed
        latest = t
        if t % BEGIN_EVERY == 0 or len(points.xy) < BEGIN_BELOW * per_frame:
            taken = np.full((height, width), 255, np.uint8)
            for x, y in points.xy.astype(int):
                cv2.circle(taken, (int(x), int(y)), int(spacing), 0, -1)
            corners = cv2.goodFeaturesToTrack(greys[t], per_frame, 0.002, spacing, mask=taken, blockSize=5)
            new = np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
            points = _Points(
                np.concatenate([points.xy, new]),
                np.concatenate([points.track, begun + np.arange(len(new))]),
                np.concatenate([points.begun_on, np.full(len(new), t)]),
                np.concatenate([points.begun_at, new]),
                np.concatenate([points.misses, np.zeros(len(new), int)]),
            )
            begun += len(new)
        # OpenCV counts pixels from the first one's centre.
        sure = points.misses == 0
        seen.append((points.track[sure], t, points.xy[sure].astype(np.float64) + 0.5))
        greys = {k: grey for k, grey in greys.items() if k == t or k in points.begun_on}
    observations = Observations(
        np.concatenate([s[0] for s in seen]),
        np.concatenate([np.full(len(s[0]), s[1]) for s in seen]),
        np.concatenate([s[2] for s in seen]),
    )
    length = np.bincount(observations.track, minlength=1)
    return observations.where(length[observations.track] >= SHORTEST)


def _follow(points: _Points, greys: dict[int, np.ndarray], latest: int, t: int) -> _Points:
    """The points of frame `latest` on frame t, without those that were lost."""
    height, width = greys[t].shape
    xy, kept = _match(greys[latest], greys[t], points.xy, None)
    kept &= (xy > 3).all(axis=1) & (xy < (width - 4, height - 4)).all(axis=1)
    misses = points.misses + 1
    for first in np.unique(points.begun_on[kept]):
        mine = np.flatnonzero(kept & (points.begun_on == first))
        placed, same = _match(greys[first], greys[t], points.begun_at[mine], xy[mine])
        kept[mine[np.linalg.norm(placed - xy[mine], axis=1) > DRIFT_PX]] = False
        xy[mine[same]] = placed[same]
        misses[mine[same]] = 0
    return replace(points, xy=xy, misses=misses).where(kept & (misses <= MAX_MISSES))


def _match(a: np.ndarray, b: np.ndarray, xy_a: np.ndarray, guess: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Where points (N, 2) of picture a are in b, and whether the way back led home; with a guess, only near it."""
    options = {
        "winSize": (WINDOW, WINDOW),
        "maxLevel": 4 if guess is None else 0,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        "flags": 0 if guess is None else cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, xy_a, None if guess is None else guess.copy(), **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(b, a, there, None if guess is None else xy_a.copy(), **options)
    home = np.linalg.norm(back - xy_a, axis=1) < ROUND_TRIP_PX
    return there, (found.ravel() > 0) & (found_back.ravel() > 0) & home
