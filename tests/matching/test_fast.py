"""The engines' matcher: the plain walk's matches in a fraction of its time, never in a mask, for many pairs at once."""

import numpy as np
import pytest
import torch

from backend.geometry.camera import project
from backend.matching.fast import match_batch, match_described, match_seeds, match_views
from backend.matching.matches import Matches
from backend.matching.reciprocal import Described, nearest_in_blocks, seed_grid, symmetric_matches
from backend.sparse.views import SymmetricPair
from tests.view_oracle import ViewOracle, surface_points
from tests.worlds import World, film, look, square_intrinsics

WIDTH, HEIGHT = 80, 56
#: Two views of the same walls, one of the wall to the right, one of the wall to the left.
CAMERAS = (
    look(0, 0, 0, (0, 0, 0)),
    look(0.1, 0.02, 0.03, (0.3, 0, 0.2)),
    look(1.2, 0, 0, (0, 0, 0)),
    look(-1.2, 0, 0, (0, 0, 0)),
)


@pytest.fixture(scope="module")
def world() -> World:
    return film(np.stack(CAMERAS), square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, len(CAMERAS)), WIDTH, HEIGHT)


@pytest.fixture(scope="module")
def pair(world) -> SymmetricPair:
    return next(ViewOracle(world).predict([(0, 1)]))


def decodings(pair: SymmetricPair) -> list[tuple[Described, Described]]:
    views = ((pair.ii, pair.ji), (pair.ij, pair.jj))
    return [tuple(Described(v.descriptors, v.descriptor_confidence) for v in both) for both in views]


def as_set(matches: Matches) -> set[tuple[int, ...]]:
    return set(map(tuple, torch.cat([matches.xy_1, matches.xy_2], 1).tolist()))


def errors(world: World, matches: Matches, i: int = 0, j: int = 1) -> np.ndarray:
    """(M,) px from where a match ends to where its point is seen."""
    (x, y), ends = matches.xy_1.numpy().T, matches.xy_2.numpy()
    seen, _ = project(surface_points(world, i)[y, x], world.intrinsics[j], world.world_from_camera[j])
    return np.linalg.norm(seen - 0.5 - ends, axis=1)


