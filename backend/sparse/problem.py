"""What a sparse alignment is given: canonical views of the frames, and matches between pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..matching.matches import Matches
from .canonical import BLOCK, CanonicalView
from .views import SymmetricPair, View


@dataclass(frozen=True)
class PairMatches:
    """Matches of frames i < j: `matches.xy_1` lie in i, `matches.xy_2` in j."""

    i: int
    j: int
    matches: Matches


@dataclass(frozen=True)
class WeakView:
    """Frame `seen`'s pixels (::8, ::8) in the camera of frame `from_`: `points` (H/8, W/8, 3), `confidence` (H/8, W/8).

    All that is kept of a pair's pointmaps in the other's camera, for pairs whose matches are too weak.
    """

    seen: int
    from_: int
    points: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, seen: int, from_: int, view: View) -> WeakView:
        """A copy, so that the view itself can go."""
        return cls(seen, from_, view.points[::BLOCK, ::BLOCK].clone(), view.confidence[::BLOCK, ::BLOCK].clone())


def weak_views(pair: SymmetricPair) -> list[WeakView]:
    """Both of a pair: i's pixels in camera j, then j's in camera i."""
    return [WeakView.of(pair.i, pair.j, pair.ij), WeakView.of(pair.j, pair.i, pair.ji)]


@dataclass(frozen=True)
class SparseProblem:
    """N canonical `views` of `size` (width, height), multiples of 8; the `pairs` that were asked, each once, i < j.

    `weak` has two views of each pair (`weak_views`), in any order, or none: then nothing stands in for weak pairs.
    Raises ValueError for a view of another size, a pair that is not i < j of these frames or comes twice, and for
    matches outside the picture.
    """

    views: Sequence[CanonicalView]
    pairs: Sequence[PairMatches]
    size: tuple[int, int]
    weak: Sequence[WeakView] = field(default=())

    def __post_init__(self) -> None:
        width, height = self.size
        for n, view in enumerate(self.views):
            if tuple(view.depth_ratio.shape) != (height, width):
                raise ValueError(f"view {n} has {list(view.depth_ratio.shape)} pixels, expected {[height, width]}")
        seen = set()
        for pair in self.pairs:
            if not 0 <= pair.i < pair.j < len(self.views) or (pair.i, pair.j) in seen:
                raise ValueError(f"({pair.i}, {pair.j}) is no pair of {len(self.views)} frames, or comes twice")
            seen.add((pair.i, pair.j))
            end = torch.tensor(self.size, device=pair.matches.xy_1.device)
            for xy in (pair.matches.xy_1, pair.matches.xy_2):
                if bool(((xy < 0) | (xy >= end)).any()):
                    raise ValueError(f"a match of ({pair.i}, {pair.j}) lies outside the picture")
