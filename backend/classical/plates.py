"""Masks at plate resolution: the grid's masks brought up along the edges of the picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..run import Run
from .parallel import in_threads

#: Colour variance (of 0..1 grey) below which the guided filter takes the picture for even.
EVEN = 1e-4


def plate_masks(masks: np.ndarray, frames: np.ndarray, plate_size: tuple[int, int], run: Run) -> np.ndarray:
    """(T, plate H, plate W) bool of (T, h, w) masks, sharpened with the frames (T, H, W, 3) of the store.

    A guided filter (He et al. 2013) at the store's size; the result lies in a file of `run.work_dir`.
    """
    width, height = plate_size
    out = np.lib.format.open_memmap(
        Path(run.work_dir) / "plate_masks.npy", mode="w+", dtype=bool, shape=(len(masks), height, width)
    )
    radius = max(2, round(frames.shape[2] / masks.shape[2] * 3))

    def bring_up(t: int) -> None:
        guide = cv2.cvtColor(np.asarray(frames[t]), cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        soft = cv2.resize(masks[t].astype(np.float32), guide.shape[::-1], interpolation=cv2.INTER_LINEAR)
        sharp = guided_filter(guide, soft, radius)
        out[t] = cv2.resize(sharp, (width, height), interpolation=cv2.INTER_LINEAR) > 0.5

    for _ in in_threads(bring_up, len(masks), run):
        pass
    return out


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """(H, W) `values` smoothed, with the edges of `guide` (H, W) in 0..1: He et al. 2013, equations 5, 6 and 8."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (2 * radius + 1, 2 * radius + 1))

    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + EVEN)
    return mean(slope) * guide + mean(mean_values - slope * mean_guide)
