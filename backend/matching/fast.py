"""Reciprocal matches of pairs of pictures, all pairs at once: what the engines use.

The walk of `reciprocal.py` with another search (`search.py`), which looks one way only: from seeds to the most like
pixel of the other picture, back, and on, until two pixels are each other's nearest. On a CPU the nearest are exact, so
the matches are those of the plain walk. Elsewhere no round waits for the device: rounds have places for as many seeds
as usually still walk, and a seed that finds none is dropped, as is one that walks for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .matches import Matches, joined
from .reciprocal import Described, seed_grid
from .search import Keys, keys_of


class DescribedView(Protocol):
    """`descriptors` (H, W, D) of a view and their confidence (H, W), as `sparse.views.View` has them."""

    @property
    def descriptors(self) -> Tensor: ...
    @property
    def descriptor_confidence(self) -> Tensor: ...


class DescribedPair(Protocol):
    """Frames i and j as described in both decodings, (ii, ji) and (jj, ij): a `sparse.views.SymmetricPair`."""

    @property
    def ii(self) -> DescribedView: ...
    @property
    def ji(self) -> DescribedView: ...
    @property
    def jj(self) -> DescribedView: ...
    @property
    def ij(self) -> DescribedView: ...


#: What each decoding says of picture 1 and of picture 2.
Decodings = Sequence[tuple[Described, Described]]
#: Where nothing of picture 1 and of picture 2 may be matched: (H, W) bool, or None.
Masks = tuple[Tensor | None, Tensor | None]

_ROUNDS = 10
#: The share of seeds that a round has places for, there and back, where the device is not asked how many still walk.
#: Of the benchmark's seeds 0.86 and 0.41 walk in the second round, 0.16 and 0.05 in the third, 0.02 in the fourth.
_PLACES = ((1.0, 1.0), (1.0, 0.6), (0.4, 0.2), (0.1, 0.1))


def match_views(pair: DescribedPair, mask_i: Tensor | None = None, mask_j: Tensor | None = None, **options) -> Matches:
    """Matches of frames i and j; (H, W) bool masks are true where nothing may be matched; options of `match_batch`."""
    return match_batch([pair], [(mask_i, mask_j)], **options)[0]


def match_batch(
    pairs: Sequence[DescribedPair], masks: Sequence[Masks] | None = None, together: bool = False, **options
) -> list[Matches]:
    """Matches of frames i and j of each pair, whose pictures have one size; options of `match_described`.

    Each decoding is searched for itself, as in the original; or `together`: the likeness of two pixels is then the mean
    of both decodings', and their confidence too.
    """
    decodings = [[(_described(p.ii), _described(p.ji)), (_described(p.ij), _described(p.jj))] for p in pairs]
    if together:
        decodings = [[tuple(_together(*views) for views in zip(*d))] for d in decodings]
    return match_described(decodings, masks, **options)


def match_described(
    pictures: Sequence[Decodings],
    masks: Sequence[Masks] | None = None,
    subsample: int = 8,
    border: int = 3,
    least_confidence: float = 0.0,
    ranked_in: torch.dtype | None = None,
) -> list[Matches]:
    """Matches of each pair of pictures; the first ones have one size, the second ones another or the same.

    Two matched pixels are each other's nearest in a decoding. Their confidence is the root of the product of both ends'
    in that decoding, the first one that found them. Seeds are laid in every square of `subsample` px of either picture.
    Ends less than `border` px inside a picture, and confidences below `least_confidence`, are dropped. `ranked_in` is
    the number type of the search, by default float16, and on a CPU the exact search.
    """
    if not pictures:
        return []
    masks = masks or [(None, None)] * len(pictures)
    keys_1, keys_2 = (_keys(pictures, masks, side) for side in (0, 1))
    sizes = [p.confidence.shape[::-1] for p in pictures[0][0]]
    device = keys_1.flat.device
    seeds = [_index(seed_grid(height, width, subsample, device), width) for width, height in sizes]
    there = _walk(keys_1, keys_2, seeds[0], ranked_in)
    back = _walk(keys_2, keys_1, seeds[1], ranked_in).swapped()
    found, row = [], 0
    for decodings in pictures:
        parts = []
        for one, two in decodings:
            for walked in (there, back):
                parts.append(_matches(walked, row, one, two))
            row += 1
        matches = joined(parts).without_border(*sizes, border)
        found.append(matches.where(matches.confidence >= least_confidence).unique())
    return found


def match_seeds(
    one: Described, two: Described, seeds: Tensor, pixel_tol: float = 5.0, masks: Masks = (None, None)
) -> Matches:
    """The pixels of picture 2 most like the `seeds` (K, 2) int64 (x, y) of picture 1, of one decoding.

    Those only from which the way back ends at the seed, or nearer to it than `pixel_tol` px; the confidence is the
    lesser of both ends'. For pixels whose points in space are known (facts sheet, section 4).
    """
    keys_1, keys_2 = (_keys([[(one, two)]], [masks], side) for side in (0, 1))
    width_1, width_2 = (p.confidence.shape[1] for p in (one, two))
    walked = _walk(keys_1, keys_2, _index(seeds, width_1), None, rounds=1)
    away = (_xy(walked.index_1[0], width_1) - seeds).float().norm(dim=-1)
    keep = ~walked.lost[0] & ((away == 0) | (away < pixel_tol))
    xy_1, xy_2 = seeds[keep], _xy(walked.index_2[0, keep], width_2)
    return Matches(xy_1, xy_2, torch.minimum(_at(one, xy_1), _at(two, xy_2))).unique()


@dataclass(frozen=True)
class _Walked:
    """Where K seeds of B pairs of pictures ended, (B, K): pixels of either, whether they are each other's nearest, and
    whether the seed came to a pixel that nothing in the other picture is like."""

    index_1: Tensor
    index_2: Tensor
    met: Tensor
    lost: Tensor

    def swapped(self) -> _Walked:
        return _Walked(self.index_2, self.index_1, self.met, self.lost)


def _walk(keys_1: Keys, keys_2: Keys, seeds: Tensor, ranked_in: torch.dtype | None, rounds: int = _ROUNDS) -> _Walked:
    """Seeds (K,) of picture 1 walk there and back until they meet, at most `rounds` times."""
    if ranked_in is None and seeds.device.type != "cpu":
        ranked_in = torch.float16
    index_1 = seeds.repeat(len(keys_1.flat), 1)
    index_2 = torch.full_like(index_1, -1)
    met, lost = torch.zeros_like(index_1, dtype=torch.bool), torch.zeros_like(index_1, dtype=torch.bool)
    for number in range(rounds):
        places = _PLACES[min(number, len(_PLACES) - 1)]
        for share, here, ours, beyond, theirs in (
            (places[0], keys_1, index_1, keys_2, index_2),
            (places[1], keys_2, index_2, keys_1, index_1),
        ):
            slots, walks = _places(~(met | lost), None if ranked_in is None else share)
            if not slots.shape[1]:
                return _Walked(index_1, index_2, met, lost)
            asked = here.flat.gather(1, _wide(ours.gather(1, slots), here)) * walks[..., None]
            found, likeness = beyond.nearest(asked, ranked_in)
            before = theirs.gather(1, slots)
            found = found.where(walks, before)
            lost.scatter_(1, slots, lost.gather(1, slots) | (walks & (likeness <= 0)))
            met.scatter_(1, slots, met.gather(1, slots) | (walks & (likeness > 0) & (found == before)))
            theirs.scatter_(1, slots, found)
    return _Walked(index_1, index_2, met, lost)


def _places(walking: Tensor, share: float | None) -> tuple[Tensor, Tensor]:
    """(B, P) which of the seeds (B, K) a round works on, those that walk first, and (B, P) whether one walks.

    P is a `share` of K, or None: as many as are needed, for which the device must have come so far.
    """
    count = int(walking.sum(1).max()) if share is None else math.ceil(share * walking.shape[1])
    slots = walking.byte().argsort(dim=1, descending=True, stable=True)[:, :count]
    return slots, walking.gather(1, slots)


def _matches(walked: _Walked, row: int, one: Described, two: Described) -> Matches:
    """What one of the pairs of pictures has in common."""
    met = walked.met[row]
    xy_1 = _xy(walked.index_1[row, met], one.confidence.shape[1])
    xy_2 = _xy(walked.index_2[row, met], two.confidence.shape[1])
    return Matches(xy_1, xy_2, (_at(one, xy_1) * _at(two, xy_2)).sqrt())


def _keys(pictures: Sequence[Decodings], masks: Sequence[Masks], side: int) -> Keys:
    """The keys of picture 1 (`side` 0) or 2 of each pair and decoding, one after the other."""
    maps = [decoding[side].descriptors for decodings in pictures for decoding in decodings]
    if all(mask[side] is None for mask in masks):
        return keys_of(torch.stack(maps))
    nothing = torch.zeros(maps[0].shape[:2], dtype=torch.bool, device=maps[0].device)
    each = [nothing if mask[side] is None else mask[side].to(nothing.device) for mask in masks]
    return keys_of(torch.stack(maps), torch.stack([m for m, decodings in zip(each, pictures) for _ in decodings]))


def _described(view: DescribedView) -> Described:
    return Described(view.descriptors, view.descriptor_confidence)


def _together(first: Described, second: Described) -> Described:
    """Two decodings as one: inner products are the sum of both, confidence is the geometric mean."""
    descriptors = torch.cat([first.descriptors, second.descriptors], -1)
    return Described(descriptors, (first.confidence * second.confidence).sqrt())


def _wide(index: Tensor, keys: Keys) -> Tensor:
    return index[..., None].expand(-1, -1, keys.flat.shape[-1])


def _index(xy: Tensor, width: int) -> Tensor:
    return xy[:, 0] + width * xy[:, 1]


def _xy(index: Tensor, width: int) -> Tensor:
    return torch.stack([index % width, index // width], -1)


def _at(picture: Described, xy: Tensor) -> Tensor:
    return picture.confidence[xy[:, 1], xy[:, 0]].float()
