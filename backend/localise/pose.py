"""One frame's camera from places on the plate and the world's points seen there, many of them wrong: RANSAC.

COLMAP's LO-RANSAC with P3P, and with P4Pf where the focal length is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..colmap import pycolmap
from ..geometry.rigid import invert_poses, poses_from

#: Points that a pose needs here, whatever the share of outliers.
LEAST_POINTS = 6
TRIALS = (200, 20_000)
CONFIDENCE = 0.9999
#: A focal length that was found is at least this share of what the places on the plate span: 118 degrees of view.
LEAST_FOCAL = 0.3


@dataclass(frozen=True)
class Pose:
    """`world_from_camera` (4, 4), `intrinsics` fx fy cx cy in plate pixels, and which points (M,) agree."""

    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    inliers: np.ndarray


def find_pose(
    plate_xy: np.ndarray,
    points_world: np.ndarray,
    intrinsics: np.ndarray,
    max_error_px: float,
    seed: int,
    focal_known: bool = True,
) -> Pose | None:
    """The camera that sees most of (M, 3) points within `max_error_px` of (M, 2) places; None when there is none.

    `intrinsics` (4,) fx fy cx cy; without `focal_known` its focal lengths only say what the pixel's shape is.
    """
    if len(plate_xy) < LEAST_POINTS:
        return None
    centre = intrinsics[2:]
    # One focal length: pixels are made square, so that fx / fy stays as given.
    squeeze = intrinsics[1] / intrinsics[0]
    square = (plate_xy - centre) * (1.0, 1 / squeeze)
    half = 2 * np.abs(square).max() + 1
    camera = pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=int(2 * half), height=int(2 * half), params=[intrinsics[0], half, half]
    )
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.estimate_focal_length = not focal_known
    options.ransac.max_error = max_error_px
    options.ransac.min_num_trials, options.ransac.max_num_trials = TRIALS
    options.ransac.confidence = CONFIDENCE
    options.ransac.random_seed = seed
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = not focal_known
    found = pycolmap.estimate_and_refine_absolute_pose(square + half, points_world, camera, options, refinement)
    if found is None or found["num_inliers"] < LEAST_POINTS:
        return None
    focal_px = float(camera.params[0])
    longest = float(np.ptp(plate_xy, axis=0).max())
    if not LEAST_FOCAL * longest < focal_px < np.inf:
        return None
    camera_from_world = poses_from(found["cam_from_world"].rotation.matrix(), found["cam_from_world"].translation)
    pose = invert_poses(camera_from_world)
    lens = np.array([focal_px, focal_px * squeeze, *centre])
    return Pose(pose, lens, errors_px(plate_xy, points_world, lens, pose) < max_error_px)


def errors_px(
    plate_xy: np.ndarray, points_world: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray
) -> np.ndarray:
    """(M,) pixels from (M, 2) places on the plate to where (M, 3) points are seen; infinite behind the camera."""
    away = points_world - world_from_camera[:3, 3]
    x, y, z = (away @ world_from_camera[:3, :3]).T
    ahead = z > 1e-9
    z = np.where(ahead, z, 1.0)
    seen = np.stack([x / z * intrinsics[0] + intrinsics[2], y / z * intrinsics[1] + intrinsics[3]], axis=1)
    return np.where(ahead, np.linalg.norm(seen - plate_xy, axis=1), np.inf)
