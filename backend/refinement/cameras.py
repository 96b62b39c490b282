"""Cameras of a clip as refinement handles them: poses, and pinholes with square pixels on the plate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..classical.tracks import Observations
from ..geometry.rigid import Similarity
from ..geometry.trajectory import has_pose
from ..wire import Capture


@dataclass(frozen=True)
class Cameras:
    """T cameras: `world_from_camera` (T, 4, 4), `focal_px` (T,) and `centre_px` (T, 2) on the plate; NaN if unknown."""

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    centre_px: np.ndarray

    @classmethod
    def of(cls, capture: Capture) -> Cameras:
        """The capture's cameras. The plate's pixels are square, so fx and fy are one number: their geometric mean."""
        plate = capture.plate_intrinsics
        poses = np.array(capture.world_from_camera, np.float64)
        poses[~np.isfinite(plate).all(axis=1)] = np.nan
        return cls(poses, np.sqrt(plate[:, 0] * plate[:, 1]), plate[:, 2:])

    @property
    def known(self) -> np.ndarray:
        """(T,) bool: frames that have a camera."""
        return has_pose(self.world_from_camera)

    @property
    def centres(self) -> np.ndarray:
        """(T, 3) where the cameras stand."""
        return self.world_from_camera[:, :3, 3]

    @property
    def intrinsics(self) -> np.ndarray:
        """(T, 4) fx fy cx cy of the plate."""
        return np.column_stack([self.focal_px, self.focal_px, self.centre_px])

    def moved(self, world_from_old: Similarity) -> Cameras:
        """The same in another world."""
        return replace(self, world_from_camera=world_from_old.apply_to_poses(self.world_from_camera))

    def rays(self, seen: Observations) -> np.ndarray:
        """(M, 3) directions with z = 1, in the camera, of sightings."""
        xy = (seen.xy - self.centre_px[seen.frame]) / self.focal_px[seen.frame, None]
        return np.column_stack([xy, np.ones(len(xy))])

    def in_camera(self, points_world: np.ndarray, seen: Observations) -> np.ndarray:
        """(M, 3) the sighted points as the sighting cameras have them."""
        poses = self.world_from_camera[seen.frame]
        away = points_world[seen.track] - poses[:, :3, 3]
        return np.einsum("mji,mj->mi", poses[:, :3, :3], away)

    def errors_px(self, points_world: np.ndarray, seen: Observations) -> np.ndarray:
        """(M,) reprojection errors in plate pixels; infinite for a point behind the camera or unknown."""
        p = self.in_camera(points_world, seen)
        with np.errstate(divide="ignore", invalid="ignore"):
            there = p[:, :2] / p[:, 2:] * self.focal_px[seen.frame, None] + self.centre_px[seen.frame]
            error = np.linalg.norm(there - seen.xy, axis=1)
        return np.where(np.isfinite(error) & (p[:, 2] > 0), error, np.inf)