@pytest.mark.parametrize("subsample", [8, 3])
def test_on_a_cpu_they_are_those_of_the_plain_walk(pair, subsample):
    plain = symmetric_matches(decodings(pair), subsample)
    found = match_views(pair, subsample=subsample, border=0)
    assert torch.equal(found.xy_1, plain.xy_1)
    assert torch.equal(found.xy_2, plain.xy_2)
    torch.testing.assert_close(found.confidence, plain.confidence)
    assert len(found) > (HEIGHT // subsample) * (WIDTH // subsample)


@pytest.mark.parametrize("number_type", [torch.float32, torch.float16])
def test_the_way_of_other_devices_finds_nearly_all_of_them(pair, number_type):
    """Squares ranked in a number type, and rounds with places for a share of the seeds only."""
    exact, ranked = match_views(pair, border=0), match_views(pair, border=0, ranked_in=number_type)
    assert len(as_set(exact) & as_set(ranked)) > 0.97 * max(len(exact), len(ranked))


def test_both_pixels_are_each_others_nearest_in_a_decoding(pair):
    found = match_views(pair, subsample=4)
    index_1, index_2 = (xy[:, 0] + WIDTH * xy[:, 1] for xy in (found.xy_1, found.xy_2))
    mutual = torch.zeros(len(found), dtype=torch.bool)
    for one, two in decodings(pair):
        flat_1, flat_2 = one.descriptors.flatten(0, 1), two.descriptors.flatten(0, 1)
        there, back = nearest_in_blocks(flat_1[index_1], flat_2)[0], nearest_in_blocks(flat_2[index_2], flat_1)[0]
        mutual |= (there == index_2) & (back == index_1)
    assert mutual.all()


def test_they_are_true(world, pair):
    found = match_views(pair)
    off = errors(world, found)
    assert np.median(off) < 1.0
    assert (off < 3).mean() > 0.97


def test_both_decodings_together_are_surer(world, pair):
    each, together = match_views(pair, subsample=4), match_views(pair, subsample=4, together=True)
    assert (errors(world, together) > 1).mean() < 0.7 * (errors(world, each) > 1).mean()
    assert 0.4 * len(each) < len(together) < len(each)


def test_confidence_is_the_geometric_mean_of_both_ends(pair):
    found = match_described([decodings(pair)[1:]])[0]
    (x, y), (u, v) = found.xy_1.T, found.xy_2.T
    expected = (pair.ij.descriptor_confidence[y, x] * pair.jj.descriptor_confidence[v, u]).sqrt()
    torch.testing.assert_close(found.confidence, expected)
    threshold = float(found.confidence.median())
    sure = match_described([decodings(pair)[1:]], least_confidence=threshold)[0]
    assert as_set(sure) == as_set(found.where(found.confidence >= threshold))


def test_the_border_is_left_out(pair):
    found = match_views(pair, subsample=2, border=5)
    size = torch.tensor([WIDTH, HEIGHT])
    for xy in (found.xy_1, found.xy_2):
        assert (xy >= 5).all()
        assert (xy < size - 5).all()
    everything = match_views(pair, subsample=2, border=0)
    assert as_set(found) == as_set(everything.without_border((WIDTH, HEIGHT), (WIDTH, HEIGHT), 5))


def test_masked_pixels_are_never_matched_and_the_others_as_if_they_were_not_there(pair):
    mask_1, mask_2 = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    mask_1[20:45, 10:50] = True
    mask_2[:, 60:] = True
    for ranked_in in (None, torch.float32):
        found = match_views(pair, mask_1, mask_2, subsample=4, ranked_in=ranked_in)
        assert len(found) > 50
        assert not mask_1[found.xy_1[:, 1], found.xy_1[:, 0]].any()
        assert not mask_2[found.xy_2[:, 1], found.xy_2[:, 0]].any()
    hidden = [
        tuple(
            Described(d.descriptors.masked_fill(m[..., None], 0), d.confidence) for d, m in zip(both, (mask_1, mask_2))
        )
        for both in decodings(pair)
    ]
    plain = symmetric_matches(hidden, 4).masked(mask_1, mask_2).without_border((WIDTH, HEIGHT), (WIDTH, HEIGHT))
    assert as_set(plain) == as_set(match_views(pair, mask_1, mask_2, subsample=4))


def test_where_all_is_masked_nothing_is_found(pair):
    everything = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    assert len(match_views(pair, everything)) == len(match_views(pair, None, everything)) == 0


def test_pixels_that_are_not_numbers_are_not_matched(pair):
    broken = pair.ii.descriptors.clone()
    broken[10:30, 20:40] = torch.nan
    both = (Described(broken, pair.ii.descriptor_confidence), decodings(pair)[0][1])
    found = match_described([[both]])[0]
    (x, y) = found.xy_1.T
    assert len(found) > 50
    assert not ((x >= 20) & (x < 40) & (y >= 10) & (y < 30)).any()


def test_a_batch_gives_what_each_pair_gives_alone(world):
    pairs = list(ViewOracle(world).predict([(0, 1), (0, 2), (1, 2)]))
    mask = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    mask[:30] = True
    masks = [(None, None), (mask, None), (None, mask)]
    for ranked_in in (None, torch.float32):
        for pair, own, found in zip(pairs, masks, match_batch(pairs, masks, ranked_in=ranked_in)):
            alone = match_views(pair, *own, ranked_in=ranked_in)
            assert torch.equal(alone.xy_1, found.xy_1)
            assert torch.equal(alone.xy_2, found.xy_2)
            assert torch.equal(alone.confidence, found.confidence)
    assert match_batch([]) == []


def test_views_of_different_walls_share_little(world, pair):
    others = match_batch(list(ViewOracle(world).predict([(0, 2), (2, 3)])), subsample=4)
    assert max(map(len, others)) < 0.2 * len(match_views(pair, subsample=4))


@pytest.mark.parametrize("size", [(8, 8), (5, 3), (1, 1), (9, 40)])
def test_tiny_pictures(size):
    generator = torch.Generator().manual_seed(3)
    picture = torch.nn.functional.normalize(torch.randn(*size, 8, generator=generator), dim=-1)
    both = (Described(picture, torch.ones(size)), Described(picture, torch.ones(size)))
    found = match_described([[both]], subsample=1, border=0)[0]
    assert len(found) == size[0] * size[1]
    assert torch.equal(found.xy_1, found.xy_2)
    assert len(match_described([[both]], subsample=1, border=20)[0]) == 0


def test_pictures_of_two_sizes(pair):
    """A part of a picture finds itself in the whole."""
    whole = decodings(pair)[0][0]
    part = Described(whole.descriptors[13:50, 21:80], whole.confidence[13:50, 21:80])
    found = match_described([[(part, whole)]], border=0)[0]
    assert len(found) > 30
    assert torch.equal(found.xy_2, found.xy_1 + torch.tensor([21, 13]))


def test_seeds_stand_where_the_way_back_ends_near_them(pair):
    one, two = decodings(pair)[0]
    seeds = seed_grid(HEIGHT, WIDTH, 5)
    there, back = nearest_in_blocks(one.descriptors.flatten(0, 1), two.descriptors.flatten(0, 1))
    ends = there[seeds[:, 0] + WIDTH * seeds[:, 1]]
    returned = torch.stack([back[ends] % WIDTH, back[ends] // WIDTH], 1)
    away = (returned - seeds).float().norm(dim=1)
    for tolerance in (0.0, 1.5, 5.0):
        keep = (away < tolerance) | (away == 0)
        found = match_seeds(one, two, seeds, tolerance)
        assert torch.equal(found.xy_1, seeds[keep])
        assert torch.equal(found.xy_2, torch.stack([ends % WIDTH, ends // WIDTH], 1)[keep])
    q = torch.minimum(
        one.confidence[found.xy_1[:, 1], found.xy_1[:, 0]], two.confidence[found.xy_2[:, 1], found.xy_2[:, 0]]
    )
    torch.testing.assert_close(found.confidence, q)
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    assert len(match_seeds(one, two, seeds, masks=(mask, None))) == 0
