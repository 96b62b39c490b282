"""The search by squares finds what comparing with every pixel finds, whatever the descriptors look like."""

import pytest
import torch

from backend.matching import search
from backend.matching.search import keys_of


def random_map(height: int, width: int, size: int = 24, seed: int = 0) -> torch.Tensor:
    """(1, H, W, D): every pixel a direction of its own, so that squares tell nothing."""
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(1, height, width, size, generator=generator), dim=-1)


def smooth_map(height: int, width: int, seed: int = 0, scale: int = 8) -> torch.Tensor:
    """(1, H, W, 24) that changes smoothly over the picture, altogether within some `scale` px."""
    coarse = random_map(height // scale + 1, width // scale + 1, seed=seed).movedim(-1, 1)
    fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").movedim(1, -1)
    return torch.nn.functional.normalize(fine, dim=-1)


def exhaustive(keys: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """(B, Q) the largest inner product that there is."""
    return (queries.double() @ keys.flatten(1, 2).double().mT).amax(-1)


def likeness_at(keys: torch.Tensor, index: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    flat = keys.flatten(1, 2).double()
    found = flat.gather(1, index[..., None].expand(-1, -1, flat.shape[-1]))
    return (found * queries.double()).sum(-1)


@pytest.mark.parametrize("make", [random_map, smooth_map])
@pytest.mark.parametrize("size", [(48, 64), (45, 51), (8, 8), (3, 5), (1, 1), (16, 200)])
def test_by_bounds_the_nearest_is_the_nearest(make, size):
    keys, queries = make(*size), random_map(1, 90, seed=1)[:, 0]
    index, likeness = keys_of(keys).nearest(queries, None)
    positive = exhaustive(keys, queries) > 0
    torch.testing.assert_close(
        likeness_at(keys, index, queries)[positive], exhaustive(keys, queries)[positive], atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        likeness.double().clamp(min=0), exhaustive(keys, queries).clamp(min=0), atol=1e-5, rtol=0
    )


def test_most_squares_of_a_smooth_picture_are_never_looked_into(monkeypatch):
    keys = smooth_map(96, 128, scale=32)
    queries = torch.nn.functional.normalize(
        keys[0, ::4, ::4].reshape(1, -1, 24) + 0.1 * random_map(1, 768)[:, 0], dim=-1
    )
    monkeypatch.setattr(search, "_TOO_MANY", 0.1)
    monkeypatch.setattr(search, "_ranked", None)  # what compares with all squares
    index, _ = keys_of(keys).nearest(queries, None)
    torch.testing.assert_close(likeness_at(keys, index, queries), exhaustive(keys, queries), atol=1e-6, rtol=0)


def test_keys_of_other_lengths_keep_their_order():
    keys = smooth_map(40, 40) * torch.linspace(0.2, 3, 40)[None, :, None, None]
    queries = 5 * random_map(1, 60, seed=2)[:, 0]
    index, _ = keys_of(keys).nearest(queries, None)
    torch.testing.assert_close(likeness_at(keys, index, queries), exhaustive(keys, queries), atol=1e-5, rtol=0)


@pytest.mark.parametrize("ranked_in", [None, torch.float32])
def test_what_is_masked_is_never_found(ranked_in):
    keys = smooth_map(40, 48)
    mask = torch.zeros(1, 40, 48, dtype=torch.bool)
    mask[:, 10:30, 5:33] = True
    queries = keys[0, 12:28, 7:31].reshape(1, -1, 24)  # what is most like them is under the mask
    index, likeness = keys_of(keys, mask).nearest(queries, ranked_in)
    assert not mask.flatten(1)[0, index[0, likeness[0] > 0]].any()
    left = keys.masked_fill(mask[..., None], 0.0)
    torch.testing.assert_close(likeness.double().clamp(min=0), exhaustive(left, queries), atol=1e-6, rtol=0)


def test_nothing_is_like_a_masked_picture():
    keys = smooth_map(16, 16)
    index, likeness = keys_of(keys, torch.ones(1, 16, 16, dtype=torch.bool)).nearest(keys.flatten(1, 2), None)
    assert likeness.abs().max() == 0
    assert index.min() >= 0
    assert index.max() < 256


def test_ranking_in_single_precision_is_exact_and_in_half_within_its_rounding():
    keys = smooth_map(48, 64)
    queries = torch.nn.functional.normalize(keys.flatten(1, 2)[:, ::7] + 0.1 * random_map(1, 439, seed=3)[:, 0], dim=-1)
    best = exhaustive(keys, queries)
    for number_type, tolerance in ((torch.float32, 1e-6), (torch.float16, 2e-3)):
        index, _ = keys_of(keys).nearest(queries, number_type)
        torch.testing.assert_close(likeness_at(keys, index, queries), best, atol=tolerance, rtol=0)
    assert (likeness_at(keys, index, queries) > best - 1e-6).float().mean() > 0.99  # in half, too, nearly always


def test_pictures_of_a_batch_do_not_see_each_other():
    pictures = torch.cat([smooth_map(24, 32, seed=s) for s in range(3)])
    queries = random_map(3, 50, seed=4)[0]
    for ranked_in in (None, torch.float32):
        index, likeness = keys_of(pictures).nearest(queries, ranked_in)
        for b in range(3):
            alone, alike = keys_of(pictures[b : b + 1]).nearest(queries[b : b + 1], ranked_in)
            assert torch.equal(index[b], alone[0])
            torch.testing.assert_close(likeness[b], alike[0])


def test_more_queries_than_one_go():
    keys = smooth_map(24, 32)
    queries = random_map(1, 5000, seed=5)[:, 0]
    index, _ = keys_of(keys).nearest(queries, None)
    assert index.shape == (1, 5000)
    torch.testing.assert_close(likeness_at(keys, index, queries), exhaustive(keys, queries), atol=1e-6, rtol=0)
