"""What a stream remembers: pointers, which are places in the world with features, and how a new frame is fused in.

Method: Point3R (Wu et al. 2025, arXiv 2507.02863), facts sheet section 3.8, own code.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

NEAR = 1 / 20
"""The share of the scene's diagonal below which a candidate is the same place as a pointer, as published."""


@dataclass(frozen=True)
class FusionOptions:
    """How candidates become pointers. `ORIGINAL` is Point3R as published."""

    near: float = NEAR


ORIGINAL = FusionOptions()


@dataclass(frozen=True)
class Candidates:
    """What one frame would remember: `positions` (N, 3) in the world, `features` (N, C), `confidence` (N,) from 1."""

    positions: torch.Tensor
    features: torch.Tensor
    confidence: torch.Tensor


@dataclass(frozen=True)
class Memory:
    """The pointers of a stream: `positions` (P, 3), `features` (P, C), `confidence` (P,), all on one device."""

    positions: torch.Tensor
    features: torch.Tensor
    confidence: torch.Tensor

    @classmethod
    def of(cls, candidates: Candidates) -> Memory:
        """The memory after the first frame: all that it has to say."""
        return cls(candidates.positions, candidates.features, candidates.confidence)

    def __len__(self) -> int:
        return self.positions.shape[0]

    def to(self, device: torch.device | str) -> Memory:
        """The same on another device."""
        return Memory(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def threshold(memory: Memory, candidates: Candidates, options: FusionOptions) -> torch.Tensor:
    """() How near is the same place: a share of the diagonal of the box around pointers and candidates."""
    both = torch.cat([memory.positions, candidates.positions])
    return torch.linalg.vector_norm((both.amax(0) - both.amin(0)) * options.near)


def nearest(positions: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) the distance of each position (N, 3) to the nearest of `others` (P, 3), and (N,) which that is.

    Distances are of differences, never by the shorter matrix product: in reduced precision that one takes the wrong
    neighbour for about one in fifty.
    """
    distances = torch.cdist(positions, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.min(dim=1)


def fuse(memory: Memory, candidates: Candidates, options: FusionOptions) -> Memory:
    """The memory after a frame: candidates near a pointer renew it, the others are pointers of their own.

    Pointers keep their row, new ones follow in the order of the candidates. A renewed pointer becomes the mean of the
    candidates nearest to it, and what it was is dropped.
    """
    distance, owner = nearest(candidates.positions, memory.positions)
    new = distance >= threshold(memory, candidates, options)
    nobody = len(memory)
    groups = torch.where(new, nobody, owner)
    counts = _counts(groups, nobody + 1)

    def fused(old: torch.Tensor, latest: torch.Tensor) -> torch.Tensor:
        means = _sums(latest, groups, counts)[:-1] / counts[:-1].clamp(min=1).unsqueeze(1)
        kept = torch.where((counts[:-1] > 0).unsqueeze(1), means.to(old.dtype), old)
        return torch.cat([kept, latest[new].to(old.dtype)])

    return Memory(
        fused(memory.positions, candidates.positions),
        fused(memory.features, candidates.features),
        fused(memory.confidence.unsqueeze(1), candidates.confidence.unsqueeze(1)).squeeze(1),
    )


def _counts(groups: torch.Tensor, number: int) -> torch.Tensor:
    """(G,) How many of `groups` (N,) are each of 0 .. `number` - 1; nothing comes back from the device for it."""
    return torch.zeros(number, dtype=torch.int64, device=groups.device).scatter_add_(0, groups, torch.ones_like(groups))


def _sums(values: torch.Tensor, groups: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(G, C) The sum of `values` (N, C) in each group, always in one order, so that it is the same on every run."""
    order = torch.argsort(groups, stable=True)
    return torch.segment_reduce(values[order].float(), "sum", lengths=counts, axis=0, unsafe=True)
