"""Image sequences of a capture: the processed frames, the motion mask of the plate, depth and confidence to look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .capture import CONF_NAME, DEPTH_NAME, MASK_NAME, RGB_NAME, Capture, PlateMap
from .png import confidence_codes, depth_codes, encode_png

#: Writes (H, W) grey levels or (H, W, 3) uint8 sRGB to a file.
WritePng = Callable[[Path, np.ndarray], None]


def add_pictures(
    capture: Capture, folder: Path, write_png: WritePng, check: Callable[[float], None] = lambda fraction: None
) -> dict[str, Any]:
    """Write the four PNG sequences of `docs/capture.md` and return their description for capture.json.

    `check` is called with how much is done, and may raise to give up.
    """
    depth_scale = quantum(capture.depth, 65535)
    confidence = np.asarray(capture.confidence, np.float32)
    # Confidence within [0, 1] keeps the same grey in every capture; a network's, which has no top, is fitted.
    conf_scale = quantum(confidence, 255) if confidence.max(initial=0) > 1 else 1 / 255

    def write(frame: int) -> None:
        write_png(folder / RGB_NAME.format(frame), np.asarray(capture.rgb[frame]))
        write_png(folder / MASK_NAME.format(frame), plate_mask(capture, frame).astype(np.uint8) * 255)
        write_png(folder / DEPTH_NAME.format(frame), depth_codes(capture.depth[frame], depth_scale))
        write_png(folder / CONF_NAME.format(frame), confidence_codes(confidence[frame], conf_scale))

    # Several threads: PNG compression leaves Python's lock free.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, _ in enumerate(pool.map(write, range(capture.frame_count)), 1):
            check(done / capture.frame_count)
    grid, plate = list(capture.processed_size), list(capture.clip.plate_size)
    return {
        "images": {
            "rgb": {"pattern": "rgb_%04d.png", "size": grid, "bits": 8},
            "dynamic_mask": {
                "pattern": "dynamic_mask_%04d.png",
                "size": plate,
                "bits": 8,
                "moving": 255,
                "made_at": "plate" if capture.plate_masks is not None else "processed",
            },
            # value * scale + offset is the z-depth; `inverse` would mean its reciprocal.
            "depth": {
                "pattern": "depth_%04d.png",
                "size": grid,
                "bits": 16,
                "scale": depth_scale,
                "offset": 0.0,
                "inverse": False,
                "none": 0,
            },
            "conf": {"pattern": "conf_%04d.png", "size": grid, "bits": 8, "scale": conf_scale, "offset": 0.0},
        }
    }


def write_plain_png(path: Path, pixels: np.ndarray) -> None:
    """A `WritePng` that needs no library."""
    path.write_bytes(encode_png(pixels))


def quantum(values: np.ndarray, top: int) -> float:
    """The value of one grey level when `top` is the largest level.

    The largest value sets it, unless that is an outlier: never more than twice the 99.5th percentile.
    """
    values = np.asarray(values)
    known = values[np.isfinite(values) & (values > 0)]
    if not known.size:
        return 1.0 / top
    return float(min(known.max(), 2 * np.percentile(known, 99.5))) / top


def plate_mask(capture: Capture, frame: int) -> np.ndarray:
    """(plate H, plate W) bool motion mask of one frame: the engine's own, else the processed one on the plate."""
    if capture.plate_masks is not None:
        return np.asarray(capture.plate_masks[frame], bool)
    return to_plate(np.asarray(capture.dynamic[frame]), capture.plate_map, capture.clip.plate_size)


def to_plate(mask: np.ndarray, plate_map: PlateMap, plate_size: tuple[int, int]) -> np.ndarray:
    """A mask on the processed grid as each plate pixel's centre sees it; False where the crop left the plate out."""
    plate_width, plate_height = plate_size
    height, width = mask.shape
    x = np.floor((np.arange(plate_width) + 0.5) * plate_map.sx - plate_map.ox).astype(int)
    y = np.floor((np.arange(plate_height) + 0.5) * plate_map.sy - plate_map.oy).astype(int)
    known = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))
    return mask.take(np.clip(x, 0, width - 1), axis=1).take(np.clip(y, 0, height - 1), axis=0) & known
