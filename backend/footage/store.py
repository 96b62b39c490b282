"""The frame store: pictures on one grid, written once to disk as an .npy file and memory-mapped."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..geometry.camera import pixel_centres
from ..wire import LensSettings, PlateMap, UserError


def grid_of(plate_size: tuple[int, int], long_side: int) -> tuple[tuple[int, int], PlateMap]:
    """(width, height) of the plate shrunk to `long_side`, never enlarged, and the exact plate -> grid map.

    The short side is rounded to whole pixels, so the scales of x and y may differ slightly.
    """
    width, height = plate_size
    scale = min(1.0, long_side / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return size, PlateMap(size[0] / width, size[1] / height)


def resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture at (width, height): areas are averaged, so nothing aliases; unchanged when it has that size."""
    if (picture.shape[1], picture.shape[0]) == tuple(size):
        return picture
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA)


class Undistortion:
    """Resamples pictures of a grid so that they are those of the plate's own pinhole, of the same focal length.

    The lens follows OpenCV: `distorted = x (1 + k1 r^2 + k2 r^4)` in normalised coordinates about the plate's centre.
    Pixels that the plate did not see become black.
    """

    def __init__(self, lens: LensSettings, plate_size: tuple[int, int], size: tuple[int, int], plate_map: PlateMap):
        if lens.focal_mm <= 0:
            raise UserError("Lens distortion is given without a focal length", "give the focal length too")
        width, height = plate_size
        focal_px = lens.focal_mm / lens.sensor_width_mm * width
        xy = (plate_map.to_plate(pixel_centres(*size)) - (width / 2, height / 2)) / focal_px
        r2 = (xy**2).sum(-1, keepdims=True)
        distorted = xy * (1 + lens.k1 * r2 + lens.k2 * r2**2) * focal_px + (width / 2, height / 2)
        # OpenCV counts pixel centres from 0, we from 0.5.
        self.source_xy = (plate_map.to_grid(distorted) - 0.5).astype(np.float32)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return cv2.remap(np.ascontiguousarray(picture), self.source_xy, None, cv2.INTER_LINEAR)


#: Bytes of an .npy header: room for any shape of a store, and the 64 that the data is to lie on.
HEADER_BYTES = 128


class FrameStore:
    """An .npy file that pictures of one shape are appended to, since no container's frame count can be trusted.

    Plain writes and not a growing memory map: on a full disk a write raises, while a mapped page kills the process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> FrameStore:
        self._file = open(self.path, "wb")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError as full:
            if error is None:
                raise self._told(full) from full

    def append(self, picture: np.ndarray) -> None:
        """Write one uint8 picture. Raises UserError when the disk is full."""
        if self.count and picture.shape != self._shape:
            raise ValueError(f"a store of {self._shape} cannot take {picture.shape}")
        try:
            if not self.count:
                self._shape = picture.shape
                self._file.write(bytes(HEADER_BYTES))
            self._file.write(np.ascontiguousarray(picture, np.uint8).data)
        except OSError as error:
            raise self._told(error) from error
        self.count += 1

    def read(self, count: int) -> np.ndarray:
        """(count, ...) uint8: the first pictures, memory-mapped and read-only, once the store is closed."""
        header = io.BytesIO()
        shape = (count, *self._shape)
        np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
        assert len(header.getvalue()) == HEADER_BYTES
        with open(self.path, "r+b") as file:
            file.write(header.getvalue())
            file.truncate(HEADER_BYTES + int(np.prod(shape, dtype=np.int64)))
        return np.load(self.path, mmap_mode="r")

    def _told(self, error: OSError) -> Exception:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return UserError(f"The disk of {self.path.parent} is full", "free space there, or use fewer frames")
        return error
