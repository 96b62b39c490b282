"""The point cloud of one frame: the pixels of a capture that have a depth, in the world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.camera import unproject
from ..wire import Capture


@dataclass(frozen=True)
class Cloud:
    """N points: positions (N, 3) float32, sRGB colours (N, 3) uint8, confidence (N,) float32, dynamic (N,) bool."""

    points_world: np.ndarray
    colours: np.ndarray
    confidence: np.ndarray
    dynamic: np.ndarray


def measured(depth: np.ndarray) -> np.ndarray:
    """Where `depth` says something: finite and in front of the camera."""
    return np.isfinite(depth) & (depth > 0)


def frame_cloud(
    capture: Capture,
    frame: int,
    *,
    min_confidence: float = -np.inf,
    pixels: np.ndarray | None = None,
    most: int | None = None,
) -> Cloud:
    """The points of one frame with at least `min_confidence`; none when the frame has no camera.

    `pixels` are flat pixel indices in the order of preference (all, in raster order, when not given), of which the
    first `most` that have a point are taken.
    """
    depth = np.asarray(capture.depth[frame])
    confidence = np.asarray(capture.confidence[frame], np.float32)
    wanted = measured(depth) & (confidence >= min_confidence) & capture.has_camera[frame]
    order = np.arange(depth.size) if pixels is None else pixels
    chosen = order[wanted.ravel()[order]][:most]
    world = unproject(depth.astype(np.float64), capture.intrinsics[frame], capture.world_from_camera[frame])
    return Cloud(
        points_world=world.reshape(-1, 3)[chosen].astype(np.float32),
        colours=np.asarray(capture.rgb[frame]).reshape(-1, 3)[chosen],
        confidence=confidence.ravel()[chosen],
        dynamic=np.asarray(capture.dynamic[frame]).ravel()[chosen],
    )


def scattered_pixels(width: int, height: int) -> np.ndarray:
    """Every flat pixel index in one fixed random order, so that a smaller cloud is even and steady over time."""
    return np.random.default_rng(0).permutation(width * height)
