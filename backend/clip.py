"""Clips: footage decoded once into a frame store, with true times and the exact plate <-> store map."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .wire import ClipInfo, PlateMap


@dataclass(frozen=True)
class Clip:
    """Decoded footage. `frames` (T, H, W, 3) uint8 RGB is memory-mapped, in display orientation, on the store grid.

    The store grid is the plate, or the plate shrunk when it is larger than what any solver uses (`store_map` says
    exactly how). `known_masks` (T, H, W) bool on the store grid is True where the user says that things move.
    `focal_35mm` is the focal length in 35 mm equivalent that the file's metadata states, None when it states none.
    """

    info: ClipInfo
    frames: np.ndarray
    store_map: PlateMap
    known_masks: np.ndarray | None = None
    focal_35mm: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def frame_count(self) -> int:
        return self.frames.shape[0]

    @property
    def store_size(self) -> tuple[int, int]:
        """(width, height) of the store grid."""
        return self.frames.shape[2], self.frames.shape[1]

    @property
    def fps(self) -> Fraction:
        return self.info.fps
