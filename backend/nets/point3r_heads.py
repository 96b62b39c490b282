"""Heads of the streaming network: points in the camera and in the world, and the camera's pose.

Facts sheet of Point3R, section 3.6; attribute names are those of the published checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dpt import DPTHead
from .pairwise import pointmap
from .point3r_config import Point3RConfig
from .vit import LayerNorm, Linear, Mlp, Rotate, SelfAttention


@dataclass(frozen=True)
class FrameMaps:
    """What the network says of B frames, float32: points (B, H, W, 3), confidence (B, H, W) from 1, poses (B, 7).

    `points_camera` are in each frame's own camera, `points_world` in the stream's world; OpenCV axes. A pose is the
    camera in the world: tx, ty, tz, then a unit quaternion w, x, y, z with w not negative.
    """

    points_camera: Tensor
    confidence_camera: Tensor
    points_world: Tensor
    confidence_world: Tensor
    pose: Tensor


class ModulatedNorm(nn.Module):
    """A norm whose shift and scale hang on the pose token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = LayerNorm(width)
        self.mlp = nn.Sequential(nn.SiLU(), Linear(width, 2 * width))

    def forward(self, x: Tensor, pose: Tensor) -> Tensor:
        shift, scale = self.mlp(pose).float().chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift


class ModulatedBlock(nn.Module):
    """Self-attention and MLP, each after a modulated norm and onto the residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ModulatedNorm(width), ModulatedNorm(width)
        self.attn = SelfAttention(width, heads)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, pose: Tensor, rotate: Rotate) -> Tensor:
        x = x + self.attn(self.norm1(x, pose), rotate)
        return x + self.mlp(self.norm2(x, pose))


class PoseHead(nn.Module):
    """Seven numbers from the pose token."""

    def __init__(self, width: int, mlp_ratio: int) -> None:
        super().__init__()
        self.mlp = Mlp(width, mlp_ratio * width, 7)


class StreamHead(nn.Module):
    """All heads: two maps, by DPT or by an MLP for each patch, and the pose; the world's map sees the pose token."""

    #: Blocks that bring the pose token into the tokens of the world's map.
    TRANSFORM_BLOCKS = 2

    def __init__(self, config: Point3RConfig) -> None:
        super().__init__()
        c, width = config, config.dec_embed_dim
        self.patch, self.dense = c.patch_size, c.head == "dpt"
        if self.dense:
            widths = (c.enc_embed_dim, *[width] * 3)
            self.dpt_self, self.dpt_cross = (
                DPTHead(widths, c.dpt_layer_dims, c.dpt_feature_dim, c.dpt_last_dim) for _ in range(2)
            )
        else:
            self.proj, self.cross_proj = (Mlp(width, c.mlp_ratio * width, 4 * c.patch_size**2) for _ in range(2))
        self.pose_head = PoseHead(width, c.mlp_ratio)
        self.final_transform = nn.ModuleList(
            ModulatedBlock(width, c.dec_num_heads, c.mlp_ratio) for _ in range(self.TRANSFORM_BLOCKS)
        )

    def forward(self, layers: list[Tensor], pose: Tensor, grid: tuple[int, int], rotate: Rotate) -> FrameMaps:
        """From the layers of image tokens (B, T, C_n) that a DPT hooks, and the pose token (B, 1, C) of the last."""
        world = layers[-1]
        for block in self.final_transform:
            world = block(world, pose, rotate)
        # One map after the other: the first one's widest layers are gone before the second one's are made.
        camera_points, camera_confidence = pointmap(self._camera_map(layers, grid))
        world_points, world_confidence = pointmap(self._world_map([*layers[:-1], world], grid))
        poses = camera_poses(self.pose_head.mlp(pose[:, 0]))
        return FrameMaps(camera_points, camera_confidence, world_points, world_confidence, poses)

    def _camera_map(self, layers: list[Tensor], grid: tuple[int, int]) -> Tensor:
        if self.dense:
            return self.dpt_self(layers, grid)
        return in_front(self._pixels(self.proj(layers[-1]), grid))

    def _world_map(self, layers: list[Tensor], grid: tuple[int, int]) -> Tensor:
        return self.dpt_cross(layers, grid) if self.dense else self._pixels(self.cross_proj(layers[-1]), grid)

    def _pixels(self, patches: Tensor, grid: tuple[int, int]) -> Tensor:
        return F.pixel_shuffle(patches.transpose(1, 2).unflatten(-1, grid), self.patch)


def in_front(raw: Tensor) -> Tensor:
    """A map (B, 4, H, W) before its exponential, its points mirrored at the camera where they are behind it."""
    return torch.cat((raw[:, :3] * raw[:, 2:3].sign(), raw[:, 3:]), 1)


def camera_poses(raw: Tensor) -> Tensor:
    """Poses (B, 7) as in `FrameMaps` of the pose head's seven numbers (B, 7)."""
    raw = raw.float()
    distance = raw[:, :3].norm(dim=-1, keepdim=True)
    translation = raw[:, :3] / distance.clamp(min=1e-8) * distance.expm1()
    quaternion = F.normalize(raw[:, 3:], dim=-1)
    return torch.cat((translation, torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)), -1)
