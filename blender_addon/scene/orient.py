"""Which way is up, and where is the floor: the root transform of an import, from cameras and static points.

Nobody holds a camera tilted sideways for long, so the up axis is the direction that no camera's x axis leans to; a
plane under the cameras then corrects it (specs/blender.md, 3.4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..wire.capture import CONFIDENCE_MEASURED, Capture
from .conventions import BLENDER_FROM_CAPTURE
from .points import measured, unproject

_TRIALS, _SAMPLE = 600, 9000
_MAX_TILT = np.cos(np.radians(25))
#: Share of the points below the cameras that must lie on one plane before it is called the floor.
_FLOOR_SHARE = 0.08


@dataclass(frozen=True)
class Orientation:
    """`blender_from_capture` (4, 4) rigid, and what it rests on.

    `up_from` is 'floor' (z = 0 is the floor), 'horizon' (the cameras turned, so their x axes tell up), 'cameras' (they
    did not, so up is their mean up) or 'axes' (nothing was looked for). But for 'floor', the first camera is at z = 0.
    """

    blender_from_capture: np.ndarray
    up_from: str

    @property
    def floor_found(self) -> bool:
        return self.up_from == "floor"

    @property
    def note(self) -> str:
        """What the artist should know of it; empty when the floor was found."""
        return {
            "horizon": "No floor was found: up is by the cameras' horizon, which is as level as they were held",
            "cameras": "No floor was found and the camera did not turn: up is as it was held, which may lean",
        }.get(self.up_from, "")


def as_shot() -> Orientation:
    """The change of axes only: the first frame's camera axes stay level."""
    return Orientation(BLENDER_FROM_CAPTURE.copy(), "axes")


def find_orientation(capture: Capture, seed: int = 0) -> Orientation:
    """Up axis and floor of a capture: z up, the first camera above the origin and looking along y, the floor at 0."""
    cameras = capture.world_from_camera[capture.has_camera]
    centres = cameras[:, :3, 3]
    up, up_from = _level_up(cameras)
    plane = _floor(_static_points(capture, seed), centres, up, seed)
    height = 0.0
    if plane is not None:
        up, offset = plane
        height = float(centres[0] @ up - offset)
        up_from = "floor"

    forward = cameras[0, :3, 2] - up * (cameras[0, :3, 2] @ up)
    if np.linalg.norm(forward) < 1e-3:  # the first camera looks straight down or up: its top edge is ahead
        forward = -cameras[0, :3, 1]
        forward -= up * (forward @ up)
    forward /= np.linalg.norm(forward)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.cross(forward, up), forward, up])
    matrix[:3, 3] = (0, 0, height) - matrix[:3, :3] @ centres[0]
    return Orientation(matrix, up_from)


def _level_up(cameras: np.ndarray) -> tuple[np.ndarray, str]:
    """Unit up axis of (T, 4, 4) cameras and whether it is from their 'horizon' or, when they hardly turn, mean up."""
    mean = -cameras[:, :3, 1].mean(axis=0)
    _, strength, axes = np.linalg.svd(cameras[:, :3, 0])
    turned = len(strength) > 1 and strength[1] >= 0.05 * strength[0]
    up = axes[2] * np.sign(axes[2] @ mean) if turned else mean
    return up / np.linalg.norm(up), "horizon" if turned else "cameras"


def _static_points(capture: Capture, seed: int) -> np.ndarray:
    """Some (N, 3) points that stand still, measured ones where there are any."""
    rng = np.random.default_rng(seed)
    frames = np.unique(np.linspace(0, capture.frame_count - 1, 6).astype(int))
    chosen = []
    for frame in frames:
        keep = measured(capture, frame) & ~capture.dynamic[frame]
        keep &= capture.confidence[frame] >= min(CONFIDENCE_MEASURED, float(capture.confidence[frame].max()))
        thin = np.zeros_like(keep)
        thin[::2, ::2] = True
        points = unproject(capture, frame, keep & thin) if (keep & thin).any() else np.empty((0, 3), np.float32)
        chosen.append(rng.permutation(points)[: _SAMPLE // len(frames)])
    return np.concatenate(chosen).astype(np.float64)


def _floor(points: np.ndarray, centres: np.ndarray, up: np.ndarray, seed: int) -> tuple[np.ndarray, float] | None:
    """(unit normal, offset) of the floor: most points on one plane, nearly level, below every camera; or None."""
    heights = points @ up
    below = points[heights < (centres @ up).min()]
    if len(below) < 100:
        return None
    low = below[below @ up <= np.quantile(below @ up, 0.6)]
    camera_height = float((centres @ up).mean() - np.median(low @ up))
    tolerance = 0.02 * camera_height
    rng = np.random.default_rng(seed)
    a, b, c = low[rng.integers(0, len(low), (3, _TRIALS))]
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        normals *= (np.sign(normals @ up) / lengths)[:, None]
    offsets = (normals * a).sum(axis=1)
    clearance = (centres @ normals.T - offsets).min(axis=0)
    level = (normals @ up > _MAX_TILT) & (clearance > 5 * tolerance)
    if not level.any():
        return None
    votes = (np.abs(below @ normals.T - offsets) < tolerance).sum(axis=0)
    best = int(np.argmax(np.where(level, votes, 0)))
    normal, offset = normals[best], offsets[best]
    reach = 2 * tolerance
    for _ in range(12):  # only as far as the floor is rough: walls begin where it ends, and their feet would tilt it
        away = np.abs(below @ normal - offset)
        on_plane = below[away < reach]
        if len(on_plane) < 20:
            break
        reach = float(np.clip(2.5 * 1.48 * np.median(away[away < reach]), tolerance / 4, 2 * tolerance))
        mean = on_plane.mean(axis=0)
        fitted = np.linalg.svd(on_plane - mean, full_matrices=False)[2][2]
        normal = fitted * np.sign(fitted @ up)
        offset = float(normal @ mean)
    share = (np.abs(below @ normal - offset) < tolerance).mean()
    if share < _FLOOR_SHARE or normal @ up < _MAX_TILT or (centres @ normal - offset).min() <= 0:
        return None
    return normal, offset
