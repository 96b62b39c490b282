"""Pair predictions: what a two-view pointmap network says of pairs of frames, and what optical flow adds to it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch


@dataclass(frozen=True)
class Pairs:
    """What is said of E directed pairs (i, j) of frames: `edges` (E, 2) int64, and tensors with a row for each pair."""

    edges: torch.Tensor

    def to(self, *args, **kwargs) -> Self:
        """The same on another device, or of another floating type (edges keep theirs)."""
        moved = {f.name: getattr(self, f.name).to(*args, **kwargs) for f in fields(self) if f.name != "edges"}
        return replace(self, **moved)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def rows(self, index: torch.Tensor) -> Self:
        """Some of the pairs."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def joined(self, other: Self) -> Self:
        """The pairs of both, these first."""
        return replace(
            self, **{f.name: torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)}
        )


@dataclass(frozen=True)
class PairPredictions(Pairs):
    """E directed pairs (i, j) of frames on one H x W grid; facts sheet, sections 2.7 and 8.

    `points_i` (E, H, W, 3): frame i's points in camera i; `points_j` (E, H, W, 3): frame j's
    points, at time j, in camera i; each pair has a scale of its own. `confidence_i`, `confidence_j` (E, H, W), 1 and
    above. Any floating type, on any device; large sets live on the host in half precision.
    """

    points_i: torch.Tensor
    points_j: torch.Tensor
    confidence_i: torch.Tensor
    confidence_j: torch.Tensor

    def __post_init__(self) -> None:
        e, h, w = self.confidence_i.shape
        shapes = {"edges": (e, 2), "points_i": (e, h, w, 3), "points_j": (e, h, w, 3), "confidence_j": (e, h, w)}
        for name, shape in shapes.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, expected {shape}")

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the grid."""
        return self.confidence_i.shape[2], self.confidence_i.shape[1]


@dataclass(frozen=True)
class PairFlows(Pairs):
    """Optical flow of the same E pairs: `flow` (E, 2, H, W) dx dy in pixels from i to j, `valid` (E, H, W) bool.

    `valid` is False where the flow leaves the picture or the flow back disagrees.
    """

    flow: torch.Tensor
    valid: torch.Tensor
