"""Shots: locked off, turning on the spot, or moving, told apart by homographies between tracked points."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .tracks import Observations

#: Tolerance of a homography, as a fraction of the picture's long side: 1.5 pixels on an 854-pixel plate.
TOLERANCE = 1.5 / 854
#: A shot is locked off when this share of the points stays where it was, through the whole shot.
LOCKED = 0.7
#: A shot may turn on the spot when homographies carry this share of the points. (A plane also has homographies, so
#: the solver of such shots has the last word.)
ROTATION = 0.5
#: Fewest points that say something of a pair of frames.
MIN_POINTS = 30


@dataclass(frozen=True)
class Shot:
    """What the camera did: 'locked', 'rotation' (to be confirmed) or 'moving', and the shares it was read from."""

    kind: str
    still: float
    homography: float


def classify(observations: Observations, frame_count: int, long_side: float) -> Shot | None:
    """What the camera did, by the lower quartile over pairs of frames as far apart as half the points live.

    None when hardly any points could be followed. Shares of points that stay still, or that one homography carries,
    come close to 1 without parallax and stay far below with it; movers lower both a little.
    """
    tolerance = TOLERANCE * long_side
    frames = [np.flatnonzero(observations.frame == t) for t in range(frame_count)]
    of_frame = [dict(zip(observations.track[f], observations.xy[f])) for f in frames]
    still, carried = [], []
    for a in range(0, frame_count - 1, max(1, frame_count // 24)):
        living = list(of_frame[a])
        later = None
        for b in range(a + 1, frame_count):
            living = [n for n in living if n in of_frame[b]]
            if len(living) < max(MIN_POINTS, len(of_frame[a]) / 2):
                break
            later = b, living
        if later is None:
            continue
        b, shared = later
        from_xy, to_xy = (np.array([of_frame[t][n] for n in shared]) for t in (a, b))
        still.append(np.mean(np.linalg.norm(to_xy - from_xy, axis=1) < tolerance))
        _, inliers = cv2.findHomography(from_xy, to_xy, cv2.USAC_MAGSAC, tolerance)
        carried.append(0.0 if inliers is None else np.mean(inliers))
    if not still:
        return None
    stays, turns = float(np.quantile(still, 0.25)), float(np.quantile(carried, 0.25))
    kind = "locked" if stays >= LOCKED else "rotation" if turns >= ROTATION else "moving"
    return Shot(kind, stays, turns)
