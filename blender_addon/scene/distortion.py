"""The lens distortion of a plate: from the plate as shot to the undistorted one and back, exactly, and as ST maps.

An ST map is a picture of plate size whose red and green say where each of its pixels is to be taken from: fractions of
the width from the left and of the height from below, at the centres of pixels, as Nuke and Blender's Map UV read them.
Blue is 1 where there is such a place and 0 elsewhere: Map UV takes it for the alpha, and others ignore it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError

#: The files of `write_st_maps`: the first makes the plate straight, the second bends a render like the plate.
UNDISTORT_NAME, REDISTORT_NAME = "st_undistort.exr", "st_redistort.exr"

#: Both coordinates of a pixel that has no source: outside of every picture.
NOWHERE = -1.0


@dataclass(frozen=True)
class PlateLens:
    """OpenCV's radial terms `k1`, `k2` of a plate (width, height) px, about `centre` px, of `focal_px` (x, y)."""

    plate_size: tuple[int, int]
    focal_px: tuple[float, float]
    centre: tuple[float, float]
    k1: float
    k2: float

    @classmethod
    def of(cls, capture: Capture) -> PlateLens:
        """The lens whose distortion was removed from a capture.

        That is the lens stated for the job, about the middle of the plate; where a capture does not say it, its own
        cameras', since that is what OpenCV's terms refer to. Raises UserError when the lens has no distortion.
        """
        clip, stated = capture.clip, capture.settings.get("lens", {})
        if not (clip.k1 or clip.k2):
            raise UserError("The plate has no lens distortion", "there is nothing to remove or to add")
        width, height = clip.plate_size
        if stated.get("focal_mm", 0) > 0 and stated.get("sensor_width_mm", 0) > 0:
            focal = stated["focal_mm"] / stated["sensor_width_mm"] * width
            return cls(clip.plate_size, (focal, focal), (width / 2, height / 2), clip.k1, clip.k2)
        fx, fy, cx, cy = map(float, np.median(capture.plate_intrinsics[capture.has_camera], axis=0))
        return cls(clip.plate_size, (fx, fy), (cx, cy), clip.k1, clip.k2)

    def distort(self, undistorted_xy: np.ndarray) -> np.ndarray:
        """(..., 2) edge-origin pixels of the undistorted plate to those of the plate as shot."""
        xy = (undistorted_xy - np.array(self.centre)) / self.focal_px
        r2 = (xy**2).sum(-1, keepdims=True)
        return xy * (1 + self.k1 * r2 + self.k2 * r2**2) * self.focal_px + self.centre

    def undistort(self, plate_xy: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the plate as shot to those of the undistorted plate; NaN where the lens shows nothing.

        Beyond the radius where the terms fold the picture back on itself there is no such pixel.
        """
        xy = (plate_xy - np.array(self.centre)) / self.focal_px
        bent = np.hypot(xy[..., 0], xy[..., 1])
        limit = self._fold_radius()
        radius = np.minimum(bent, 0.999 * limit)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for _ in range(50):
                r2 = radius**2
                off = radius * (1 + self.k1 * r2 + self.k2 * r2**2) - bent
                step = off / (1 + 3 * self.k1 * r2 + 5 * self.k2 * r2**2)
                radius = np.clip(radius - step, 0.0, limit)
            r2 = radius**2
            missed = np.abs(radius * (1 + self.k1 * r2 + self.k2 * r2**2) - bent) > 1e-9
            scale = np.where(missed, np.nan, np.where(bent > 0, radius / bent, 1.0))
        return xy * scale[..., None] * self.focal_px + self.centre

    def _fold_radius(self) -> float:
        """The normalised radius up to which a larger one is shown further out; infinite when it always is."""
        roots = np.roots([5 * self.k2, 3 * self.k1, 1.0]) if self.k2 else np.array([-1 / (3 * self.k1)])
        folds = [root.real for root in roots if abs(root.imag) < 1e-12 and root.real > 0]
        return float(np.sqrt(min(folds))) if folds else np.inf

    def st_maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (height, width, 2) float32 ST maps, top row first: what straightens the plate, what bends a render.

        A pixel that has no source points at NOWHERE.
        """
        width, height = self.plate_size
        pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
        maps = []
        for sources in (self.distort(pixels), self.undistort(pixels)):
            st = np.stack([sources[..., 0] / width, 1 - sources[..., 1] / height], axis=-1)
            maps.append(np.nan_to_num(st, nan=NOWHERE).astype(np.float32))
        return maps[0], maps[1]


def write_st_maps(capture: Capture, folder: Path | str) -> tuple[Path, Path]:
    """Write the two ST maps of a capture's plate to a folder, as 32-bit EXR; files there are replaced.

    Raises UserError when the plate has no distortion, or when the folder cannot be written.
    """
    folder = Path(folder)
    maps = PlateLens.of(capture).st_maps()
    paths = folder / UNDISTORT_NAME, folder / REDISTORT_NAME
    staged = [path.with_name(f".{path.stem}.partial-{os.getpid()}.exr") for path in paths]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for st, path in zip(maps, staged):
            _write_exr(st, path)
        for path, final in zip(staged, paths):
            os.replace(path, final)
    except (OSError, RuntimeError) as error:
        raise UserError(f"The ST maps could not be written to {folder} ({error})", "choose another folder") from error
    finally:
        for path in staged:
            with suppress(OSError):
                path.unlink()
    return paths


def _write_exr(st: np.ndarray, path: Path) -> None:
    height, width, _ = st.shape
    pixels = np.zeros((height, width, 4), np.float32)
    pixels[..., :2] = st[::-1]  # Blender's rows begin below
    pixels[..., 2] = (pixels[..., :2] != NOWHERE).any(axis=-1)
    pixels[..., 3] = 1.0
    image = bpy.data.images.new(path.stem, width, height, float_buffer=True, is_data=True)
    try:
        image.pixels.foreach_set(pixels.ravel())
        image.file_format = "OPEN_EXR"
        image.filepath_raw = str(path)
        image.save()
    finally:
        bpy.data.images.remove(image)
