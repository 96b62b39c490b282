"""PNG in NumPy and zlib: grey and colour pictures as files, and the grey levels that captures show depth and
confidence with."""

from __future__ import annotations

import struct
import zlib

import numpy as np

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOUR = 0, 2  # colour types of PNG
SUB = 1  # its filter: every byte less that of the pixel before


def encode_png(pixels: np.ndarray) -> bytes:
    """A PNG of (H, W) uint8 or uint16 grey levels or (H, W, 3) uint8 sRGB."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">"))).view(np.uint8).reshape(height, -1)
    step = rows.shape[1] // width
    lines = np.empty((height, rows.shape[1] + 1), np.uint8)
    lines[:, 0] = SUB
    lines[:, 1:] = rows
    lines[:, 1 + step :] -= rows[:, :-step]
    kind = COLOUR if pixels.ndim == 3 else GREY
    head = struct.pack(">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, kind, 0, 0, 0)
    chunks = (b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 1)), (b"IEND", b"")
    return SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def depth_codes(depth: np.ndarray, scale: float) -> np.ndarray:
    """uint16 levels of a depth map: 0 where nothing is known, 65535 at the far end and beyond it."""
    known = np.isfinite(depth) & (depth > 0)
    codes = np.clip(np.where(known, depth, 0) / scale + 0.5, 1, 65535).astype(np.uint16)
    return np.where(known, codes, np.uint16(0))


def confidence_codes(confidence: np.ndarray, scale: float) -> np.ndarray:
    """uint8 levels of a confidence map."""
    return np.clip(np.asarray(confidence, np.float32) / scale + 0.5, 0, 255).astype(np.uint8)
