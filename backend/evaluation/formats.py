"""True depth and cameras in the files of benchmarks: 16-bit images, Sintel's own, matrices as text, lists of times.

Depth is z-depth in metres, 0 where unknown; poses are world_from_camera with OpenCV axes, NaN where unknown. All raise
UserError for a file that is missing or not what it should be.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ..wire import UserError
from .files import known_depth, read_image

AGAIN = "get the benchmark again, or leave the sequence out"
#: What the files of Sintel's depth and cameras begin with.
_SINTEL_TAG = np.float32(202021.25)


def present(path: Path) -> Path:
    """The path of a file that must be there."""
    if not path.is_file():
        raise UserError(f"There is no file {path}", AGAIN)
    return path


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, whose pixels are not read."""
    try:
        with Image.open(present(path)) as image:
            return image.size
    except OSError as error:
        raise UserError(f"{path} cannot be read as an image ({error})", AGAIN) from error


def png_depth(path: Path, per_metre: float, far: float = np.inf) -> np.ndarray:
    """(h, w) of a 16-bit image; 65535 and what is further than `far` metres is not known."""
    values = read_image(present(path)).astype(np.float32)
    depth = values / per_metre
    return np.where((values < 65535) & (depth <= far), depth, 0)


def sintel_depth(path: Path) -> np.ndarray:
    """(h, w) of a .dpt file: a tag, width and height as int32, then float32 rows."""
    data = present(path).read_bytes()
    width, height = map(int, np.frombuffer(data, "<i4", 2, 4)) if len(data) >= 12 else (0, 0)
    if width < 1 or height < 1 or len(data) != 12 + 4 * width * height or not _tagged(data):
        raise UserError(f"{path} is no depth file of Sintel", AGAIN)
    return known_depth(np.frombuffer(data, "<f4", offset=12).reshape(height, width))


def sintel_pose(path: Path) -> np.ndarray:
    """(4, 4) of a .cam file: a tag, a lens as 3 x 3 and camera_from_world as 3 x 4, float64."""
    data = present(path).read_bytes()
    if len(data) != 4 + 8 * 21 or not _tagged(data):
        raise UserError(f"{path} is no camera file of Sintel", AGAIN)
    camera_from_world = np.eye(4)
    camera_from_world[:3] = np.frombuffer(data, "<f8", 12, 4 + 8 * 9).reshape(3, 4)
    return np.linalg.inv(camera_from_world)


def numbers(path: Path) -> np.ndarray:
    """A table of numbers as text."""
    try:
        return np.loadtxt(present(path), dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of numbers ({error})", AGAIN) from error


def pose_matrix(path: Path) -> np.ndarray:
    """(4, 4) of a text file."""
    values = numbers(path)
    if values.shape != (4, 4):
        raise UserError(f"{path} is no pose of 4 x 4 numbers", AGAIN)
    return known_pose(values)


def known_pose(pose: np.ndarray) -> np.ndarray:
    """The pose, NaN where it is not finite, as benchmarks write a lost camera."""
    return pose if np.isfinite(pose).all() else np.full((4, 4), np.nan)


def timed_files(path: Path) -> tuple[np.ndarray, list[Path]]:
    """(N,) seconds and the files of a list of the TUM layout, such as rgb.txt."""
    try:
        lines = [line.split() for line in present(path).read_text(encoding="utf-8").splitlines()]
        rows = [row for row in lines if row and not row[0].startswith("#")]
        return np.array([float(row[0]) for row in rows]), [path.parent / row[1] for row in rows]
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is no list of times and files", AGAIN) from error


def _tagged(data: bytes) -> bool:
    return np.frombuffer(data, "<f4", 1)[0] == _SINTEL_TAG
