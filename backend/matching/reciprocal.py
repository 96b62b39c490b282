"""Fast reciprocal matching in its plain form, as the original has it: what `fast.py` is measured against.

Facts: arXiv 2406.09756, section 3.3, and the facts sheet, section 2. Arrays here lie on the device of the descriptors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.spatial import KDTree

from .matches import Matches, first_of_each, joined


def nearest_in_blocks(
    first: torch.Tensor, second: torch.Tensor, distance: str = "dot", block: int = 2**13
) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest neighbours both ways between (A, D) and (B, D) by comparing all with all: (A,) and (B,) int64.

    `distance` is "dot", the largest inner product, or "l2". Of several equal ones the earliest is taken. More than
    block² comparisons are made in tiles of block x block.
    """
    if distance not in ("dot", "l2"):
        raise ValueError(f"no distance {distance!r}")
    step = max(len(first), len(second)) if len(first) * len(second) <= block**2 else block
    best = [torch.full((len(side),), -torch.inf, device=side.device) for side in (first, second)]
    index = [torch.zeros(len(side), dtype=torch.int64, device=side.device) for side in (first, second)]
    for a in range(0, len(first), step):
        for b in range(0, len(second), step):
            tile_1, tile_2 = first[a : a + step], second[b : b + step]
            likeness = tile_1 @ tile_2.T if distance == "dot" else -torch.cdist(tile_1, tile_2)
            for side, (own, other) in enumerate(((a, b), (b, a))):
                value, at = likeness.max(dim=1 - side)
                part = slice(own, own + len(value))
                better = value > best[side][part]
                best[side][part] = torch.where(better, value, best[side][part])
                index[side][part] = torch.where(better, at + other, index[side][part])
    return index[0], index[1]


def nearest_in_tree(second: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """For points (A, D) the nearest among `second` (B, D) by a k-d tree on the CPU, which is built once."""
    tree = KDTree(second.cpu().numpy())
    return lambda points: torch.from_numpy(tree.query(points.cpu().numpy())[1]).to(second.device, torch.int64)


@dataclass(frozen=True)
class Walk:
    """What a reciprocal search found: `xy_1`, `xy_2` (M, 2) int64, sorted by pixel of picture 1 and then 2.

    `basin` (H1 * W1 + 1,) int64 is, for each pixel of picture 1 that a seed came through, the one it went to next; -1
    elsewhere. Its last entry belongs to no pixel.
    """

    xy_1: torch.Tensor
    xy_2: torch.Tensor
    basin: torch.Tensor


def reciprocal_walk(
    map_1: torch.Tensor,
    map_2: torch.Tensor,
    subsample: int = 8,
    seeds: torch.Tensor | None = None,
    pixel_tol: float = 0,
    rounds: int = 10,
    distance: str = "dot",
    block: int = 2**13,
) -> Walk:
    """Reciprocal nearest neighbours between descriptor maps (H1, W1, D) and (H2, W2, D) of any two sizes.

    Seeds on a grid of picture 1, one in `subsample` px, walk to their nearest in 2, back to its nearest in 1, and so
    on until they come back to where they were; those that do not within `rounds` are dropped. Given `seeds` (K, 2)
    (x, y) walk once only. With `pixel_tol` above 0 all walk once, and a seed is also kept when it comes back nearer to
    itself than that, in px; it is itself the end in picture 1. `distance` is "dot", "l2", or "tree" for a k-d tree
    (few dimensions).
    """
    flat_1, flat_2 = (m.reshape(-1, m.shape[-1]) for m in (map_1, map_2))
    width_1, width_2 = map_1.shape[1], map_2.shape[1]
    to_1, to_2 = _searches(flat_1, flat_2, distance, block)
    if seeds is None:
        seeds = seed_grid(map_1.shape[0], width_1, subsample, flat_1.device)
        rounds = 1 if pixel_tol > 0 else rounds
    else:
        rounds = 1
    own = (seeds[:, 0] + width_1 * seeds[:, 1]).unique()  # sorted
    now_1, now_2 = own.clone(), torch.full_like(own, -1)
    basin = torch.full((len(flat_1) + 1,), -1, dtype=torch.int64, device=flat_1.device)
    walking = torch.ones_like(own, dtype=torch.bool)
    for _ in range(rounds):
        active = walking.nonzero()[:, 0]
        if not len(active):
            break
        found_2 = to_2(flat_1[now_1[active]])
        moved = found_2 != now_2[active]
        basin[now_1[active[~moved]]] = now_1[active[~moved]]
        walking[active[~moved]] = False
        active = active[moved]
        now_2[active] = found_2[moved]
        found_1 = to_1(flat_2[now_2[active]])
        basin[now_1[active]] = found_1
        walking[active] = found_1 != now_1[active]
        now_1[active] = found_1
    kept = ~walking
    if pixel_tol > 0:
        kept |= (_xy(now_1, width_1) - _xy(own, width_1)).float().norm(dim=-1) < pixel_tol
        now_1 = own
    xy_1, xy_2 = _xy(now_1[kept], width_1), _xy(now_2[kept], width_2)
    first = first_of_each(xy_1, xy_2)
    return Walk(xy_1[first], xy_2[first], basin)


def _searches(
    flat_1: torch.Tensor, flat_2: torch.Tensor, distance: str, block: int
) -> tuple[Callable[[torch.Tensor], torch.Tensor], ...]:
    """How descriptors find their nearest in picture 1 and in picture 2."""
    if distance == "tree":
        return nearest_in_tree(flat_1), nearest_in_tree(flat_2)
    return tuple(lambda d, to=flat: nearest_in_blocks(d, to, distance, block)[0] for flat in (flat_1, flat_2))


def seed_grid(height: int, width: int, subsample: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """(K, 2) int64 pixels (x, y), one in each square of `subsample` px."""
    half = subsample // 2
    y = torch.arange(half, height, subsample, device=device)
    x = torch.arange(half, width, subsample, device=device)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)


def _xy(index: torch.Tensor, width: int) -> torch.Tensor:
    return torch.stack([index % width, index // width], -1)


@dataclass(frozen=True)
class Described:
    """What one decoding says of a picture: `descriptors` (H, W, D) and their `confidence` (H, W)."""

    descriptors: torch.Tensor
    confidence: torch.Tensor


def symmetric_matches(
    decodings: list[tuple[Described, Described]], subsample: int = 8, confidence: str = "geometric", **options
) -> Matches:
    """Reciprocal matches of two pictures from each decoding (picture 1, picture 2), with seeds on either picture.

    The confidence is that of the first find: "geometric", the root of the product of both ends', or "least".
    `options` are those of `reciprocal_walk`.
    """
    found = []
    for one, two in decodings:
        there = reciprocal_walk(one.descriptors, two.descriptors, subsample, **options)
        back = reciprocal_walk(two.descriptors, one.descriptors, subsample, **options)
        for xy_1, xy_2 in ((there.xy_1, there.xy_2), (back.xy_2, back.xy_1)):
            q_1, q_2 = one.confidence[xy_1[:, 1], xy_1[:, 0]], two.confidence[xy_2[:, 1], xy_2[:, 0]]
            q = (q_1 * q_2).sqrt() if confidence == "geometric" else torch.minimum(q_1, q_2)
            found.append(Matches(xy_1, xy_2, q.float()))
    return joined(found).unique()
