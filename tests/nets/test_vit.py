"""Rotary positions and attention: the laws that make them what they are."""

from __future__ import annotations

import pytest
import torch

from backend.nets.vit import CrossAttention, DecoderBlock, EncoderBlock, PatchEmbed, grid_positions, rotary_2d


def test_positions_go_row_by_row():
    assert grid_positions((2, 3)).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_first_half_of_a_head_turns_by_y_and_the_second_by_x():
    """Head of 8: y's pair (0, 2) turns by y, (1, 3) by y/10 (base 100, D = 4); 4 to 7 the same with x."""
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = x[..., 5] = 1.0
    turned = rotary_2d(torch.tensor([[2, 3]]), 8)(x)[0, 0, 0]
    expected = torch.zeros(8)
    expected[0], expected[2] = torch.tensor(2.0).cos(), torch.tensor(2.0).sin()
    expected[5], expected[7] = torch.tensor(0.3).cos(), torch.tensor(0.3).sin()
    torch.testing.assert_close(turned, expected)


def test_products_of_turned_vectors_know_only_how_far_apart_the_tokens_are():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 6, 16)
    near = torch.randint(0, 9, (6, 2))
    moved = near + torch.tensor([5, 11])
    products = [rotary_2d(p, 16)(q) @ rotary_2d(p, 16)(k).mT for p in (near, moved)]
    torch.testing.assert_close(products[0], products[1], atol=1e-4, rtol=1e-4)


def test_each_picture_of_a_batch_may_have_its_own_positions():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 8)
    positions = torch.randint(0, 9, (2, 4, 2))
    together = rotary_2d(positions, 8, base=10.0)(x)
    for b in range(2):
        torch.testing.assert_close(together[b : b + 1], rotary_2d(positions[b], 8, base=10.0)(x[b : b + 1]))


def test_a_head_that_cannot_be_split_in_pairs_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        rotary_2d(torch.zeros(1, 2), 6)


def test_cross_attention_is_the_textbook_sum():
    torch.manual_seed(0)
    layer = CrossAttention(8, 2)
    x, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    q, k, v = layer.projq(x), layer.projk(memory), layer.projv(memory)
    heads = []
    for part in (slice(0, 4), slice(4, 8)):
        weights = (q[..., part] @ k[..., part].mT / 4**0.5).softmax(-1)
        heads.append(weights @ v[..., part])
    torch.testing.assert_close(layer(x, memory), layer.proj(torch.cat(heads, -1)))


def test_a_patch_is_one_token():
    torch.manual_seed(0)
    embed = PatchEmbed(5, patch=4)
    images = torch.randn(1, 3, 8, 12)
    tokens = embed(images)
    assert tokens.shape == (1, 6, 5)
    patch = images[..., 4:8, 8:12]  # second row, third column: token 1 * 3 + 2
    torch.testing.assert_close(tokens[0, 5], embed.proj(patch)[0, :, 0, 0])


def test_a_picture_that_does_not_divide_into_patches_is_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        PatchEmbed(4)(torch.zeros(1, 3, 16, 24))


@pytest.mark.parametrize("kind", [EncoderBlock, DecoderBlock])
def test_a_block_without_output_weights_passes_the_stream_through(kind):
    """Norms stand before the layers, and what the layers say is added."""
    torch.manual_seed(0)
    block = kind(8, 2)
    for name, parameter in block.named_parameters():
        if ".proj." in name or ".fc2." in name:
            torch.nn.init.zeros_(parameter)
    x, memory = torch.randn(1, 4, 8), torch.randn(1, 6, 8)
    torch.testing.assert_close(block(x, memory) if kind is DecoderBlock else block(x), x)


def test_the_residual_stream_stays_float32_when_the_weights_are_half_as_long():
    torch.manual_seed(0)
    block = DecoderBlock(8, 2)
    x, memory = torch.randn(1, 4, 8), torch.randn(1, 6, 8)
    rotate = rotary_2d(grid_positions((2, 2)), 4)
    exact = block(x, memory, rotate)
    for module in block.modules():
        if isinstance(module, torch.nn.Linear):
            module.to(torch.bfloat16)
    rounded = block(x, memory, rotate)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.03
