"""The classic matcher: SIFT features, matched both ways where the best is clearly better than the second best.

Lowe 2004; square roots of normalised descriptors, Arandjelovic and Zisserman 2012.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np

from .found import Found, Picture

#: Strongest features of a picture that are used.
MOST = 4000
#: Contrast from which a blob is a feature; half of OpenCV's, for soft plates.
CONTRAST = 0.02
#: How much farther than the best match the second best must be.
RATIO = 0.8
#: Pictures whose features are kept.
KEPT = 200


@dataclass(frozen=True)
class Features:
    """Edge-origin pixels `xy` (N, 2) and `descriptors` (N, 128) float32 of unit length."""

    xy: np.ndarray
    descriptors: np.ndarray


def features_of(rgb: np.ndarray, most: int = MOST) -> Features:
    """The SIFT features of a (H, W, 3) picture, the strongest ones, each place and direction once."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT_create(nfeatures=most, contrastThreshold=CONTRAST).detectAndCompute(grey, None)
    if not points:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    xy = np.array([p.pt for p in points]) + 0.5  # OpenCV counts from a pixel's centre
    roots = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    return Features(xy, roots.astype(np.float32))


class ClassicMatcher:
    """Matches the `most` strongest features; those of the pictures seen last are kept."""

    name, label = "classic", "Classic"

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self.made_from = {"matcher": self.name}
        self._kept: OrderedDict[object, Features] = OrderedDict()

    def features(self, picture: Picture) -> Features:
        """The features of a picture."""
        if picture.key not in self._kept:
            self._kept[picture.key] = features_of(picture.rgb, self.most)
        self._kept.move_to_end(picture.key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[picture.key]

    def match(self, plate: Picture, view: Picture, known: np.ndarray) -> Found:
        """Matches, each feature at most once; the confidence is 1 for a match without a rival and 0 at the limit."""
        one, two = self.features(plate), self.features(view)
        at = np.floor(two.xy).astype(int)
        here = np.flatnonzero(known[at[:, 1].clip(0, known.shape[0] - 1), at[:, 0].clip(0, known.shape[1] - 1)])
        if len(one.xy) < 2 or len(here) < 2:
            return Found(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.float32))
        # All features of the view are rivals, also those without a point.
        likeness = one.descriptors @ two.descriptors.T
        best_2, ratio_2 = _best(likeness)
        best_1, ratio_1 = _best(np.ascontiguousarray(likeness.T))
        ratio = np.maximum(ratio_2, ratio_1[best_2])
        keep = (best_1[best_2] == np.arange(len(best_2))) & (ratio < RATIO) & np.isin(best_2, here)
        confidence = (1 - ratio[keep] / RATIO).astype(np.float32)
        return Found(one.xy[keep], two.xy[best_2[keep]], confidence)


def _best(likeness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every row the best column, and its distance over that of the second best, 0 to 1."""
    best = likeness.argmax(axis=1)
    rows = np.arange(len(likeness))
    first = likeness[rows, best].copy()
    likeness[rows, best] = -1
    second = likeness.max(axis=1)
    likeness[rows, best] = first
    distance, next_distance = (np.sqrt(np.maximum(2 - 2 * value, 1e-12)) for value in (first, second))
    return best, distance / next_distance
