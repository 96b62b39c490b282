"""What a matcher is, and what it finds: places in two pictures that show the same point, to a fraction of a pixel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Picture:
    """`rgb` (H, W, 3) uint8, and a `key` that no other picture of the same job has: what is known of it is kept."""

    key: Hashable
    rgb: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.rgb.shape[1], self.rgb.shape[0]


@dataclass(frozen=True)
class Found:
    """Edge-origin pixels `plate_xy` (M, 2) and `map_xy` (M, 2) that show the same point; `confidence` (M,)."""

    plate_xy: np.ndarray
    map_xy: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.plate_xy)

    def where(self, keep: np.ndarray) -> Found:
        """Those that `keep` chooses."""
        return Found(self.plate_xy[keep], self.map_xy[keep], self.confidence[keep])


class Matcher(Protocol):
    """What finds the same points in a frame of the plate and one of the capture.

    `name` is that of the setting, `label` for the artist; `made_from` is all that its matches depend on beside the
    pictures. `known` (H, W) bool says which pixels of the capture's frame
    have a point: others are of no use, and a matcher may leave them out.
    """

    name: str
    label: str
    made_from: Mapping[str, Any]

    def match(self, plate: Picture, view: Picture, known: np.ndarray) -> Found: ...
