"""From the capture's conventions to Blender's: axes, lenses and frames, as NumPy only.

The capture has OpenCV axes (x right, y down, z forward) and edge-origin pixels; Blender's world is z-up and its
cameras look along -z with y up. Only the root object of an import carries the change of world axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..wire.capture import Capture

#: Blender's z-up world from the capture's y-down one: (x, y, z) becomes (x, z, -y).
BLENDER_FROM_CAPTURE = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
#: OpenCV camera axes from Blender's, and back.
OPENCV_FROM_BLENDER_CAMERA = np.diag([1.0, -1.0, -1.0, 1.0])

#: With square pixels, fx and fy may differ by so much that no pixel of the plate moves further than this.
SQUARE_PIXEL_TOLERANCE_PX = 0.005


@dataclass(frozen=True)
class BlenderLens:
    """T lenses as Blender states them, for sensor fit 'HORIZONTAL', and the shot's pixel aspect."""

    lens_mm: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray
    sensor_width_mm: float
    pixel_aspect: tuple[float, float]


def blender_lens(plate_intrinsics: np.ndarray, plate_size: tuple[int, int], sensor_width_mm: float) -> BlenderLens:
    """The lenses of (T, 4) plate intrinsics fx fy cx cy in edge-origin pixels (specs/blender.md, 3.1).

    Blender has one focal length, so a difference of fx and fy becomes the scene's pixel aspect, unless it is too
    small to be seen. A shot has one aspect, the median of its frames.
    """
    fx, fy, cx, cy = np.asarray(plate_intrinsics, np.float64).T
    width, height = plate_size
    ratio = float(np.quantile(fx / fy, 0.5))  # the first np.median of a session imports numpy.ma, and a window waits
    if abs(np.log(ratio)) / 2 * max(width, height) / 2 < SQUARE_PIXEL_TOLERANCE_PX:
        ratio = 1.0
    aspect_x, aspect_y = (1.0, ratio) if ratio >= 1 else (1.0 / ratio, 1.0)
    focal_px = np.sqrt(fx * fy * ratio)
    return BlenderLens(
        lens_mm=focal_px * sensor_width_mm / width,
        shift_x=0.5 - cx / width,
        shift_y=(cy - height / 2) * ratio / width,
        sensor_width_mm=sensor_width_mm,
        pixel_aspect=(aspect_x, aspect_y),
    )


def sensor_width(capture: Capture) -> float:
    """Width of the sensor in mm that the user stated for the job, else Blender's own 36."""
    return float(capture.settings.get("lens", {}).get("sensor_width_mm", 36.0))


def rays_matrix(intrinsics: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """(3, 3) that takes edge-origin grid pixels (u, v, 1) to world directions of unit z-depth."""
    fx, fy, cx, cy = intrinsics
    camera_from_pixel = np.array([[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1]])
    return world_from_camera[:3, :3] @ camera_from_pixel


def blender_fps(fps: Fraction) -> tuple[int, float]:
    """Blender's (fps, fps_base), whose quotient is the clip's rate: 24000/1001 becomes 24 and 1.001."""
    whole = max(1, round(fps))
    return whole, float(whole / fps)
