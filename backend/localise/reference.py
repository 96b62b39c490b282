"""The capture that a plate is put into: which of its pixels are points of the world, and where those are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from ..geometry.camera import transform
from ..wire import CONFIDENCE_MEASURED, Capture, UserError
from .found import Picture

#: A frame with a smaller share of pixels that have a point is not matched with.
LEAST_KNOWN = 0.01
#: Rim of a mover that is left out with it, as a share of the longer side.
RIM = 0.006
#: Depths of neighbouring pixels that differ by more than this factor are of different surfaces.
ONE_SURFACE = 1.05


@dataclass(frozen=True)
class Reference:
    """A capture as a map. Movers, and depth that was not measured, are no part of it."""

    capture: Capture

    @cached_property
    def frames(self) -> np.ndarray:
        """(K,) frames that can be matched with. Raises UserError when there is none."""
        placed = [t for t, f in enumerate(self.capture.frames) if f.registered and not f.interpolated]
        usable = [t for t in placed if self.capture.has_camera[t] and self.known(t).mean() >= LEAST_KNOWN]
        if not usable:
            raise UserError(
                "The capture has no frame with a measured camera and depth", "make it again, or use another"
            )
        return np.array(usable)

    @property
    def least_confidence(self) -> float:
        """What depth must reach to count as measured; float16 holds it a little below."""
        return max(self.capture.confidence_default, CONFIDENCE_MEASURED) * (1 - 1e-3)

    def known(self, frame: int) -> np.ndarray:
        """(H, W) bool: pixels of a frame that are points of the world."""
        c = self.capture
        sure = np.asarray(c.confidence[frame], np.float32) >= self.least_confidence
        return sure & (np.asarray(c.depth[frame]) > 0) & ~self._moving(frame)

    def _moving(self, frame: int) -> np.ndarray:
        """(H, W) bool: what moves, with a rim, since masks end a little too early."""
        mask = np.ascontiguousarray(self.capture.dynamic[frame], np.uint8)
        rim = max(1, round(RIM * max(mask.shape)))
        return cv2.dilate(mask, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)) > 0

    def picture(self, frame: int) -> Picture:
        """A frame's picture."""
        return Picture(("map", frame), np.asarray(self.capture.rgb[frame]))

    def points(self, frame: int, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(M, 3) world points under (M, 2) edge-origin pixels of the frame, and (M,) bool which of them are known.

        Between pixels of one surface its depth is interpolated, as of a plane; beside an edge a point is not known.
        """
        depth, known = np.asarray(self.capture.depth[frame], np.float64), self.known(frame)
        height, width = depth.shape
        x, y = (xy - 0.5).clip(0, (width - 1, height - 1)).T
        x0, y0 = np.floor(x).astype(int).clip(0, max(width - 2, 0)), np.floor(y).astype(int).clip(0, max(height - 2, 0))
        x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
        fx, fy = x - x0, y - y0
        corners = ((y0, x0, (1 - fy) * (1 - fx)), (y0, x1, (1 - fy) * fx), (y1, x0, fy * (1 - fx)), (y1, x1, fy * fx))
        weight = np.stack([w for *_, w in corners])
        needed = weight > 1e-6
        here = np.stack([known[r, c] for r, c, _ in corners])
        z = np.stack([depth[r, c] for r, c, _ in corners])
        near = np.where(needed, z, np.inf).min(axis=0)
        far = np.where(needed, z, 0).max(axis=0)
        good = (here | ~needed).all(axis=0) & (far <= ONE_SURFACE * near)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(needed, weight / z, 0).sum(axis=0)
            z = np.where(good, 1 / inverse, 1.0)
        focal_x, focal_y, centre_x, centre_y = self.capture.intrinsics[frame]
        rays = np.stack([(xy[:, 0] - centre_x) / focal_x, (xy[:, 1] - centre_y) / focal_y, np.ones(len(xy))], axis=1)
        return transform(self.capture.world_from_camera[frame], rays * z[:, None]), good
