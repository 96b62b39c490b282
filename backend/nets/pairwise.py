"""The two-view pointmap network of MonST3R and DUSt3R: two pictures in, two pointmaps in the first one's camera out.

Facts sheet monst3r.md, sections 1 to 3. A shared encoder, two decoders that look at each other, two heads. Pictures are
(B, 3, H, W) in -1..1, of any size whose sides are multiples of 16, portrait or landscape; the two may differ in size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_strictly
from .dpt import DPTHead
from .pairwise_config import PairwiseConfig, aliases, published_state
from .precision import EXACT, Precision
from .vit import DecoderBlock, EncoderBlock, LayerNorm, Linear, PatchEmbed, Rotary2D, grid_positions, rotary_2d

__all__ = [
    "Encoded",
    "MemoryNeeds",
    "PairwiseConfig",
    "PairwiseNet",
    "Pointmaps",
    "aliases",
    "pointmap",
    "published_state",
]


@dataclass(frozen=True)
class Encoded:
    """B encoded pictures: `tokens` (B, T, C) on a `grid` of (rows, columns) patches.

    `shallow` is what the view's head makes of the tokens alone (`PairwiseNet.shallow`), or None: then it is made when
    it is needed.
    """

    tokens: Tensor
    grid: tuple[int, int]
    shallow: Tensor | None = None


@dataclass(frozen=True)
class Pointmaps:
    """What the network says of B pairs, float32; facts sheet, section 2.7.

    `pts3d_1` (B, H1, W1, 3) view 1 in its own camera, `pts3d_2` (B, H2, W2, 3) view 2 in view 1's camera, both x right,
    y down, z forward at a scale of the pair's own; `conf_1` (B, H1, W1), `conf_2` (B, H2, W2), above 1.
    """

    pts3d_1: Tensor
    conf_1: Tensor
    pts3d_2: Tensor
    conf_2: Tensor


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes: a frame's `tokens` and one head's `shallow` map as kept, and what is alive to `encode` or `pair` one."""

    tokens: int
    shallow: int
    encode: int
    pair: int


class LinearHead(nn.Module):
    """Four channels for each pixel of a patch, from its token."""

    def __init__(self, width: int, patch: int, out_channels: int = 4) -> None:
        super().__init__()
        self.patch = patch
        self.proj = Linear(width, out_channels * patch**2)

    def shallow(self, tokens: Tensor, grid: tuple[int, int]) -> None:
        """Nothing here hangs on one frame alone."""

    def forward(self, layers: list[Tensor], grid: tuple[int, int], shallow: None = None) -> Tensor:
        return F.pixel_shuffle(self.proj(layers[0]).transpose(1, 2).unflatten(-1, grid), self.patch)


