"""The streaming network of Point3R: a frame and what is remembered in, points, pose and what to remember out.

Facts sheet of Point3R, section 3. An encoder; two decoders, of the picture's tokens and of the memory's, that look at
each other; heads; and an encoder of points that makes candidates for the memory. What is remembered belongs to a stream
(point3r_stream.py). Pictures are (B, 3, H, W) in -1..1, of any size whose sides are multiples of 16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checkpoint import Checkpoint, load_strictly, read_checkpoint, tied_names
from .point3r_config import Point3RConfig
from .point3r_heads import FrameMaps, StreamHead
from .pose_memory import PoseMemory
from .precision import EXACT, Precision
from .receipt import Installed
from .rope3d import Rotary3D, rotary_3d
from .vit import DecoderBlock, EncoderBlock, LayerNorm, Linear, PatchEmbed, Rotary2D, grid_positions, rotary_2d

__all__ = ["Decoded", "FrameMaps", "Placed", "Point3RConfig", "Point3RNet", "load_point3r"]


@dataclass(frozen=True)
class Placed:
    """How both decoders turn tokens by their places in the world: a frame's, its pose token aside, and the memory's."""

    picture: Rotary3D
    picture_for_memory: Rotary3D
    memory: Rotary3D
    memory_for_picture: Rotary3D


@dataclass(frozen=True)
class Decoded:
    """What the decoder made of a frame: the layers (1, T, C_n) that heads take, and the pose token (1, 1, C)."""

    layers: list[Tensor]
    pose: Tensor


class Point3RNet(nn.Module):
    """The network; its state dict has the published names, less the second names of tensors that have two."""

    def __init__(self, config: Point3RConfig) -> None:
        super().__init__()
        self.config = c = config
        self.precision = EXACT
        self.pose_token = nn.Parameter(torch.zeros(1, 1, c.dec_embed_dim))
        self.patch_embed, self.pts_patch_embed = (PatchEmbed(c.enc_embed_dim, c.patch_size) for _ in range(2))
        self.enc_blocks = self._encoder(c.enc_depth, c.enc_num_heads)
        self.enc_norm = LayerNorm(c.enc_embed_dim)
        self.decoder_embed, self.decoder_embed_memory = (Linear(c.enc_embed_dim, c.dec_embed_dim) for _ in range(2))
        self.dec_blocks, self.dec_blocks_memory = (
            nn.ModuleList(DecoderBlock(c.dec_embed_dim, heads, c.mlp_ratio) for _ in range(c.dec_depth))
            for heads in (c.dec_num_heads, c.memory_dec_num_heads)
        )
        self.dec_norm = LayerNorm(c.dec_embed_dim)
        self.dec_norm_memory = LayerNorm(c.dec_embed_dim)  # as the last memory block: published, and changes nothing
        self.pose_retriever = PoseMemory(
            c.enc_embed_dim, c.dec_embed_dim, c.dec_num_heads, c.local_mem_size, mlp_ratio=c.mlp_ratio
        )
        self.value_encoder = self._encoder(c.value_depth, c.value_num_heads)
        self.value_norm = LayerNorm(c.enc_embed_dim)
        self.value_out = Linear(c.enc_embed_dim, c.enc_embed_dim)
        both = c.enc_embed_dim + c.dec_embed_dim
        self.memory_attn_head = nn.Sequential(Linear(both, both), nn.GELU(), Linear(both, c.enc_embed_dim))
        self.downstream_head = StreamHead(c)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        """The network of a checkpoint, for inference, its tensors still in the file.

        Raises UserError, naming what differs, where it is another network's.
        """
        with torch.device("meta"):
            net = cls(Point3RConfig.from_fields(checkpoint.config))
        load_strictly(net, checkpoint, tied_names(net.state_dict()))
        return net.eval().requires_grad_(False)

    @classmethod
    def from_state(cls, config: Point3RConfig, state: Mapping[str, Tensor], precision: Precision = EXACT) -> Self:
        """A network for inference that takes over the tensors of a published state dict, without a copy of its own.

        Raises UserError, naming what differs, where names or shapes do not agree.
        """
        with torch.device("meta"):
            net = cls(config)
        load_strictly(net, state, tied_names(net.state_dict()))
        return net.eval().requires_grad_(False).calculating(precision)

    def calculating(self, precision: Precision) -> Self:
        """This network, its weights brought to a precision; what was rounded before stays rounded.

        World coordinates go in, and the pose comes out, in float32 at any precision.
        """
        head = self.downstream_head
        maps = [head.dpt_self, head.dpt_cross] if head.dense else [head.proj, head.cross_proj]
        exact = [self.pts_patch_embed, head.pose_head]
        aside = {id(module) for each in (*maps, *exact) for module in each.modules()}
        for module in self.modules():
            if id(module) not in aside and isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(precision.trunk)
            if isinstance(module, nn.LayerNorm):
                module.float()
        for each in maps:
            each.to(precision.heads)
            if precision.channels_last:
                each.to(memory_format=torch.channels_last)
        if precision.compiled and not self.precision.compiled:
            for module in (*self.enc_blocks, *self.value_encoder, *maps):
                module.compile()
            for module in (*self.dec_blocks, *self.dec_blocks_memory):
                module.compile(dynamic=True)  # the memory has another length after every frame
        self.precision = precision
        return self

    def encode(self, images: Tensor) -> Tensor:
        """Tokens (B, T, enc_embed_dim) float32 of pictures (B, 3, H, W) in -1..1."""
        with self.precision.applied():
            rotate = self.encoder_rotation(self.config.grid(*images.shape[-2:]), images.device)
            x = self.patch_embed(images).float()
            for block in self.enc_blocks:
                x = block(x, rotate)
            return self.enc_norm(x)

    def encoder_rotation(self, grid: tuple[int, int], device: torch.device) -> Rotary2D:
        """How the picture's encoder turns its tokens: in float32, where the original has half precision."""
        return self._rotation(grid, self.config.enc_embed_dim // self.config.enc_num_heads, device)

    def placed(self, patches: Tensor, pointers: Tensor) -> Placed:
        """The turns of a frame whose patches are about at `patches` (T, 3) in the world, and of pointers (P, 3)."""
        c = self.config
        wide, narrow = (c.dec_embed_dim // heads for heads in (c.dec_num_heads, c.memory_dec_num_heads))
        return Placed(
            rotary_3d(patches, wide, unmoved=1),
            rotary_3d(patches, narrow, unmoved=1),
            rotary_3d(pointers, narrow),
            rotary_3d(pointers, wide),
        )

    def first(self, tokens: Tensor) -> Decoded:
        """A stream's first frame, of which there is nothing to remember: it looks at its own tokens, without places."""
        with self.precision.applied():
            return self._decode(tokens, self.pose_token, self.decoder_embed_memory(tokens).float(), None)

    def later(self, tokens: Tensor, pose: Tensor, features: Tensor, placed: Placed) -> Decoded:
        """Any other frame, with the pose token (1, 1, C) that its picture suggests and pointers' features (P, C)."""
        with self.precision.applied():
            return self._decode(tokens, pose, features[None], placed)

    def levels(
        self, tokens: Tensor, pose: Tensor, memory: Tensor, placed: Placed | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """After each level its tokens (1, 1 + T, C), pose token first, and the memory (1, P, C) that they looked at.

        The memory's last level is never made: no output hangs on it.
        """
        x = torch.cat((pose, self.decoder_embed(tokens).float()), 1)
        picture, picture_for_memory, own, memory_for_picture = (
            (placed.picture, placed.picture_for_memory, placed.memory, placed.memory_for_picture)
            if placed
            else [None] * 4
        )
        for level, (block, memory_block) in enumerate(zip(self.dec_blocks, self.dec_blocks_memory), 1):
            seen = x
            x = block(x, memory, picture, memory_for_picture)
            yield x, memory
            if level < self.config.dec_depth:
                memory = memory_block(memory, seen, own, picture_for_memory)

    def heads(self, decoded: Decoded, grid: tuple[int, int]) -> FrameMaps:
        """Points, confidence and pose of a decoded frame on a grid of (rows, columns) patches."""
        c = self.config
        with self.precision.applied():
            rotate = self._rotation(grid, c.dec_embed_dim // c.dec_num_heads, decoded.pose.device)
            return self.downstream_head(decoded.layers, decoded.pose, grid, rotate)

    def value(self, points_world: Tensor) -> Tensor:
        """(1, T, enc_embed_dim) what the points (1, H, W, 3) of each patch are like."""
        c = self.config
        grid = c.grid(*points_world.shape[1:3])
        rotate = self._rotation(grid, c.enc_embed_dim // c.value_num_heads, points_world.device)
        x = self.pts_patch_embed(points_world.movedim(-1, 1)).float()
        for block in self.value_encoder:
            x = block(x, rotate)
        return self.value_out(self.value_norm(x)).float()

    def remembered(self, tokens: Tensor, decoded: Decoded, points_world: Tensor) -> Tensor:
        """(T, C) features of a frame's patches, for the memory: of its encoding, its decoding and its points."""
        with self.precision.applied():
            appearance = self.memory_attn_head(torch.cat((tokens, decoded.layers[-1]), -1))
            return self.decoder_embed_memory(appearance + self.value(points_world))[0].float()

    def patch_means(self, dense: Tensor) -> Tensor:
        """(T, C) means over each patch of a map (1, H, W, C)."""
        return F.avg_pool2d(dense.movedim(-1, 1), self.config.patch_size)[0].flatten(1).mT

    def frame_bytes(self, height: int, width: int, pointers: int) -> int:
        """What a frame of a size needs beside the weights, from the largest tensors that are alive together."""
        c, p = self.config, self.precision
        tokens = math.prod(c.grid(height, width))
        trunk, heads = p.trunk.itemsize, p.heads.itemsize
        # An MLP's hidden layer before and after the GELU, beside the residual stream, its norm, queries, keys, values.
        block = 8 + 3 * trunk + 2 * c.mlp_ratio * trunk
        encode = tokens * c.enc_embed_dim * block
        kept = tokens * 4 * (c.enc_embed_dim + len(c.hooks) * c.dec_embed_dim)
        turned = 4 * 8 * c.dec_embed_dim * (tokens + pointers) // min(c.dec_num_heads, c.memory_dec_num_heads)
        decode = kept + turned + (max(tokens, pointers) * block + pointers * 8) * c.dec_embed_dim
        widest = height * width * (heads * (3 * c.dpt_last_dim + c.dpt_feature_dim // 4) if c.head == "dpt" else 32)
        return max(encode, decode, kept + widest + 48 * height * width)

    def _decode(self, tokens: Tensor, pose: Tensor, memory: Tensor, placed: Placed | None) -> Decoded:
        layers = {0: tokens}
        for level, (x, _) in enumerate(self.levels(tokens, pose, memory, placed), 1):
            if level == self.config.dec_depth:
                x = self.dec_norm(x)
            if level in self.config.hooks:
                layers[level] = x[:, 1:]
        return Decoded([layers[hook] for hook in self.config.hooks], x[:, :1])

    def _encoder(self, depth: int, heads: int) -> nn.ModuleList:
        c = self.config
        return nn.ModuleList(EncoderBlock(c.enc_embed_dim, heads, c.mlp_ratio) for _ in range(depth))

    def _rotation(self, grid: tuple[int, int], head_width: int, device: torch.device) -> Rotary2D:
        return rotary_2d(grid_positions(grid, device), head_width, self.config.rope_base)


def load_point3r(installed: Installed) -> Point3RNet:
    """The streaming network of an installed checkpoint. Raises UserError where it is damaged, or another network's."""
    return Point3RNet.from_checkpoint(read_checkpoint(installed.checkpoint, installed.model.title))
