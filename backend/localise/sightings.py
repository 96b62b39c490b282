"""What one frame of the plate sees of the world: places on it, and the points of the capture that are seen there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sightings:
    """`plate_xy` (M, 2) edge-origin pixels of the plate, and `points_world` (M, 3).

    `view` (M,) is the capture's frame that a point comes from, and `map_xy` (M, 2) its pixel there; `from_view` (M, 3)
    points, with unit length, from the point to that frame's camera.
    """

    plate_xy: np.ndarray
    points_world: np.ndarray
    view: np.ndarray
    map_xy: np.ndarray
    from_view: np.ndarray

    def __len__(self) -> int:
        return len(self.plate_xy)

    def where(self, keep: np.ndarray) -> Sightings:
        """Those that `keep` chooses."""
        return Sightings(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def joined(parts: Sequence[Sightings]) -> Sightings:
    """All of several sets of one frame, at least one."""
    return Sightings(*(np.concatenate([getattr(p, name) for p in parts]) for name in Sightings.__dataclass_fields__))
