"""Cameras and the conventions of Kinora, stated once.

Axes are OpenCV's: x right, y down, z forward. `world_from_camera` is 4x4 and maps camera points to the world.
Pixels are edge-origin: an image spans [0, W] x [0, H] and its first pixel's centre is (0.5, 0.5). Intrinsics are
(..., 4) arrays fx, fy, cx, cy in such pixels. Depth is z-depth.
"""

from __future__ import annotations

import numpy as np


def pixel_centres(width: int, height: int) -> np.ndarray:
    """(H, W, 2) edge-origin coordinates of every pixel's centre."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], axis=-1)


def rays(intrinsics: np.ndarray, width: int, height: int) -> np.ndarray:
    """(..., H, W, 3) camera-space directions with z = 1 through every pixel's centre; times depth is the point."""
    fx, fy, cx, cy = np.moveaxis(np.asarray(intrinsics, np.float64)[..., None, None, :], -1, 0)
    xy = pixel_centres(width, height)
    x, y = (xy[..., 0] - cx) / fx, (xy[..., 1] - cy) / fy
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def unproject(depth: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) world points of (..., H, W) z-depth."""
    height, width = depth.shape[-2:]
    camera_points = rays(intrinsics, width, height) * depth[..., None]
    return transform(world_from_camera[..., None, :, :], camera_points)


def project(points_world: np.ndarray, intrinsics: np.ndarray, world_from_camera: np.ndarray):
    """Edge-origin pixels (..., N, 2) and z-depths (..., N) of (..., N, 3) world points."""
    camera_from_world = np.linalg.inv(world_from_camera)
    p = transform(camera_from_world, points_world)
    fx, fy, cx, cy = np.moveaxis(np.asarray(intrinsics, np.float64)[..., None, :], -1, 0)
    z = p[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        xy = np.stack([p[..., 0] / z * fx + cx, p[..., 1] / z * fy + cy], axis=-1)
    return xy, z


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply (..., 4, 4) to (..., N, 3) points."""
    return points @ np.swapaxes(matrix[..., :3, :3], -1, -2) + matrix[..., None, :3, 3]