class DenseHead(nn.Module):
    """A DPT head below the name `dpt`, where the published checkpoints have it."""

    def __init__(self, config: PairwiseConfig) -> None:
        super().__init__()
        widths = (config.enc_embed_dim, *[config.dec_embed_dim] * 3)
        self.dpt = DPTHead(widths, config.dpt_layer_dims, config.dpt_feature_dim, config.dpt_last_dim)

    def shallow(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.dpt.shallow(tokens, grid)

    def forward(self, layers: list[Tensor], grid: tuple[int, int], shallow: Tensor | None = None) -> Tensor:
        return self.dpt(layers, grid, shallow)


class PairwiseNet(nn.Module):
    """The network; its state dict has the published names, less the second names of `aliases`."""

    Config: ClassVar[type[PairwiseConfig]] = PairwiseConfig

    def __init__(self, config: PairwiseConfig) -> None:
        super().__init__()
        self.config = c = config
        self.precision = EXACT
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.dec_embed_dim))  # of the pre-training; unused
        self.patch_embed = PatchEmbed(c.enc_embed_dim, c.patch_size)
        self.enc_blocks = nn.ModuleList(
            EncoderBlock(c.enc_embed_dim, c.enc_num_heads, c.mlp_ratio) for _ in range(c.enc_depth)
        )
        self.enc_norm = LayerNorm(c.enc_embed_dim)
        self.decoder_embed = Linear(c.enc_embed_dim, c.dec_embed_dim)
        self.dec_blocks, self.dec_blocks2 = (
            nn.ModuleList(DecoderBlock(c.dec_embed_dim, c.dec_num_heads, c.mlp_ratio) for _ in range(c.dec_depth))
            for _ in range(2)
        )
        self.dec_norm = LayerNorm(c.dec_embed_dim)
        for name in ("downstream_head1", "downstream_head2"):
            self.add_module(name, self._new_head())

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """The network of a checkpoint, for inference, its tensors still in the file.

        Raises UserError, naming what differs, where it is another network's.
        """
        with torch.device("meta"):
            net = cls(cls.Config.from_fields(checkpoint.config))
        load_strictly(net, checkpoint, aliases(net.config))
        return net.eval().requires_grad_(False)

    @classmethod
    def from_state(cls, config: PairwiseConfig, state: Mapping[str, Tensor], precision: Precision = EXACT) -> Self:
        """A network for inference that takes over the tensors of a published state dict, without a copy of its own.

        Raises RuntimeError, naming the keys, where keys or shapes do not agree.
        """
        with torch.device("meta"):
            net = cls(config)
        net.load_state_dict(published_state(config, state), strict=True, assign=True)
        return net.eval().requires_grad_(False).calculating(precision)

    def calculating(self, precision: Precision) -> Self:
        """This network, its weights brought to a precision; what was rounded before stays rounded."""
        heads = (self.downstream_head1, self.downstream_head2)
        in_heads = {id(module) for head in heads for module in head.modules()}
        for module in self.modules():
            if id(module) not in in_heads and isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(precision.trunk)
            if isinstance(module, nn.LayerNorm):
                module.float()
        for head in heads:
            head.to(precision.heads)
            if precision.channels_last:
                head.to(memory_format=torch.channels_last)
        if precision.compiled and not self.precision.compiled:
            for module in (*self.enc_blocks, *self.dec_blocks, *self.dec_blocks2, *heads):
                module.compile()
        self.precision = precision
        return self

    def _new_head(self) -> nn.Module:
        c = self.config
        return DenseHead(c) if c.head == "dpt" else LinearHead(c.dec_embed_dim, c.patch_size)

    def forward(self, img1: Tensor, img2: Tensor) -> Pointmaps:
        """Both views' pointmaps of pictures (B, 3, H, W) in -1..1."""
        if img1.shape == img2.shape:
            tokens1, tokens2 = self.encode(torch.cat((img1, img2))).chunk(2)
        else:
            tokens1, tokens2 = self.encode(img1), self.encode(img2)
        grids = (self.config.grid(*img.shape[-2:]) for img in (img1, img2))
        view1, view2 = (Encoded(tokens, grid) for tokens, grid in zip((tokens1, tokens2), grids))
        return self.pair(view1, view2)

    def encode(self, images: Tensor) -> Tensor:
        """Tokens (B, T, enc_embed_dim) float32 of pictures (B, 3, H, W) in -1..1."""
        with self.precision.applied():
            grid = self.config.grid(*images.shape[-2:])
            rotate = self._rotation(grid, self.config.enc_embed_dim // self.config.enc_num_heads, images.device)
            x = self.patch_embed(images).float()
            for block in self.enc_blocks:
                x = block(x, rotate)
            return self.enc_norm(x)

    def shallow(self, view: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """What the head of view 1, or 2, makes of frames' tokens alone, for `Encoded.shallow`; None if linear."""
        head = self.downstream_head1 if view == 1 else self.downstream_head2
        with self.precision.applied():
            return head.shallow(tokens, grid)

    def pair(self, view1: Encoded, view2: Encoded) -> Pointmaps:
        """Both views' pointmaps of B encoded pairs."""
        features1, features2 = self.decode(view1, view2)
        with self.precision.applied():
            # One head after the other: the first one's maps are gone before the second one's are made.
            points1, confidence1 = pointmap(self._head(self.downstream_head1, features1, view1))
            points2, confidence2 = pointmap(self._head(self.downstream_head2, features2, view2))
        return Pointmaps(points1, confidence1, points2, confidence2)

    def decode(
        self, view1: Encoded, view2: Encoded, keep: Iterable[int] | None = None
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """The feature lists of both branches (facts sheet, section 2.4), by index: those of `keep`, or the heads' own.

        Entry 0 is the encoder's output, entry k that of decoder level k, the last after the norm.
        """
        kept = set(self.config.hooks if keep is None else keep)
        depth, head_width = self.config.dec_depth, self.config.dec_embed_dim // self.config.dec_num_heads
        lists: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
        with self.precision.applied():
            rotate_a, rotate_b = (self._rotation(v.grid, head_width, v.tokens.device) for v in (view1, view2))
            a, b = (self.decoder_embed(view.tokens).float() for view in (view1, view2))
            for level, (block_a, block_b) in enumerate(zip(self.dec_blocks, self.dec_blocks2), 1):
                a, b = block_a(a, b, rotate_a, rotate_b), block_b(b, a, rotate_b, rotate_a)
                for features, x in zip(lists, (a, b)):
                    if level in kept:
                        features[level] = self.dec_norm(x) if level == depth else x
        if 0 in kept:
            for features, view in zip(lists, (view1, view2)):
                features[0] = view.tokens
        return lists

    def memory_needs(self, height: int, width: int) -> MemoryNeeds:
        """What pictures of a size need at this precision, from the largest tensors that are alive together."""
        c, p = self.config, self.precision
        tokens = math.prod(c.grid(height, width))
        trunk, heads = p.trunk.itemsize, p.heads.itemsize
        # An MLP's hidden layer before and after the GELU, beside the residual stream, its norm, queries, keys, values.
        encode = tokens * c.enc_embed_dim * (8 + 3 * trunk + 2 * c.mlp_ratio * trunk)
        decode = 2 * tokens * c.dec_embed_dim * (8 + 4 * len(c.hooks) + 3 * trunk + 2 * c.mlp_ratio * trunk)
        if c.head == "linear":
            return MemoryNeeds(tokens * c.enc_embed_dim * p.tokens.itemsize, 0, encode, decode + 64 * height * width)
        shallow = tokens * 16 * c.dpt_feature_dim * heads
        # The widest place: last_dim maps at full size, before and after a convolution and once more as its workspace.
        widest = height * width * heads * (3 * c.dpt_last_dim + c.dpt_feature_dim // 4)
        pair = decode + 2 * shallow + widest + 48 * height * width
        return MemoryNeeds(tokens * c.enc_embed_dim * p.tokens.itemsize, shallow, encode, pair)

    def _head(self, head: nn.Module, features: dict[int, Tensor], view: Encoded) -> Tensor:
        return head([features[hook] for hook in self.config.hooks], view.grid, view.shallow)

    def _rotation(self, grid: tuple[int, int], head_width: int, device: torch.device) -> Rotary2D:
        return rotary_2d(grid_positions(grid, device), head_width, self.config.rope_base)


def pointmap(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, H, W, 3) and confidence (B, H, W), float32, of a head's four channels (B, 4, H, W); section 2.7."""
    raw = raw.float().movedim(1, -1)
    direction, distance = raw[..., :3], raw[..., :3].norm(dim=-1, keepdim=True)
    return direction / distance.clamp(min=1e-8) * distance.expm1(), 1 + raw[..., 3].exp()
