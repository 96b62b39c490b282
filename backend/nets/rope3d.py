"""Positions in space for attention: queries and keys turned by a point of the world for each token.

Facts sheet of Point3R, section 3.5. The published map is the mean of four turns, one for each base. Each is linear in
what it turns, so the mean is one turn with mean cosines and sines: made once for a set of tokens and a head width, and
used in every layer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

#: The bases whose turns are averaged: from coarse positions to fine ones.
BASES = (10.0, 100.0, 1000.0, 10000.0)


@dataclass(frozen=True)
class Rotary3D:
    """Turns (B, heads, T, d) by a position per token, in float32; what is in bfloat16 comes back so.

    `cos`, `sin` (T, d) float32: channel k is turned together with channel `partner`[k], by a sign that is in `sin`.
    """

    cos: Tensor
    sin: Tensor
    partner: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return (x * self.cos + x.index_select(-1, self.partner) * self.sin).to(x.dtype)


def rotary_3d(positions: Tensor, head_width: int, unmoved: int = 0) -> Rotary3D:
    """The turn by `positions` (T, 3) for heads of `head_width` channels; `unmoved` tokens before them stay as they are.

    Raises ValueError for heads of fewer than 6 channels, two for each axis.
    """
    axis, frequencies, sign, partner = (torch.from_numpy(each).to(positions.device) for each in _layout(head_width))
    angles = positions.float()[:, axis, None] * frequencies  # (T, d, bases)
    cos, sin = angles.cos().mean(-1), angles.sin().mean(-1) * sign
    still = cos.new_ones(unmoved, head_width), sin.new_zeros(unmoved, head_width)
    return Rotary3D(torch.cat((still[0], cos)), torch.cat((still[1], sin)), partner)


@functools.cache
def _layout(head_width: int) -> tuple[np.ndarray, ...]:
    """For each channel its axis (d,), frequencies (d, bases), and the sign (d,) and channel (d,) of its partner.

    x and y have a third of the channels each, z what is left. Where such a part is odd, its second half is the smaller
    one and no channel's partner has it for its own: no rotation, but what the published weights were trained with.
    """
    if head_width < 6:
        raise ValueError(f"a position in space needs heads of at least 6 channels, not {head_width}")
    third = head_width // 3
    parts, start = [], 0
    for axis, width in enumerate((third, third, head_width - 2 * third)):
        half = (width + 1) // 2
        exponents = np.tile(2 * np.arange(half) / width, 2)[:width]
        frequencies = np.asarray(BASES) ** -exponents[:, None]
        sign = np.where(np.arange(width) < width - half, -1.0, 1.0)
        partner = start + np.roll(np.arange(width), -half)
        parts.append((np.full(width, axis), frequencies.astype(np.float32), sign.astype(np.float32), partner))
        start += width
    return tuple(np.concatenate(each) for each in zip(*parts))
