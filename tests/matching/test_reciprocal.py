"""The plain reciprocal walk, held to what comparing every pixel with every other one gives."""

import pytest
import torch

from backend.matching.reciprocal import Described, nearest_in_blocks, reciprocal_walk, seed_grid, symmetric_matches


def maps(size_1=(20, 28), size_2=(24, 18), seed=0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two maps of random descriptors (H, W, 6) of unit length."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.nn.functional.normalize(torch.randn(*s, 6, generator=generator), dim=-1) for s in (size_1, size_2)
    )


def mutual(map_1: torch.Tensor, map_2: torch.Tensor) -> set[tuple[int, ...]]:
    """All (x_1, y_1, x_2, y_2) that are each other's most like."""
    likeness = map_1.flatten(0, 1).double() @ map_2.flatten(0, 1).double().T
    there, back = likeness.argmax(1), likeness.argmax(0)
    pairs = [(i, int(j)) for i, j in enumerate(there) if back[j] == i]
    w_1, w_2 = map_1.shape[1], map_2.shape[1]
    return {(i % w_1, i // w_1, j % w_2, j // w_2) for i, j in pairs}


def as_set(*ends: torch.Tensor) -> set[tuple[int, ...]]:
    return set(map(tuple, torch.cat(ends, 1).tolist()))


def test_with_a_seed_in_every_pixel_all_mutual_nearest_are_found_once():
    map_1, map_2 = maps()
    walk = reciprocal_walk(map_1, map_2, subsample=1)
    assert as_set(walk.xy_1, walk.xy_2) == mutual(map_1, map_2)
    assert len(walk.xy_1) == len(mutual(map_1, map_2))


def test_few_seeds_find_some_of_them_sorted_by_picture_1():
    map_1, map_2 = maps()
    walk = reciprocal_walk(map_1, map_2, subsample=4)
    found = as_set(walk.xy_1, walk.xy_2)
    assert found < mutual(map_1, map_2)
    assert 10 < len(found) <= len(seed_grid(20, 28, 4)) == 35
    index = walk.xy_1[:, 0] + 28 * walk.xy_1[:, 1]
    assert index.tolist() == sorted(index.tolist())


def test_each_step_of_the_walk_is_in_the_basin():
    map_1, map_2 = maps()
    walk = reciprocal_walk(map_1, map_2, subsample=4)
    there, back = nearest_in_blocks(map_1.flatten(0, 1), map_2.flatten(0, 1))
    seeds = seed_grid(20, 28, 4)
    came_through = (walk.basin >= 0).nonzero()[:, 0]
    assert set((seeds[:, 0] + 28 * seeds[:, 1]).tolist()) <= set(came_through.tolist())
    assert torch.equal(walk.basin[came_through], back[there[came_through]])
    assert len(walk.basin) == 20 * 28 + 1


@pytest.mark.parametrize("distance", ["dot", "l2"])
def test_tiles_change_nothing(distance):
    first, second = (m.flatten(0, 1) for m in maps())
    whole = nearest_in_blocks(first, second, distance)
    tiled = nearest_in_blocks(first, second, distance, block=37)
    assert all(torch.equal(a, b) for a, b in zip(whole, tiled))


def test_of_equal_ones_the_earliest_is_taken():
    first = torch.tensor([[1.0, 0.0]])
    second = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    for block in (1, 2, 100):
        there, back = nearest_in_blocks(first, second, block=block)
        assert there.tolist() == [1]
        assert back.tolist() == [0, 0, 0, 0]


def test_a_tree_finds_points_in_space():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(12, 16, 3, generator=generator)
    nudged = points.flip(1) + 0.001
    walk = reciprocal_walk(points, nudged, subsample=2, distance="tree")
    assert torch.equal(walk.xy_1, torch.stack([15 - walk.xy_2[:, 0], walk.xy_2[:, 1]], 1))
    assert len(walk.xy_1) == 6 * 8


def test_a_seed_may_come_back_beside_itself():
    map_1, map_2 = maps()
    seeds = seed_grid(20, 28, 3)
    strict = reciprocal_walk(map_1, map_2, seeds=seeds)
    loose = reciprocal_walk(map_1, map_2, seeds=seeds, pixel_tol=6)
    there, back = nearest_in_blocks(map_1.flatten(0, 1), map_2.flatten(0, 1))
    own = seeds[:, 0] + 28 * seeds[:, 1]
    away = back[there[own]]
    distance = (torch.stack([away % 28, away // 28], 1) - seeds).float().norm(dim=1)
    assert as_set(strict.xy_1) == as_set(seeds[distance == 0])
    assert as_set(loose.xy_1) == as_set(seeds[distance < 6])
    assert len(strict.xy_1) < len(loose.xy_1) < len(seeds)


def test_pairs_of_both_decodings_and_directions_are_joined():
    decodings = [maps(seed=0), maps(seed=1)]
    described = [tuple(Described(m, torch.full(m.shape[:2], q)) for m, q in zip(d, (4.0, 9.0))) for d in decodings]
    found = symmetric_matches(described, subsample=4)
    one_way = reciprocal_walk(*decodings[0], subsample=4)
    assert as_set(one_way.xy_1, one_way.xy_2) < as_set(found.xy_1, found.xy_2)
    assert as_set(found.xy_1, found.xy_2) <= mutual(*decodings[0]) | mutual(*decodings[1])
    assert len(as_set(found.xy_1, found.xy_2)) == len(found)
    assert found.confidence.tolist() == [6.0] * len(found)
    least = symmetric_matches(described, subsample=4, confidence="least")
    assert least.confidence.tolist() == [4.0] * len(least)


def test_no_such_distance():
    with pytest.raises(ValueError, match="cosine"):
        nearest_in_blocks(torch.zeros(1, 2), torch.zeros(1, 2), "cosine")
