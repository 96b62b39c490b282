"""The image sequences that belong into every capture, compressed by OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..wire import Capture, pictures

#: PNG effort: the files are a third larger than at the default, and written several times faster.
PNG_COMPRESSION = 1


def add_images(capture: Capture, folder: Path) -> dict[str, Any]:
    """Write the four PNG sequences of `docs/capture.md` and return their description for capture.json."""
    return pictures.add_pictures(capture, folder, write_png)


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W) grey levels or (H, W, 3) sRGB; raises OSError when the disk does not take them."""
    # Not cv2.imwrite: it answers a full disk with a bare False, and cannot open every path on Windows.
    ordered = np.ascontiguousarray(pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    _, data = cv2.imencode(".png", ordered, [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION])
    path.write_bytes(data.tobytes())
