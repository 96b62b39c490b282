"""Point tracks: corners followed from frame to frame (KLT), as a matchmove artist's tracker does it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..run import Run

#: A point that misses its start by more than this many pixels when tracked back again is lost.
ROUND_TRIP_PX = 0.3
#: Shortest track worth keeping, in frames.
SHORTEST = 3


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


def track_points(frames: np.ndarray, per_frame: int, run: Run) -> Observations:
    """Tracks through (T, H, W, 3) uint8 frames, about `per_frame` at a time and spread over the picture.

    Corners (Shi and Tomasi 1994) are followed by pyramidal Lucas-Kanade (Bouguet 2000) to the next frame and back;
    where tracks end or the picture opens, new ones begin.
    """
    height, width = frames.shape[1:3]
    spacing = 0.7 * np.sqrt(width * height / per_frame)
    xy, track, begun = np.zeros((0, 2), np.float32), np.zeros(0, int), 0
    seen: list[tuple[np.ndarray, int, np.ndarray]] = []
    previous = None
    for t, frame in enumerate(run.steps(frames)):
        grey = cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2GRAY)
        if len(xy):
            xy, kept = _follow(previous, grey, xy)
            track = track[kept]
        taken = np.full((height, width), 255, np.uint8)
        for x, y in xy.astype(int):
            cv2.circle(taken, (int(x), int(y)), int(spacing), 0, -1)
        corners = cv2.goodFeaturesToTrack(grey, per_frame, 0.002, spacing, mask=taken, blockSize=5)
        if corners is not None:
            xy = np.concatenate([xy, corners.reshape(-1, 2)])
            track = np.concatenate([track, begun + np.arange(len(corners))])
            begun += len(corners)
        # OpenCV counts pixels from the first one's centre.
        seen.append((track, t, xy.astype(np.float64) + 0.5))
        previous = grey
    observations = Observations(
        np.concatenate([s[0] for s in seen]),
        np.concatenate([np.full(len(s[0]), s[1]) for s in seen]),
        np.concatenate([s[2] for s in seen]),
    )
    length = np.bincount(observations.track, minlength=1)
    return observations.where(length[observations.track] >= SHORTEST)


def _follow(previous: np.ndarray, grey: np.ndarray, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where (N, 2) points went, without the lost ones, and which (N,) were kept."""
    options = {
        "winSize": (17, 17),
        "maxLevel": 4,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
    }
    there, found, _ = cv2.calcOpticalFlowPyrLK(previous, grey, xy, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(grey, previous, there, None, **options)
    height, width = grey.shape
    kept = (found.ravel() > 0) & (found_back.ravel() > 0) & (np.linalg.norm(back - xy, axis=1) < ROUND_TRIP_PX)
    kept &= (there > 3).all(axis=1) & (there < (width - 4, height - 4)).all(axis=1)
    return there[kept], kept
