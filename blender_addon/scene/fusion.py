"""Which pixels make the static cloud: each piece of surface once, from the first frame that saw it well.

A pixel is left out when an earlier point projects onto it at its depth, or such points onto most of its neighbours.
Pixels that were measured are only left out for other measured ones; guessed ones for any.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..wire.capture import CONFIDENCE_MEASURED, Capture
from .points import measured, unproject

#: Depths that differ by less than this share are one surface.
_SAME_DEPTH = 0.03
#: About as many points are looked at together.
_PIECE = 50_000


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
                _add(points, unproject(capture, frame, new).T)
        chosen[frame] = new_sure | new_guessed
    return chosen


def _add(clouds: list[np.ndarray], points: np.ndarray) -> None:
    """Keep (3, N) more points, in pieces that fit a processor's cache: neither many small ones nor one large one."""
    if clouds and clouds[-1].shape[1] < _PIECE:
        clouds[-1] = np.concatenate([clouds[-1], points], axis=1)
    else:
        clouds.append(np.ascontiguousarray(points))


def _covered(capture: Capture, frame: int, clouds: list[np.ndarray]) -> np.ndarray:
    """(H, W) bool: pixels of a frame that one of the (3, N) points shows already."""
    width, height = capture.processed_size
    depth = np.asarray(capture.depth[frame])
    fx, fy, cx, cy = capture.intrinsics[frame]
    camera_from_world = np.linalg.inv(capture.world_from_camera[frame])[:3]
    pixel_from_world = (np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]) @ camera_from_world).astype(np.float32)
    hit = np.zeros(height * width, bool)
    for points in clouds:
        x, y, z = (a * points[0] + b * points[1] + c * points[2] + d for a, b, c, d in pixel_from_world)
        inside = (z > 1e-6) & (x >= 0) & (x < width * z) & (y >= 0) & (y < height * z)
        inside = np.flatnonzero(inside)
        x, y, z = (values.take(inside) for values in (x, y, z))  # many times faster than x[mask]
        column = np.minimum((x / z).astype(np.int32), width - 1)
        row = np.minimum((y / z).astype(np.int32), height - 1)
        pixel = row * width + column
        same = np.abs(z - depth.take(pixel)) < _SAME_DEPTH * z
        hit[pixel.take(np.flatnonzero(same))] = True
    hit = np.pad(hit.reshape(height, width), 1)
    # Points seen from elsewhere leave gaps between them: most neighbours shown means shown. At the edge of what is
    # known only three of eight are, so that new surface joins the old without a seam.
    count = hit.astype(np.uint8)
    count = count[:, :-2] + count[:, 1:-1] + count[:, 2:]
    return hit[1:-1, 1:-1] | (count[:-2] + count[1:-1] + count[2:] > 4)
