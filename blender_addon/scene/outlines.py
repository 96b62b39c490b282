"""Outlines of a mask as polygons along the edges of its pixels, and the same with fewer corners. NumPy only."""

from __future__ import annotations

import numpy as np


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Closed polygons, each (N, 2) edge-origin pixels with y down, around every piece and every hole of (H, W) bool.

    They run along the edges of pixels, pieces clockwise as seen and holes the other way, without their inner points of
    straight runs. Pixels that touch at a corner only are pieces of their own.
    """
    padded = np.pad(np.asarray(mask, bool), 1)
    inside = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Where a side of a pixel is open: from which corner of the pixel to which the outline goes there.
    for open_side, begin, end in (
        (inside & ~padded[:-2, 1:-1], (0, 0), (1, 0)),
        (inside & ~padded[1:-1, 2:], (1, 0), (1, 1)),
        (inside & ~padded[2:, 1:-1], (1, 1), (0, 1)),
        (inside & ~padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(open_side).tolist():
            following.setdefault((x + begin[0], y + begin[1]), []).append((x + end[0], y + end[1]))
    polygons = []
    while following:
        start = next(iter(following))
        polygon, here, way = [], start, (0, 0)
        while True:
            ahead = following[here]
            right = (here[0] - way[1], here[1] + way[0])  # of two ways on, the one that stays with its pixel
            there = right if right in ahead else ahead[0]
            ahead.remove(there)
            if not ahead:
                del following[here]
            step = (there[0] - here[0], there[1] - here[1])
            if step != way:
                polygon.append(here)
            here, way = there, step
            if here == start:
                break
        first = (polygon[1][0] - polygon[0][0], polygon[1][1] - polygon[0][1])
        if first[0] * way[1] == first[1] * way[0]:  # the start lies within a straight run
            polygon.pop(0)
        polygons.append(np.array(polygon, float))
    return polygons


def area(polygon: np.ndarray) -> float:
    """Area of an (N, 2) polygon in square pixels; negative for holes."""
    x, y = polygon.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def simplified(polygon: np.ndarray, tolerance_px: float) -> np.ndarray:
    """The (N, 2) closed polygon with the fewest corners found whose sides stay within `tolerance_px` of what they skip.

    Douglas and Peucker's method on the two halves between a corner and the one farthest from it.
    """
    if tolerance_px <= 0 or len(polygon) < 4:
        return polygon
    far = int(np.argmax(np.hypot(*(polygon - polygon[0]).T)))
    ring = np.concatenate([polygon, polygon[:1]])
    keep = np.zeros(len(ring), bool)
    keep[[0, far, -1]] = True
    spans = [(0, far), (far, len(ring) - 1)]
    while spans:
        a, b = spans.pop()
        if b - a < 2:
            continue
        side, skipped = ring[b] - ring[a], ring[a + 1 : b] - ring[a]
        length = np.hypot(*side)
        along = np.clip(skipped @ side / max(length, 1e-12) ** 2, 0, 1)
        away = np.hypot(*(skipped - along[:, None] * side).T)
        worst = int(np.argmax(away))
        if away[worst] > tolerance_px:
            middle = a + 1 + worst
            keep[middle] = True
            spans += [(a, middle), (middle, b)]
    kept = ring[keep][:-1]
    return kept if len(kept) > 2 else polygon
