"""The matching network of MASt3R: two pictures in, metric pointmaps, and a descriptor of every pixel to match them by.

Facts sheet mast3r.md, section 1. Encoder, decoders and DPT head are those of `PairwiseNet`; beside the DPT stands, for
each view, an MLP that makes the descriptors of a patch's pixels from its tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .checkpoint import read_checkpoint
from .mast3r_config import MatchingConfig
from .pairwise import DenseHead, Encoded, MemoryNeeds, PairwiseNet, Pointmaps, pointmap
from .receipt import Installed
from .vit import Mlp

__all__ = ["MatchingConfig", "MatchingHead", "MatchingNet", "MatchingViews", "descriptors", "load_mast3r", "to_pixels"]


@dataclass(frozen=True)
class MatchingViews(Pointmaps):
    """What the network says of B pairs, float32: pointmaps in metres, and what to match the two views by.

    `desc_1` (B, H1, W1, D), `desc_2` (B, H2, W2, D) of unit length, to be compared by their product; `desc_conf_1`
    (B, H1, W1), `desc_conf_2` (B, H2, W2), at least 0.
    """

    desc_1: Tensor
    desc_2: Tensor
    desc_conf_1: Tensor
    desc_conf_2: Tensor


class MatchingHead(DenseHead):
    """A DPT head for the points, and an MLP over a patch's tokens, first and last, for its pixels' descriptors."""

    #: Width of the MLP's hidden layer, in widths of its input.
    HIDDEN = 4

    def __init__(self, config: MatchingConfig) -> None:
        super().__init__(config)
        self.patch = config.patch_size
        width = config.enc_embed_dim + config.dec_embed_dim
        self.head_local_features = Mlp(width, self.HIDDEN * width, config.local_channels * self.patch**2)

    def forward(
        self, layers: list[Tensor], grid: tuple[int, int], shallow: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The DPT's map (B, 4, H, W), and local features (B, H, W, local_channels)."""
        raw = super().forward(layers, grid, shallow)
        local = self.head_local_features(torch.cat((layers[0], layers[-1]), -1))
        return raw, to_pixels(local, grid, self.patch)


class MatchingNet(PairwiseNet):
    """The network; its state dict has the published names, less the second names of `aliases`."""

    Config: ClassVar[type[MatchingConfig]] = MatchingConfig
    config: MatchingConfig

    def _new_head(self) -> nn.Module:
        return MatchingHead(self.config)

    def pair(self, view1: Encoded, view2: Encoded) -> MatchingViews:
        """Both views' pointmaps and descriptors of B encoded pairs."""
        features1, features2 = self.decode(view1, view2)
        with self.precision.applied():
            one = self._maps(self.downstream_head1, features1, view1)
            two = self._maps(self.downstream_head2, features2, view2)
        return MatchingViews(*one[:2], *two[:2], one[2], two[2], one[3], two[3])

    def memory_needs(self, height: int, width: int) -> MemoryNeeds:
        """What pictures of a size need at this precision, from the largest tensors that are alive together."""
        c, p = self.config, self.precision
        needs = super().memory_needs(height, width)
        tokens, pixels = math.prod(c.grid(height, width)), height * width
        hidden = MatchingHead.HIDDEN * (c.enc_embed_dim + c.dec_embed_dim)
        # Both views' maps as the head leaves them and as they are handed on; the MLP of one view, GELU and all.
        kept = 2 * 2 * pixels * c.local_channels * 4
        mlp = tokens * p.heads.itemsize * (2 * hidden + c.local_channels * c.patch_size**2)
        return MemoryNeeds(needs.tokens, needs.shallow, needs.encode, needs.pair + kept + mlp)

    def _maps(self, head: nn.Module, features: dict[int, Tensor], view: Encoded) -> tuple[Tensor, ...]:
        """One view's points, confidence, descriptors and their confidence."""
        raw, local = self._head(head, features, view)
        points, confidence = pointmap(raw)
        return points, confidence, *descriptors(local, confidence, self.config)


def to_pixels(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, H, W, C) of patches (B, rows * columns, C * patch^2), whose channels run over C, then rows, then columns."""
    split = patches.unflatten(1, grid).unflatten(-1, (-1, patch, patch))  # (B, rows, columns, C, y, x)
    return split.permute(0, 1, 4, 2, 5, 3).flatten(3, 4).flatten(1, 2)


def descriptors(local: Tensor, confidence: Tensor, config: MatchingConfig) -> tuple[Tensor, Tensor]:
    """Descriptors (B, H, W, D) of unit length and their confidence (B, H, W), float32, of a head's local features.

    `confidence` (B, H, W) is that of the points. A feature of length 0 has no direction, and becomes NaN.
    """
    direction = local[..., : config.descriptor_dim].float()
    direction = direction / direction.norm(dim=-1, keepdim=True)
    if not config.two_confs:
        return direction, confidence
    low, high = config.desc_conf_range
    return direction, low + local[..., config.descriptor_dim].float().exp().clamp(max=high - low)


def load_mast3r(installed: Installed) -> MatchingNet:
    """The matching network of an installed checkpoint. Raises UserError where it is damaged, or another network's."""
    return MatchingNet.from_checkpoint(read_checkpoint(installed.checkpoint, installed.model.title))
