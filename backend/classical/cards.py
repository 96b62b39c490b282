"""Cards: moving subjects stood up flat at the depth of the ground they touch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import median_filter

from ..run import Run
from ..wire import CONFIDENCE_CARD

#: Depths of a subject's card are smoothed over this many frames.
SMOOTH_FRAMES = 9
#: Subjects smaller than this share of the picture get no card.
SMALLEST = 0.002


@dataclass
class _Subject:
    """One moving region of one frame; `identity` says which regions of other frames are the same subject."""

    frame: int
    pixels: np.ndarray  # (H, W) bool
    inverse_depth: float
    identity: int = -1


def stand_cards(
    depth: np.ndarray, confidence: np.ndarray, dynamic: np.ndarray, background: np.ndarray, run: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence (T, H, W) with every moving region at its contact depth and CONFIDENCE_CARD.

    `background` (T, H, W) is the static depth, measured or filled, also behind the movers; 0 where unknown. Contact
    is read off below a region's lowest rows, then smoothed over the frames through which regions overlap.
    """
    depth, confidence = np.array(depth), np.array(confidence)
    subjects, previous, known = [], [], 0
    for t in run.steps(len(depth)):
        present = _regions(t, dynamic[t], background[t])
        for subject in present:
            overlaps = [(np.count_nonzero(subject.pixels & p.pixels), p.identity) for p in previous]
            best = max(overlaps, default=(0, -1))
            subject.identity = best[1] if best[0] > 0 else known
            known = max(known, subject.identity + 1)
        subjects += present
        previous = present
    for identity in range(known):
        mine = [s for s in subjects if s.identity == identity]
        for s, inverse in zip(mine, median_filter([m.inverse_depth for m in mine], SMOOTH_FRAMES, mode="nearest")):
            depth[s.frame][s.pixels] = 1 / inverse
            confidence[s.frame][s.pixels] = CONFIDENCE_CARD
    return depth, confidence


def _regions(t: int, mask: np.ndarray, background: np.ndarray) -> list[_Subject]:
    """Connected moving regions of a frame whose contact with the ground can be read."""
    height, width = mask.shape
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    regions = []
    for label in range(1, count):
        _, top, _, tall, area = stats[label]
        if area < SMALLEST * height * width:
            continue
        pixels = labels == label
        foot = pixels.copy()
        foot[: top + int(0.9 * tall)] = False
        ring = cv2.dilate(foot.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        around = background[ring & ~mask]
        around = around[around > 0]
        if len(around) == 0:
            around = background[foot][background[foot] > 0]
        if len(around):
            regions.append(_Subject(t, pixels, float(1 / np.median(around))))
    return regions
