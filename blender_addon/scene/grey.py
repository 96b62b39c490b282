"""Grey pictures as arrays: read through Blender, written as PNG."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import bpy
import numpy as np

from ..wire.errors import UserError


def read_grey(path: Path) -> np.ndarray:
    """(H, W) float32 in [0, 1], the first channel of a picture as its file has it. Raises UserError when unreadable."""
    try:
        image = bpy.data.images.load(str(path))
    except RuntimeError as error:
        raise UserError(f"{path} is not there or no picture", "give a PNG for each frame") from error
    try:
        image.colorspace_settings.name = "Non-Color"
        width, height = image.size
        if not len(image.pixels):
            raise UserError(f"{path} cannot be read", "give an 8-bit PNG")
        pixels = np.empty(len(image.pixels), np.float32)
        image.pixels.foreach_get(pixels)
    finally:
        bpy.data.images.remove(image)
    return np.ascontiguousarray(pixels.reshape(height, width, -1)[::-1, :, 0])


def write_grey(path: Path, levels: np.ndarray) -> None:
    """Write (H, W) uint8 as an 8-bit grey PNG."""
    height, width = levels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter, none
    rows[:, 1:] = levels
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.tobytes(), 6)),
        (b"IEND", b""),
    ]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
