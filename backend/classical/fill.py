"""Filling: depth for pixels that were not measured, carried from measured ones up to the picture's edges."""

from __future__ import annotations

import numpy as np

from ..run import Run
from ..wire import CONFIDENCE_FILLED
from .smoothing import edge_aware_mean

#: Frames filled together.
BATCH = 8
#: Least weight that must reach a pixel before it is filled.
ENOUGH = 1e-4


def fill(
    depth: np.ndarray, confidence: np.ndarray, dynamic: np.ndarray, frames: np.ndarray, run: Run
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence (T, H, W) with what was not measured filled in at CONFIDENCE_FILLED; measured stays.

    Inverse depth is carried, as it is what a plane has linear in the picture. Moving pixels give nothing and are
    filled with the depth of what they hide. Where nothing was measured near enough, depth stays 0.
    """
    filled, marks = np.array(depth), np.array(confidence)
    width = depth.shape[2]
    for start in run.steps(range(0, len(depth), BATCH)):
        batch = slice(start, start + BATCH)
        measured = (depth[batch] > 0) & ~dynamic[batch]
        inverse = np.where(measured, 1 / np.maximum(depth[batch], 1e-9), 0).astype(np.float32)
        mean, reached = edge_aware_mean(inverse, measured * confidence[batch], frames[batch], reach=width / 6, edge=8)
        holes = ~measured & (reached > ENOUGH) & (mean > 0)
        filled[batch] = np.where(holes, 1 / np.maximum(mean, 1e-9), np.where(measured, depth[batch], 0))
        marks[batch] = np.where(holes, CONFIDENCE_FILLED, np.where(measured, confidence[batch], 0))
    return filled, marks
