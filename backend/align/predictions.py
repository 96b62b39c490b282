"""Pair predictions: what a two-view pointmap network says of pairs of frames, and what optical flow adds to it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True)
class PairPredictions:
    """E directed pairs (i, j) of frames on one H x W grid; facts sheet, sections 2.7 and 8.

    `edges` (E, 2) int64. `points_i` (E, H, W, 3): frame i's points in camera i; `points_j` (E, H, W, 3): frame j's
    points, at time j, in camera i; each pair has a scale of its own. `confidence_i`, `confidence_j` (E, H, W), 1 and
    above. Any floating type, on any device; large sets live on the host in half precision.
    """

    edges: torch.Tensor
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

    def to(self, *args, **kwargs) -> PairPredictions:
        """The same on another device, or of another floating type (edges keep theirs)."""
        return _moved(self, *args, **kwargs)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def rows(self, index: torch.Tensor) -> PairPredictions:
        """Some of the pairs."""
        return _rows(self, index)

    def joined(self, other: PairPredictions) -> PairPredictions:
        """The pairs of both, these first."""
        return _joined(self, other)


@dataclass(frozen=True)
class PairFlows:
    """Optical flow of the same E pairs: `flow` (E, 2, H, W) dx dy in pixels from i to j, `valid` (E, H, W) bool.

    `valid` is False where the flow leaves the picture or the flow back disagrees.
    """

    edges: torch.Tensor
    flow: torch.Tensor
    valid: torch.Tensor

    def to(self, device: torch.device | str) -> PairFlows:
        """The same on another device (edges keep theirs)."""
        return _moved(self, device)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def rows(self, index: torch.Tensor) -> PairFlows:
        """Some of the pairs."""
        return _rows(self, index)

    def joined(self, other: PairFlows) -> PairFlows:
        """The pairs of both, these first."""
        return _joined(self, other)


def _moved(pairs, *args, **kwargs):
    moved = {f.name: getattr(pairs, f.name).to(*args, **kwargs) for f in fields(pairs) if f.name != "edges"}
    return type(pairs)(edges=pairs.edges, **moved)


def _rows(pairs, index: torch.Tensor):
    return type(pairs)(**{f.name: getattr(pairs, f.name)[index] for f in fields(pairs)})


def _joined(one, two):
    return type(one)(**{f.name: torch.cat([getattr(one, f.name), getattr(two, f.name)]) for f in fields(one)})
