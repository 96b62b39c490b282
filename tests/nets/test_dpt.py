"""The DPT head: sizes, and what it makes once a frame."""

from __future__ import annotations

import pytest
import torch

from backend.nets.dpt import DPTHead, Fusion


@pytest.fixture(scope="module")
def head() -> DPTHead:
    torch.manual_seed(0)
    return DPTHead((10, 6, 6, 6), (4, 6, 8, 12), feature_dim=8, last_dim=6, out_channels=5).requires_grad_(False)


def layers(grid: tuple[int, int], batch: int = 2) -> list[torch.Tensor]:
    return [torch.randn(batch, grid[0] * grid[1], width) for width in (10, 6, 6, 6)]


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (7, 5), (1, 3)])
def test_the_map_has_a_pixel_for_each_of_a_patch_of_16(head, grid):
    """Also where a side has an odd number of patches, so that the coarsest layer does not divide evenly."""
    assert head(layers(grid), grid).shape == (2, 5, 16 * grid[0], 16 * grid[1])


def test_shallow_is_all_that_the_first_layer_gives(head):
    """With it given, the first layer's tokens are not looked at."""
    torch.manual_seed(1)
    tokens, grid = layers((5, 7)), (5, 7)
    shallow = head.shallow(tokens[0], grid)
    assert shallow.shape == (2, 8, 20, 28)
    torch.testing.assert_close(head([None, *tokens[1:]], grid, shallow), head(tokens, grid))


def test_every_layer_counts(head):
    torch.manual_seed(1)
    grid = (4, 6)
    tokens = layers(grid)
    whole = head(tokens, grid)
    for n in range(4):
        changed = [t + (k == n) for k, t in enumerate(tokens)]
        assert (head(changed, grid) - whole).abs().max() > 1e-4


def test_the_projection_after_a_fusion_may_stand_before_the_interpolation():
    """As in the paper it comes after; the order does not matter, and before there are a quarter of the pixels."""
    torch.manual_seed(1)
    fusion = Fusion(8).requires_grad_(False)
    x, finer = torch.randn(2, 1, 8, 5, 7)
    wide = torch.nn.functional.interpolate(
        fusion.resConfUnit2(x + finer), scale_factor=2, mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(fusion(x, finer), fusion.out_conv(wide), atol=1e-6, rtol=1e-5)


def test_channels_last_gives_the_same(head):
    torch.manual_seed(1)
    tokens, grid = layers((3, 5)), (3, 5)
    other = DPTHead((10, 6, 6, 6), (4, 6, 8, 12), feature_dim=8, last_dim=6, out_channels=5).requires_grad_(False)
    other.load_state_dict(head.state_dict())
    other.to(memory_format=torch.channels_last)
    torch.testing.assert_close(other(tokens, grid), head(tokens, grid), atol=1e-5, rtol=1e-5)
