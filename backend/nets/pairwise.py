"""The two-view pointmap network of MonST3R and DUSt3R: two pictures in, two pointmaps in the first one's camera out.

Facts sheet monst3r.md, sections 1 to 3. A shared encoder, two decoders that look at each other, two heads. Pictures are
(B, 3, H, W) in -1..1, of any size whose sides are multiples of 16, portrait or landscape; the two may differ in size.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..wire import UserError
from .dpt import DPTHead
from .precision import EXACT, Precision
from .vit import DecoderBlock, EncoderBlock, LayerNorm, Linear, PatchEmbed, grid_positions, rotary_2d


@dataclass(frozen=True)
class PairwiseConfig:
    """Sizes of a two-view network; the defaults are those of the published MonST3R checkpoint."""

    img_size: tuple[int, int] = (512, 512)
    enc_embed_dim: int = 1024
    enc_depth: int = 24
    enc_num_heads: int = 16
    dec_embed_dim: int = 768
    dec_depth: int = 12
    dec_num_heads: int = 12
    head: str = "dpt"
    dpt_feature_dim: int = 256
    dpt_last_dim: int = 128
    dpt_layer_dims: tuple[int, ...] = (96, 192, 384, 768)
    patch_size: int = 16
    mlp_ratio: int = 4
    rope_base: float = 100.0

    @property
    def hooks(self) -> tuple[int, ...]:
        """Which entries of a branch's feature list the head takes."""
        n = self.dec_depth
        return (0, n // 2, 3 * n // 4, n) if self.head == "dpt" else (n,)

    @classmethod
    def from_json(cls, text: str) -> PairwiseConfig:
        """The configuration in a published config.json, whose bare Infinity the standard library reads."""
        return cls.from_fields(json.loads(text))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> PairwiseConfig:
        """The configuration in the arguments of a checkpoint, by their published names; absent ones take the default.

        Fields that do not touch inference (freeze, landscape_only, patch_embed_cls and the like) are passed over.
        Raises UserError where the arguments describe a network that this one is not.
        """
        head = fields.get("head_type", fields.get("head", "dpt"))
        position = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", str(fields.get("pos_embed", "RoPE100")))
        known = (
            ("head type", head, head in ("dpt", "linear")),
            ("position embedding", fields.get("pos_embed"), position is not None),
            ("output", fields.get("output_mode"), fields.get("output_mode", "pts3d") == "pts3d"),
            (
                "depth mode",
                fields.get("depth_mode"),
                _mode(fields, "depth_mode") in (None, ("exp", -math.inf, math.inf)),
            ),
            ("confidence mode", fields.get("conf_mode"), _mode(fields, "conf_mode") in (None, ("exp", 1.0, math.inf))),
        )
        for name, value, supported in known:
            if not supported:
                raise UserError(
                    f"The checkpoint's {name} '{value}' is not one of MonST3R or DUSt3R", "choose another checkpoint"
                )
        sizes = {name: fields[name] for name in cls.__dataclass_fields__ if name in fields and name != "head"}
        sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in sizes.items()}
        return cls(**sizes, head=head, rope_base=float(position[1]))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of patches of a picture."""
        return height // self.patch_size, width // self.patch_size


def _mode(fields: Mapping[str, Any], name: str) -> tuple[str, float, float] | None:
    """An output mode such as ["exp", 1, Infinity]; None if absent."""
    if name not in fields:
        return None
    kind, low, high = fields[name]
    return str(kind), float(low), float(high)


@dataclass(frozen=True)
class Encoded:
    """B encoded pictures: `tokens` (B, T, C) on a `grid` of (rows, columns) patches.

    `shallow` is what head 1, or head 2, makes of the tokens alone, (B, C, 4 rows, 4 columns), or None: then the head
    makes it when it is needed. View 1 goes through head 1 and view 2 through head 2.
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
            head = DenseHead(c) if c.head == "dpt" else LinearHead(c.dec_embed_dim, c.patch_size)
            self.add_module(name, head)

    @classmethod
    def from_state(
        cls, config: PairwiseConfig, state: Mapping[str, Tensor], precision: Precision = EXACT
    ) -> PairwiseNet:
        """A network for inference that takes over the tensors of a published state dict, without a copy of its own.

        Raises RuntimeError, naming the keys, where keys or shapes do not agree.
        """
        with torch.device("meta"):
            net = cls(config)
        net.load_state_dict(published_state(config, state), strict=True, assign=True)
        return net.eval().requires_grad_(False).calculating(precision)

    def calculating(self, precision: Precision) -> PairwiseNet:
        """This network, its weights brought to a precision; what was rounded before stays rounded."""
        self.precision = precision
        heads = (self.downstream_head1, self.downstream_head2)
        in_heads = {id(module) for head in heads for module in head.modules()}
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and id(module) not in in_heads:
                module.to(precision.trunk)
        for head in heads:
            head.to(precision.heads)
            if precision.channels_last:
                head.to(memory_format=torch.channels_last)
        if precision.compiled:
            for module in (*self.enc_blocks, *self.dec_blocks, *self.dec_blocks2, *heads):
                module.compile()
        return self

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

    def shallow(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor | None, Tensor | None]:
        """What head 1 and head 2 make of a frame's tokens alone, for `Encoded.shallow`; None from a linear head."""
        with self.precision.applied():
            return self.downstream_head1.shallow(tokens, grid), self.downstream_head2.shallow(tokens, grid)

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

    def _head(self, head: nn.Module, features: dict[int, Tensor], view: Encoded) -> Tensor:
        return head([features[hook] for hook in self.config.hooks], view.grid, view.shallow)

    def _rotation(self, grid: tuple[int, int], head_width: int, device: torch.device):
        return rotary_2d(grid_positions(grid, device), head_width, self.config.rope_base)


def pointmap(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, H, W, 3) and confidence (B, H, W), float32, of a head's four channels (B, 4, H, W); section 2.7."""
    raw = raw.float().movedim(1, -1)
    direction, distance = raw[..., :3], raw[..., :3].norm(dim=-1, keepdim=True)
    return direction / distance.clamp(min=1e-8) * distance.expm1(), 1 + raw[..., 3].exp()


def aliases(config: PairwiseConfig) -> dict[str, str]:
    """Published names that a .pth has for tensors which stand under another name too: {second name: name}."""
    if config.head != "dpt":
        return {}
    heads = ("downstream_head1.dpt.", "downstream_head2.dpt.")
    return {head + second: head + first for head in heads for second, first in DPTHead.ALIASES}


def published_state(config: PairwiseConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names of `PairwiseNet`: second names gone, an absent second decoder copied.

    A tensor that only has its second name takes the first. Where there is no `dec_blocks2`, both decoders start from
    the same tensors, as in checkpoints from before there were two.
    """
    state = dict(state)
    for second, first in aliases(config).items():
        if second in state:
            tensor = state.pop(second)
            state.setdefault(first, tensor)
    if not any(name.startswith("dec_blocks2.") for name in state):
        first_decoder = {name: tensor for name, tensor in state.items() if name.startswith("dec_blocks.")}
        state.update({"dec_blocks2." + name.removeprefix("dec_blocks."): t for name, t in first_decoder.items()})
    return state
