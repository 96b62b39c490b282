"""Which pixels make the static cloud: each piece of surface once, from the first frame that saw it well.

A pixel is left out when an earlier point projects onto it, or next to it, at its depth. Pixels that were measured
are only left out for other measured ones; guessed ones for any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..wire.capture import CONFIDENCE_MEASURED, Capture
from .points import measured, unproject

#: Depths that differ by less than this share are one surface.
_SAME_DEPTH = 0.03


def merge_static(capture: Capture, progress: Callable[[float], None] = lambda fraction: None) -> np.ndarray:
    """(T, H, W) bool: the pixels whose points together make the static set."""
    chosen = np.zeros(capture.depth.shape, bool)
    sure: list[np.ndarray] = []
    guessed: list[np.ndarray] = []
    for frame in np.flatnonzero(capture.has_camera):
        progress(frame / capture.frame_count)
        pixels = measured(capture, frame) & ~capture.dynamic[frame]
        certain = np.asarray(capture.confidence[frame]) >= CONFIDENCE_MEASURED * 0.999
        seen = _covered(capture, frame, sure)
        new_sure = pixels & certain & ~seen
        new_guessed = pixels & ~certain & ~seen
        if new_guessed.any():
            new_guessed &= ~_covered(capture, frame, guessed)
        for new, points in ((new_sure, sure), (new_guessed, guessed)):
            if new.any():
                points.append(unproject(capture, frame, new))
        chosen[frame] = new_sure | new_guessed
    return chosen


def _covered(capture: Capture, frame: int, clouds: list[np.ndarray]) -> np.ndarray:
    """(H, W) bool: pixels of a frame that one of the points shows already."""
    width, height = capture.processed_size
    depth = capture.depth[frame]
    camera_from_world = np.linalg.inv(capture.world_from_camera[frame]).astype(np.float32)
    fx, fy, cx, cy = capture.intrinsics[frame].astype(np.float32)
    hit = np.zeros((height + 2, width + 2), bool)
    for points in clouds:
        p = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
        p = p[p[:, 2] > 1e-6]
        x, y, z = p[:, 0] / p[:, 2] * fx + cx, p[:, 1] / p[:, 2] * fy + cy, p[:, 2]
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        column, row, z = x[inside].astype(int), y[inside].astype(int), z[inside]
        same = np.abs(z - depth[row, column]) < _SAME_DEPTH * z
        hit[row[same] + 1, column[same] + 1] = True
    near = hit[1:-1, 1:-1].copy()
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            near |= hit[dy : dy + height, dx : dx + width]
    return near
