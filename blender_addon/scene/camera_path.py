"""The path of a capture's camera: what is keyed at which scene frame, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mathutils import Matrix

from ..wire.capture import Capture
from .conventions import OPENCV_FROM_BLENDER_CAMERA, blender_lens


@dataclass(frozen=True)
class CameraPath:
    """K keys of a camera in the capture's world, with Blender's axes.

    `frames` (K,) are scene frames; `location` (K, 3); `rotation` (K, 4) w x y z, each on the side of the one before;
    `lens` (K,) in mm; `shift_x` and `shift_y` (K,) in widths of the sensor.
    """

    frames: np.ndarray
    location: np.ndarray
    rotation: np.ndarray
    lens: np.ndarray
    shift_x: np.ndarray
    shift_y: np.ndarray


def camera_path(
    capture: Capture, scene_frames: np.ndarray, sensor_width_mm: float, left_out: np.ndarray | None = None
) -> CameraPath:
    """The path at the (T,) scene frames that have a camera, without those where `left_out` (T,) is true."""
    posed = capture.has_camera
    kept = posed if left_out is None else posed & ~left_out
    lens = blender_lens(capture.plate_intrinsics[posed], capture.clip.plate_size, sensor_width_mm)
    matrices = [Matrix(m) for m in capture.world_from_camera[kept] @ OPENCV_FROM_BLENDER_CAMERA]
    return CameraPath(
        frames=np.asarray(scene_frames)[kept],
        location=np.array([m.translation for m in matrices]),
        rotation=continuous(np.array([m.to_quaternion() for m in matrices])),
        lens=lens.lens_mm[kept[posed]],
        shift_x=lens.shift_x[kept[posed]],
        shift_y=lens.shift_y[kept[posed]],
    )


def continuous(quaternions: np.ndarray) -> np.ndarray:
    """Flip signs so that each (K, 4) quaternion is on the side of the one before: q and -q are one rotation."""
    turns = np.where((quaternions[1:] * quaternions[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return quaternions * np.concatenate([[1.0], np.cumprod(turns)])[:, None]
