"""What a stream remembers: pointers, which are places in the world with features, and how a new frame is fused in.

Method: Point3R (Wu et al. 2025, arXiv 2507.02863), facts sheet section 3.8, own code. Ours beyond it: a box that far
points do not inflate, doubtful candidates left out, renewal by confidence, and pointers that go when a frame sees
through them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch

from .sight import Sight

#: How far a frame must see past a pointer to see through it, in the logarithm of depth.
PAST = 0.1


@dataclass(frozen=True)
class FusionOptions:
    """How candidates become pointers. `ORIGINAL` is Point3R as published; `OURS` is better where that is weak.

    `near`: the share of the scene's diagonal within which two places are one. `tail`: the share of all places, at
    either end of each axis, that the scene's box may leave out; 0 for the least box around all. `doubtful`: the share
    of a frame's candidates, the least confident ones, that are not remembered. `weighted`: a renewed pointer is a mean
    by confidence of what it was and of what is new; otherwise only what is new counts. `life`: how many frames may see
    through a pointer before it goes, 0 for pointers that stay for ever. `most_read`: how many pointers the decoder is
    shown at most, 0 for all of them.
    """

    near: float = 1 / 20
    tail: float = 0.0
    doubtful: float = 0.0
    weighted: bool = False
    life: int = 0
    most_read: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.tail < 0.5 and 0 <= self.doubtful < 1 and self.near > 0):
            raise ValueError(f"not a way to fuse: {self}")
        if self.life == 1:
            raise ValueError("a life of one frame ends pointers that the same frame has renewed; the least is 2")


ORIGINAL = FusionOptions()
OURS = FusionOptions(tail=0.05, doubtful=0.25, weighted=True, life=3)


@dataclass(frozen=True)
class Candidates:
    """What one frame would remember: `positions` (N, 3) in the world, `features` (N, C), `confidence` (N,) from 1."""

    positions: torch.Tensor
    features: torch.Tensor
    confidence: torch.Tensor


@dataclass(frozen=True)
class Memory:
    """The pointers of a stream, all on one device, with the oldest first.

    `positions` (P, 3), `features` (P, C), `confidence` (P,), and `seen_through` (P,) int64: by how many frames since
    one found something there.
    """

    positions: torch.Tensor
    features: torch.Tensor
    confidence: torch.Tensor
    seen_through: torch.Tensor

    @classmethod
    def of(cls, candidates: Candidates, options: FusionOptions) -> Memory:
        """The memory after the first frame: all that it has to say."""
        sure = without_doubtful(candidates, options)
        fresh = torch.zeros(len(sure.positions), dtype=torch.int64, device=sure.positions.device)
        return cls(sure.positions, sure.features, sure.confidence, fresh)

    def __len__(self) -> int:
        return self.positions.shape[0]

    def to(self, device: torch.device | str) -> Memory:
        """The same on another device."""
        return Memory(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def part(self, which: torch.Tensor) -> Memory:
        """The pointers in the rows `which` (n,) int, in that order."""
        return Memory(**{field.name: getattr(self, field.name)[which] for field in fields(self)})


def without_doubtful(candidates: Candidates, options: FusionOptions) -> Candidates:
    """The candidates in their order, but for the share that is doubtful."""
    kept = round(len(candidates.positions) * (1 - options.doubtful))
    if kept == len(candidates.positions):
        return candidates
    rows = torch.topk(candidates.confidence, max(kept, 1)).indices.sort().values
    return Candidates(candidates.positions[rows], candidates.features[rows], candidates.confidence[rows])


def threshold(memory: Memory, candidates: Candidates, options: FusionOptions) -> torch.Tensor:
    """() How near is the same place: a share of the diagonal of the box around pointers and candidates.

    With tails, the box between the quantiles is enlarged as if places were spread evenly.
    """
    both = torch.cat([memory.positions, candidates.positions])
    if options.tail:
        ends = torch.tensor([options.tail, 1 - options.tail], dtype=both.dtype, device=both.device)
        low, high = torch.quantile(both, ends, dim=0)
        extent = (high - low) / (1 - 2 * options.tail)
    else:
        extent = both.amax(0) - both.amin(0)
    return torch.linalg.vector_norm(extent * options.near)


def nearest(positions: torch.Tensor, others: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N,) the distance of each position (N, 3) to the nearest of `others` (P, 3), and (N,) which that is.

    Distances are of differences, never by the shorter matrix product: in reduced precision that one takes the wrong
    neighbour for about one in fifty.
    """
    distances = torch.cdist(positions, others, compute_mode="donot_use_mm_for_euclid_dist")
    return distances.min(dim=1)


