"""What a stream remembers of its frames as pictures, to guess a frame's pose token before it is decoded.

Facts sheet of Point3R, section 3.3. A fixed number of slots of (picture | pose token), read with a frame's picture and
a blank for its pose, written with what the decoder made of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .vit import DecoderBlock, Linear


class PoseMemory(nn.Module):
    """Slots (B, S, 2 C) are a stream's state; the parameters, under their published names, say how to use them."""

    def __init__(
        self, picture_width: int, width: int, heads: int, slots: int, depth: int = 2, mlp_ratio: int = 4
    ) -> None:
        super().__init__()
        self.masked_token = nn.Parameter(torch.zeros(1, 1, width))
        self.mem = nn.Parameter(torch.zeros(1, slots, 2 * width))
        self.proj_q = Linear(picture_width, width)
        self.write_blocks, self.read_blocks = (
            nn.ModuleList(DecoderBlock(2 * width, heads, mlp_ratio) for _ in range(depth)) for _ in range(2)
        )

    def picture(self, tokens: Tensor) -> Tensor:
        """(B, 1, C) what a frame's encoding (B, T, picture_width) is looked up by."""
        return self.proj_q(tokens.mean(1, keepdim=True)).float()

    def read(self, slots: Tensor, picture: Tensor) -> Tensor:
        """(B, 1, C) the pose token that the slots (B, S, 2 C) suggest for a picture."""
        x = torch.cat((picture, self.masked_token.expand_as(picture)), -1)
        for block in self.read_blocks:
            x = block(x, slots)
        return x[..., picture.shape[-1] :]

    def write(self, slots: Tensor, picture: Tensor, pose: Tensor) -> Tensor:
        """The slots after a frame whose decoder left the pose token `pose` (B, 1, C)."""
        known = torch.cat((picture, pose), -1)
        for block in self.write_blocks:
            slots = block(slots, known)
        return slots
