"""Vision transformer parts: rotary positions, attention, and the blocks of encoders and decoders.

The two-view networks (MonST3R, DUSt3R, MASt3R) and the streaming one (Point3R) are built of these; attribute names are
those of the published checkpoints. Facts sheet monst3r.md, sections 2.1 to 2.4.

Tokens are (B, T, C), row-major over the patches of a picture. The residual stream may be wider than the weights: each
`Linear` takes its input to the type of its own weights, so that float32 sums of bfloat16 products need no autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Turns queries and keys (B, heads, T, head width) by the positions of their tokens; None leaves them as they are.
Rotate = Callable[[Tensor], Tensor] | None


@dataclass(frozen=True)
class Rotary2D:
    """Rotation of (B, heads, T, d) by a 2D position per token: the first half of the channels by y, the second by x.

    `cos`, `sin` (T, d/2) or (B, 1, T, d/2) float32: y's d/4 angles, then x's d/4. In either half, channel k is
    rotated together with channel k + d/4.
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        pairs = x.unflatten(-1, (2, 2, x.shape[-1] // 4))  # (y or x, first or second of the pair, angle)
        a, b = pairs[..., 0, :], pairs[..., 1, :]
        cos, sin = (t.unflatten(-1, (2, -1)) for t in (self.cos, self.sin))
        turned = torch.stack((a * cos - b * sin, b * cos + a * sin), -2)
        return turned.flatten(-3).to(x.dtype)


def rotary_2d(positions: Tensor, head_width: int, base: float = 100.0) -> Rotary2D:
    """The rotation by `positions` (T, 2) or (B, T, 2), y then x, for heads of `head_width` channels.

    RoPE100 is base 100. With D = head_width / 2, angle k of an axis is position * base^(-2k/D). Raises ValueError
    where 4 does not divide `head_width`.
    """
    if head_width % 4:
        raise ValueError(f"a 2D rotation needs heads of a multiple of 4 channels, not {head_width}")
    exponents = torch.arange(0, head_width // 2, 2, device=positions.device, dtype=torch.float32) / (head_width // 2)
    angles = (positions.float().unsqueeze(-1) * base**-exponents).flatten(-2)
    if angles.ndim == 3:
        angles = angles.unsqueeze(1)
    return Rotary2D(angles.cos(), angles.sin())


def grid_positions(grid: tuple[int, int], device: torch.device | str | None = None) -> Tensor:
    """(rows * columns, 2) int64 positions y, x of the patches of a grid (rows, columns), row-major from 0."""
    rows, columns = (torch.arange(n, device=device) for n in grid)
    return torch.cartesian_prod(rows, columns)


class Linear(nn.Linear):
    """A linear layer that takes its input to the type of its own weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class LayerNorm(nn.LayerNorm):
    """Layer norm in the type of its own weights, with the epsilon of these networks."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


class PatchEmbed(nn.Module):
    """Pictures (B, 3, H, W) to tokens (B, T, C): a convolution whose stride is its size. H, W multiples of `patch`."""

    def __init__(self, width: int, patch: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        if images.shape[-1] % self.patch or images.shape[-2] % self.patch:
            raise ValueError(f"height and width must be multiples of {self.patch}, not {tuple(images.shape[-2:])}")
        return self.proj(images.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)


class Mlp(nn.Module):
    """Two linear layers with an exact GELU between them; `out` channels where they differ from the input's."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, out or width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SelfAttention(nn.Module):
    """Attention of tokens to each other; queries and keys turned by `rotate`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, rotate: Rotate = None) -> Tensor:
        q, k, v = (_split(t, self.heads) for t in self.qkv(x).chunk(3, -1))
        return self.proj(_attend(q, k, v, rotate, rotate))


class CrossAttention(nn.Module):
    """Attention of tokens `x` to tokens `memory`; queries turned by `rotate`, keys by `rotate_memory`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(width, width)
        self.projk = Linear(width, width)
        self.projv = Linear(width, width)
        self.proj = Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, rotate: Rotate = None, rotate_memory: Rotate = None) -> Tensor:
        q, k, v = (_split(t, self.heads) for t in (self.projq(x), self.projk(memory), self.projv(memory)))
        return self.proj(_attend(q, k, v, rotate, rotate_memory))


class EncoderBlock(nn.Module):
    """Self-attention and MLP, each after a norm and onto the residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, rotate: Rotate = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotate)
        return x + self.mlp(self.norm2(x))


class DecoderBlock(nn.Module):
    """Self-attention, attention to a memory, and MLP, each after a norm and onto the residual stream."""

    def __init__(self, width: int, heads: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.attn = SelfAttention(width, heads)
        self.norm2 = LayerNorm(width)
        self.norm_y = LayerNorm(width)
        self.cross_attn = CrossAttention(width, heads)
        self.norm3 = LayerNorm(width)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor, memory: Tensor, rotate: Rotate = None, rotate_memory: Rotate = None) -> Tensor:
        x = x + self.attn(self.norm1(x), rotate)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), rotate, rotate_memory)
        return x + self.mlp(self.norm3(x))


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, heads, T, C / heads) of (B, T, C)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, rotate_q: Rotate, rotate_k: Rotate) -> Tensor:
    """(B, T, C) attention of (B, heads, T, d) queries to keys and values."""
    q = rotate_q(q) if rotate_q else q
    k = rotate_k(k) if rotate_k else k
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