def fuse(memory: Memory, candidates: Candidates, options: FusionOptions) -> Memory:
    """The memory after a frame: candidates near a pointer renew it, the others are pointers of their own.

    Pointers keep their row, new ones follow in the order of the candidates.
    """
    candidates = without_doubtful(candidates, options)
    distance, owner = nearest(candidates.positions, memory.positions)
    is_new = distance >= threshold(memory, candidates, options)
    new = is_new.nonzero()[:, 0]  # the one thing that the host must wait for: how many there are
    nobody = len(memory)
    groups = torch.where(is_new, nobody, owner)
    counts = torch.zeros(nobody + 1, dtype=torch.int64, device=groups.device)
    counts.scatter_add_(0, groups, torch.ones_like(groups))
    order = torch.argsort(groups, stable=True)  # sums are then always in one order, and the same on every run

    def sums(values: torch.Tensor) -> torch.Tensor:
        ordered = values[order].float().contiguous()
        return torch.segment_reduce(ordered, "sum", lengths=counts, axis=0, unsafe=True)[:-1]

    renewed = counts[:-1] > 0
    said = candidates.confidence if options.weighted else torch.ones_like(candidates.confidence)
    weight = sums(said.unsqueeze(1)).clamp(min=torch.finfo(torch.float32).tiny)
    # What a pointer was counts as one candidate of its confidence, so that no age makes it deaf to what is new.
    before = memory.confidence.unsqueeze(1) if options.weighted else torch.zeros_like(weight)
    now = weight / counts[:-1].clamp(min=1).unsqueeze(1) if options.weighted else torch.ones_like(weight)

    def fused(old: torch.Tensor, latest: torch.Tensor) -> torch.Tensor:
        mean = sums(latest * said.unsqueeze(1)) / weight
        both = (before * old + now * mean) / (before + now)
        return torch.cat([torch.where(renewed.unsqueeze(1), both.to(old.dtype), old), latest[new].to(old.dtype)])

    return Memory(
        fused(memory.positions, candidates.positions),
        fused(memory.features, candidates.features),
        fused(memory.confidence.unsqueeze(1), candidates.confidence.unsqueeze(1)).squeeze(1),
        torch.cat([torch.where(renewed, 0, memory.seen_through), torch.zeros_like(new)]),
    )


def forget(memory: Memory, sight: Sight, options: FusionOptions) -> Memory:
    """The memory without pointers that frames have seen through: things that have moved, or never were there.

    Called after `fuse` with what the same frame sees. A pointer that a candidate of a frame renews begins a new life.
    """
    if not options.life:
        return memory
    look = sight.look(memory.positions)
    through = look.through(PAST)
    there = look.visible(PAST) & ~through
    seen_through = torch.where(there, 0, memory.seen_through + through)
    alive = (seen_through < options.life).nonzero()[:, 0]
    return Memory(memory.positions, memory.features, memory.confidence, seen_through).part(alive)


def readable(memory: Memory, around: torch.Tensor, options: FusionOptions) -> Memory:
    """What the decoder is shown: all pointers, or as many as it may see, in their order.

    Four of five are those nearest to `around` (N, 3), the places of the frame before; the others are spread evenly
    over the rest, from the oldest to the latest, so that a place seen long ago is known again.
    """
    if not options.most_read or len(memory) <= options.most_read:
        return memory
    near = options.most_read * 4 // 5
    distance, _ = nearest(memory.positions, around)
    by_distance = distance.argsort(stable=True)
    rest = by_distance[near:].sort().values
    spread = torch.linspace(0, len(rest) - 1, options.most_read - near, device=rest.device).round().long()
    return memory.part(torch.cat([by_distance[:near], rest[spread]]).sort().values)
