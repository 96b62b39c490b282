"""DPT head (Ranftl et al. 2021): four layers of tokens become a dense map of the picture's size.

Facts sheet monst3r.md, section 2.5; attribute names are those of the published checkpoints. What hangs on the first
layer alone, which in the two-view networks is the encoder's output and so a matter of one frame, is `shallow`: computed
once a frame, it serves every pair that the frame is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualConvUnit(nn.Module):
    """x + conv(relu(conv(relu x))), 3 x 3."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x)), inplace=True))


class Fusion(nn.Module):
    """Adds a finer layer to a coarser one, and doubles the size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_conv = nn.Conv2d(width, width, 1)
        self.resConfUnit1 = ResidualConvUnit(width)  # unused in the coarsest fusion, yet part of every checkpoint
        self.resConfUnit2 = ResidualConvUnit(width)

    def forward(self, x: Tensor, finer: Tensor | None = None) -> Tensor:
        """`finer` has already been through `resConfUnit1`."""
        if finer is not None:
            x = x + finer
        # A 1 x 1 convolution and an interpolation commute, so it is done at a quarter of the pixels.
        return _doubled(self.out_conv(self.resConfUnit2(x)))


class Scratch(nn.Module):
    """The layers at one width, and their fusion from coarse to fine."""

    def __init__(self, layer_dims: Sequence[int], width: int) -> None:
        super().__init__()
        for n, dim in enumerate(layer_dims, 1):
            self.add_module(f"layer{n}_rn", nn.Conv2d(dim, width, 3, padding=1, bias=False))
        for n in range(1, 5):
            self.add_module(f"refinenet{n}", Fusion(width))


class DPTHead(nn.Module):
    """From tokens of four depths, (B, T, C_n) each, to (B, out_channels, H, W).

    `token_dims` are the C_n, `layer_dims` the widths after reassembly at strides 4, 8, 16 and 32 of patches of 16,
    `feature_dim` the width of the fusion, `last_dim` that of the last layers.
    """

    #: State-dict names that published .pth files also have, below a head, for tensors that stand under another name.
    ALIASES = tuple((f"scratch.layer_rn.{n}.weight", f"scratch.layer{n + 1}_rn.weight") for n in range(4))

    def __init__(
        self,
        token_dims: Sequence[int],
        layer_dims: Sequence[int] = (96, 192, 384, 768),
        feature_dim: int = 256,
        last_dim: int = 128,
        out_channels: int = 4,
    ) -> None:
        super().__init__()
        widths = list(zip(token_dims, layer_dims, strict=True))
        projections = [nn.Conv2d(tokens, width, 1) for tokens, width in widths]
        self.act_postprocess = nn.ModuleList(
            [
                nn.Sequential(projections[0], nn.ConvTranspose2d(layer_dims[0], layer_dims[0], 4, stride=4)),
                nn.Sequential(projections[1], nn.ConvTranspose2d(layer_dims[1], layer_dims[1], 2, stride=2)),
                nn.Sequential(projections[2]),
                nn.Sequential(projections[3], nn.Conv2d(layer_dims[3], layer_dims[3], 3, stride=2, padding=1)),
            ]
        )
        self.scratch = Scratch(layer_dims, feature_dim)
        self.head = nn.Sequential(
            nn.Conv2d(feature_dim, last_dim, 3, padding=1),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(last_dim, last_dim, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last_dim, out_channels, 1),
        )

    def shallow(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, feature_dim, 4 rows, 4 columns) of the first layer's tokens (B, rows * columns, C): all that needs it."""
        return self.scratch.refinenet1.resConfUnit1(self._layer(0, tokens, grid))

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int], shallow: Tensor | None = None) -> Tensor:
        """The map of four layers of tokens on a grid of (rows, columns) patches, in the type of the head's weights.

        The first layer is not looked at where its `shallow` is given.
        """
        if shallow is None:
            shallow = self.shallow(layers[0], grid)
        scratch = self.scratch
        second, third, fourth = (self._layer(n, layers[n], grid) for n in (1, 2, 3))
        x = scratch.refinenet4(fourth)[..., : third.shape[-2], : third.shape[-1]]  # odd grids come back one larger
        x = scratch.refinenet3(x, scratch.refinenet3.resConfUnit1(third))
        x = scratch.refinenet2(x, scratch.refinenet2.resConfUnit1(second))
        x = scratch.refinenet1(x, shallow.to(x.dtype))
        return self.head(x)

    def _layer(self, n: int, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Layer n of tokens (B, T, C_n) as a map of `feature_dim` channels at its stride."""
        weight = self.act_postprocess[n][0].weight
        picture = tokens.to(weight.dtype).transpose(1, 2).unflatten(-1, grid)  # channels last in memory as it comes
        return self.scratch.get_submodule(f"layer{n + 1}_rn")(self.act_postprocess[n](picture))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
