"""How well descriptors tell which pixels belong together: the criteria that matching networks are trained by.

As measures of a checkpoint, on pairs of pictures with known matches. Facts sheet of MASt3R, section 5. Match n of pair
b joins `descriptors_1[b, n]` with `descriptors_2[b, n]`; every other descriptor of the pair is a wrong answer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Temperatures and weight of published trainings.
TEMPERATURE, ALL_TEMPERATURE, CONFIDENCE_WEIGHT = 0.05, 0.07, 10.0
#: No answer is taken to be less likely than this.
_LEAST = math.log(1e-8)


def at_pixels(maps: Tensor, xy: Tensor) -> Tensor:
    """(B, N, ...) values of (B, H, W, ...) maps at (B, N, 2) whole pixels x, y."""
    pair = torch.arange(len(maps), device=maps.device)[:, None]
    return maps[pair, xy[..., 1], xy[..., 0]]


def surprise(descriptors_1: Tensor, descriptors_2: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """(B, N) InfoNCE: -log of a match's share among all answers of either picture, one picture after the other."""
    rows, columns = _shares(descriptors_1, descriptors_2, temperature)
    return -rows.clamp(min=_LEAST) - columns.clamp(min=_LEAST)


def dual_surprise(descriptors_1: Tensor, descriptors_2: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """(B, N) the same with the product of both shares taken as one."""
    rows, columns = _shares(descriptors_1, descriptors_2, temperature)
    return -(rows + columns).clamp(min=_LEAST)


def surprise_among_all(descriptors_1: Tensor, descriptors_2: Tensor, temperature: float = ALL_TEMPERATURE) -> Tensor:
    """(B, N) the same with one share: that among all answers to all questions of the pair."""
    alike = descriptors_1 @ descriptors_2.mT / temperature
    share = alike.diagonal(dim1=-2, dim2=-1) - alike.flatten(1).logsumexp(-1, keepdim=True)
    return -share.clamp(min=_LEAST)


def average_precision(descriptors_1: Tensor, descriptors_2: Tensor) -> Tensor:
    """(B, N) of (B, N, D) and (B, N or more, D): 1 over the place of the right answer, by likeness; 1 is the best.

    What lies beyond N is more wrong answers. Of answers that are equally alike the right one is counted first.
    """
    alike = descriptors_1 @ descriptors_2.mT
    right = alike.diagonal(dim1=-2, dim2=-1)[..., None]
    return 1 / (1 + (alike > right).sum(-1))


def unmatched(descriptors: Tensor, xy: Tensor, count: int) -> Tensor:
    """(B, count, D) of (B, H, W, D): the first pixels, row by row, that none of (B, N, 2) matches ends at.

    Raises ValueError where a picture has fewer.
    """
    width = descriptors.shape[2]
    free = torch.ones(descriptors.shape[:3], dtype=torch.bool, device=descriptors.device).flatten(1)
    free.scatter_(1, xy[..., 0] + width * xy[..., 1], value=False)
    if int(free.sum(1).min()) < count:
        raise ValueError(f"a picture has fewer than {count} pixels without a match")
    chosen = free & (free.cumsum(1) <= count)
    return descriptors.flatten(1, 2)[chosen].view(len(descriptors), count, -1)


def weighed(error: Tensor, confidence: Tensor, weight: float = CONFIDENCE_WEIGHT) -> Tensor:
    """What an error costs that comes with a confidence c: c error - weight log c, least for c = weight / error."""
    return confidence * error - weight * confidence.log()


def _shares(descriptors_1: Tensor, descriptors_2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(B, N) logarithms of each match's softmax over the answers in picture 2 and over those in picture 1."""
    alike = descriptors_1 @ descriptors_2.mT / temperature
    right = alike.diagonal(dim1=-2, dim2=-1)
    return right - alike.logsumexp(-1), right - alike.logsumexp(-2)
