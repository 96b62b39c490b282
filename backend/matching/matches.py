"""Pairs of pixels of two pictures that show the same point, each with a confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Matches:
    """Pixels `xy_1` (M, 2) of picture 1 and `xy_2` (M, 2) of picture 2, int64 (x, y) from 0; `confidence` (M,) float32.

    All three lie on one device.
    """

    xy_1: torch.Tensor
    xy_2: torch.Tensor
    confidence: torch.Tensor

    def __len__(self) -> int:
        return len(self.xy_1)

    def where(self, keep: torch.Tensor) -> Matches:
        """Those that `keep` chooses: (M,) bool, or indices in the order wanted."""
        return Matches(self.xy_1[keep], self.xy_2[keep], self.confidence[keep])

    def swapped(self) -> Matches:
        """The same as matches from picture 2 to picture 1."""
        return Matches(self.xy_2, self.xy_1, self.confidence)

    def to(self, device: torch.device | str) -> Matches:
        return Matches(self.xy_1.to(device), self.xy_2.to(device), self.confidence.to(device))

    def unique(self) -> Matches:
        """Each pair of pixels once, sorted by picture 1 and then 2 (row by row); of equal pairs the first is kept."""
        return self.where(first_of_each(self.xy_1, self.xy_2))

    def masked(self, mask_1: torch.Tensor | None, mask_2: torch.Tensor | None) -> Matches:
        """Those with neither end in a mask: (H, W) bool each, true where a pixel must not be matched."""
        keep = torch.ones(len(self), dtype=torch.bool, device=self.xy_1.device)
        for xy, mask in ((self.xy_1, mask_1), (self.xy_2, mask_2)):
            if mask is not None:
                keep &= ~mask.to(keep.device)[xy[:, 1], xy[:, 0]]
        return self.where(keep)

    def without_border(self, size_1: tuple[int, int], size_2: tuple[int, int], border: int = 3) -> Matches:
        """Those whose ends both lie at least `border` px inside their picture, of (width, height)."""
        keep = torch.ones(len(self), dtype=torch.bool, device=self.xy_1.device)
        for xy, size in ((self.xy_1, size_1), (self.xy_2, size_2)):
            end = torch.tensor(size, device=xy.device) - border
            keep &= ((xy >= border) & (xy < end)).all(-1)
        return self.where(keep)


def joined(parts: Sequence[Matches], device: torch.device | str = "cpu") -> Matches:
    """All matches of several sets of the same two pictures, one after the other; of no set, none, on `device`."""
    if not parts:
        none = torch.zeros(0, 2, dtype=torch.int64, device=device)
        return Matches(none, none, torch.zeros(0, device=device))
    return Matches(*(torch.cat([getattr(p, name) for p in parts]) for name in ("xy_1", "xy_2", "confidence")))


def first_of_each(xy_1: torch.Tensor, xy_2: torch.Tensor) -> torch.Tensor:
    """(K,) int64: where each different pair of pixels (M, 2) first occurs, sorted by (y_1, x_1, y_2, x_2)."""
    if not len(xy_1):
        return torch.zeros(0, dtype=torch.int64, device=xy_1.device)
    key = torch.zeros(len(xy_1), dtype=torch.int64, device=xy_1.device)
    for number in (xy_1[:, 1], xy_1[:, 0], xy_2[:, 1], xy_2[:, 0]):
        key = key * (number.max() + 1) + number
    key, order = key.sort(stable=True)
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return order[first]
