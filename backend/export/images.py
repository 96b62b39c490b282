"""Image sequences of a capture: the processed frames, the motion mask of the plate, depth and confidence to look at."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..wire import Capture, PlateMap, png
from ..wire import capture as capture_format
from .cloud import measured

#: PNG effort: the files are a third larger than at the default, and written several times faster.
PNG_COMPRESSION = 1


def add_images(capture: Capture, folder: Path) -> dict[str, Any]:
    """Write the four PNG sequences of `docs/capture.md` and return their description for capture.json."""
    depth_scale = quantum(capture.depth, 65535)
    confidence = np.asarray(capture.confidence, np.float32)
    # Confidence within [0, 1] keeps the same grey in every capture; a network's, which has no top, is fitted.
    conf_scale = quantum(confidence, 255) if confidence.max(initial=0) > 1 else 1 / 255

    def write(frame: int) -> None:
        write_png(folder / capture_format.RGB_NAME.format(frame), capture.rgb[frame][..., ::-1])
        write_png(folder / capture_format.MASK_NAME.format(frame), plate_mask(capture, frame).astype(np.uint8) * 255)
        write_png(folder / capture_format.DEPTH_NAME.format(frame), png.depth_codes(capture.depth[frame], depth_scale))
        write_png(
            folder / capture_format.CONF_NAME.format(frame),
            png.confidence_codes(confidence[frame], conf_scale),
        )

    in_parallel(write, capture.frame_count)
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


def quantum(values: np.ndarray, top: int) -> float:
    """The value of one grey level when `top` is the largest level.

    The largest value sets it, unless that is an outlier: never more than twice the 99.5th percentile.
    """
    known = np.asarray(values)[measured(values)]
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


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write grey or BGR pixels; raises OSError when the disk does not take them."""
    # Not cv2.imwrite: it answers a full disk with a bare False, and cannot open every path on Windows.
    _, data = cv2.imencode(".png", np.ascontiguousarray(pixels), [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    path.write_bytes(data.tobytes())


def in_parallel(work: Callable[[int], None], frames: int) -> None:
    """Call `work` with every frame number, on several threads: PNG compression leaves Python's lock free."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(work, range(frames)):
            pass
