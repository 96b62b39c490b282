"""Synthetic footage with truth: every picture says which frame it is, and clips are encoded from them with PyAV."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 160, 96
BITS = 8
CELL = WIDTH // BITS


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) uint8: below, the index in binary as eight black and white cells; above, a red block in the left
    corner and a green one in the right corner on grey, so that turning and mirroring show."""
    rgb = np.full((height, width, 3), 96, np.uint8)
    quarter, cell = height // 4, width // BITS
    rgb[:quarter, : width // 4] = (200, 40, 40)
    rgb[:quarter, -width // 4 :] = (40, 200, 40)
    for bit in range(BITS):
        rgb[height // 2 :, bit * cell : (bit + 1) * cell] = 235 if index >> bit & 1 else 20
    return rgb


def index_of(rgb: np.ndarray) -> int:
    """Which frame a (H, W, 3) picture is, by its cells."""
    height, width = rgb.shape[:2]
    cell = width // BITS
    strip = rgb[height * 5 // 8 : height * 7 // 8].mean((0, 2))
    return sum(
        1 << bit for bit in range(BITS) if strip[bit * cell + cell // 4 : (bit + 1) * cell - cell // 4].mean() > 128
    )


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: Fraction | int = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: list[int] | None = None,
    time_base: Fraction | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    array_format: str = "rgb24",
    colour: dict[str, int] | None = None,
) -> Path:
    """A video of the frames; `pts` in units of `time_base` where they are not evenly spaced at `fps`.

    `colour` sets attributes of the encoder, such as color_trc.
    """
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.pix_fmt = pix_fmt
        if time_base:
            stream.codec_context.time_base = time_base
        for name, value in (colour or {}).items():
            setattr(stream.codec_context, name, value)
        for i, array in enumerate(frames):
            if i == 0:
                stream.width, stream.height = array.shape[1], array.shape[0]
            frame = av.VideoFrame.from_ndarray(array, format=array_format)
            frame.pts = pts[i] if pts else i
            frame.time_base = time_base or 1 / Fraction(fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def pictures(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[np.ndarray]:
    """Frames 0 to count - 1."""
    return [picture(i, width, height) for i in range(count)]
