"""Nearest neighbours among the descriptors of pictures, which are compared square by square of 8 x 8 px.

On a CPU the search is exact, and most squares are never looked into: all descriptors of a square lie in a cone, which
bounds how like a query any of them can be. Elsewhere the squares are ranked in half precision, in a few large matrix
products without waiting for the device. Within the best ones pixels are compared in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, pad

SQUARE = 8
_PLACES = SQUARE**2
#: Rounding that a bound must allow for.
_SLACK = 1e-5
#: Above this share of squares that bounds leave open, comparing with all of them is faster.
_TOO_MANY = 0.15
#: Squares that half precision ranks and double precision compares: the winner's neighbours round to the same number.
_RANKED = 4
#: Queries at a time, for which memory must do; and of these, what a core's cache holds the bounds of.
_QUERIES, _PART = 2**12, 2**9
#: Queries and squares in a matrix product: within a core's cache, or as much as keeps a device busy.
_TILE_CPU, _TILE = (256, 16), (_QUERIES, 256)


@dataclass(frozen=True)
class Keys:
    """Descriptors of B pictures of one size, none longer than 1; zero where a pixel must not be found.

    `flat` (B, N, D) row by row; `squares` (B, S, 64, D) the same, square by square, zero beyond the picture's edge;
    `pixel` (S * 64,) which of the N stands there. `cones` (B, S, D + 2) are the squares' axes of length 1, then cosine
    and sine of the angle that all of a square's descriptors keep to its axis.
    """

    flat: Tensor
    squares: Tensor
    pixel: Tensor
    cones: Tensor

    def nearest(self, queries: Tensor, ranked_in: torch.dtype | None) -> tuple[Tensor, Tensor]:
        """For each of `queries` (B, Q, D) the picture's most like pixel (B, Q) int64, and its likeness (B, Q).

        The likeness is the cosine to the query, times the key's length; it is 0 or less, and the pixel any one, for a
        query of zeros, and where nothing is like it at all. Squares are ranked in the number type `ranked_in`; None,
        on a CPU only, is the exact search by bounds.
        """
        found = []
        for part in normalize(queries, dim=-1).split(_QUERIES, dim=1):
            if ranked_in is None:
                best = [_within_bounds(s, c, q) for s, c, q in zip(self.squares, self.cones, part)]
                candidates = torch.stack(best)[..., None]
            else:
                candidates = _ranked(self.squares, part, ranked_in)
            found.append(self._compared(part, candidates))
        index, likeness = (torch.cat(parts, dim=1) for parts in zip(*found))
        return index, likeness

    def _compared(self, queries: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """The best pixel (B, Q) within the squares `candidates` (B, Q, C), and its likeness.

        Neighbours may be so much alike that single precision takes the wrong one; here double costs next to nothing.
        """
        batch = torch.arange(len(queries), device=queries.device)[:, None, None]
        likeness = (self.squares[batch, candidates].double() @ queries.double()[:, :, None, :, None])[..., 0].flatten(2)
        likeness, place = likeness.max(-1)
        likeness = likeness.float()
        square = candidates.gather(-1, place[..., None] // _PLACES)[..., 0]
        return self.pixel[square * _PLACES + place % _PLACES], likeness


def keys_of(descriptors: Tensor, masks: Tensor | None = None) -> Keys:
    """Keys of the maps (B, H, W, D); pixels where `masks` (B, H, W) bool is true are never found.

    Nor are those whose descriptor is not finite.
    """
    batch, height, width, size = descriptors.shape
    length = descriptors.norm(dim=-1, keepdim=True)
    hidden = ~length.isfinite()
    if masks is not None:
        hidden |= masks[..., None]
    length = length.masked_fill(hidden, 0.0)
    longest = length.amax((1, 2, 3), keepdim=True).clamp(min=1e-30)
    descriptors = (descriptors / longest).masked_fill_(hidden, 0.0)
    pixel = torch.arange(height * width, device=descriptors.device).reshape(1, height, width, 1)
    squares, lengths, pixel = (_in_squares(maps) for maps in (descriptors, length / longest, pixel))
    axes = normalize(squares.sum(2), dim=-1)
    cosine = (squares @ axes[..., None] / lengths).nan_to_num_(1.0).amin(2).clamp(-1, 1)
    cones = torch.cat([axes, cosine, (1 - cosine**2).sqrt()], -1)
    return Keys(descriptors.reshape(batch, -1, size), squares, pixel.flatten(), cones)


def _in_squares(maps: Tensor) -> Tensor:
    """(B, H, W, D) -> (B, S, 64, D), with zeros beyond the edge."""
    maps = pad(maps, (0, 0, 0, -maps.shape[2] % SQUARE, 0, -maps.shape[1] % SQUARE))
    batch, height, width, size = maps.shape
    split = maps.reshape(batch, height // SQUARE, SQUARE, width // SQUARE, SQUARE, size)
    return split.transpose(2, 3).reshape(batch, -1, _PLACES, size)


def _ranked(squares: Tensor, queries: Tensor, dtype: torch.dtype, kept: int = _RANKED) -> Tensor:
    """(B, Q, `kept`) the squares of (B, S, 64, D) that hold the keys most like `queries` (B, Q, D)."""
    rows, step = _TILE_CPU if queries.device.type == "cpu" else _TILE
    best = []
    for tile in queries.to(dtype).split(rows, dim=1):
        parts = (part.flatten(1, 2).to(dtype).mT for part in squares.split(step, dim=1))
        best.append(torch.cat([(tile @ part).unflatten(-1, (-1, _PLACES)).amax(-1) for part in parts], -1))
    best = torch.cat(best, 1)
    return best.topk(min(kept, best.shape[-1]), dim=-1).indices


def _within_bounds(squares: Tensor, cones: Tensor, queries: Tensor) -> Tensor:
    """(Q,) which of the squares (S, 64, D) holds the key most like each of `queries` (Q, D), of length 1.

    Looks only into squares whose cone comes near enough to the query to beat what the square with the nearest axis has.
    """
    nearest, inside = [], []
    for part in queries.split(_PART):
        axis = (part @ cones[:, :-2].T).argmax(1)
        known = (squares[axis] @ part[..., None]).amax((1, 2)).clamp(0, 1)[:, None]
        known = known.where(part.any(1, keepdim=True), 1.0)  # nothing to look for
        # cos(angle to the axis) >= cos(angle to what is known + the cone's), whose two terms join the product.
        inside.append(cones @ torch.cat([part, -known, (1 - known**2).sqrt()], 1).T >= -_SLACK)
        nearest.append(axis)
    best, inside = torch.cat(nearest), torch.cat(inside, 1)
    if torch.count_nonzero(inside) > _TOO_MANY * inside.numel():
        return _ranked(squares[None], queries[None], torch.float32, kept=1)[0, :, 0]
    square, query = inside.nonzero().T
    top = torch.empty(len(query))
    some, counts = (t.tolist() for t in square.unique_consecutive(return_counts=True))
    for s, asked, answers in zip(some, queries[query].split(counts), top.split(counts)):
        torch.amax(torch.mm(asked, squares[s].T), 1, out=answers)
    highest = torch.full((len(queries),), -torch.inf).scatter_reduce_(0, query, top, "amax")
    winners = top == highest[query]
    best[query[winners]] = square[winners]
    return best
