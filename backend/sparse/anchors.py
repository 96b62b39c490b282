"""Anchors: the 8 x 8 blocks whose depth is solved for, and what each pixel's depth is of its block's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .canonical import BLOCK, CanonicalView
from .problem import PairMatches


@dataclass(frozen=True)
class Anchored:
    """M pixels of one frame: `xy` (M, 2) int64, `anchor` (M,) flat index of their block, row by row, and `ratio` (M,):
    a pixel's depth over that of the anchor."""

    xy: Tensor
    anchor: Tensor
    ratio: Tensor


def anchored(xy: Tensor, view: CanonicalView) -> Anchored:
    """Pixels (M, 2) (x, y) of a view at their anchors, on the view's device; specs/mast3r.md section 3.2."""
    x, y = xy.to(view.depth_ratio.device).unbind(-1)
    index = (y // BLOCK) * view.core_depth.shape[1] + x // BLOCK
    return Anchored(torch.stack([x, y], -1), index, view.depth_ratio[y, x])


def all_anchored(view: CanonicalView) -> Anchored:
    """Every pixel of a view, row by row."""
    height, width = view.depth_ratio.shape
    pixel = torch.arange(height * width, device=view.depth_ratio.device)
    return anchored(torch.stack([pixel % width, pixel // width], -1), view)


def match_pixels(views: Sequence[CanonicalView], pairs: Sequence[PairMatches]) -> list[Anchored]:
    """All match pixels of each frame, partner after partner as the pairs come; frames of no pair have none."""
    found: list[list[Tensor]] = [[] for _ in views]
    for pair in pairs:
        found[pair.i].append(pair.matches.xy_1)
        found[pair.j].append(pair.matches.xy_2)
    none = torch.zeros(0, 2, dtype=torch.int64)
    return [anchored(torch.cat(xy) if xy else none, view) for xy, view in zip(found, views)]
