"""Pairs compared: what is kept of a stream of answers, and what is not."""

import numpy as np
import pytest
import torch

from backend.mast3r.compared import Compared, compare, stands_still
from backend.matching.fast import match_views
from backend.matching.matches import Matches
from backend.run import Run
from backend.sparse.canonical import CanonicalSums
from backend.wire import UserError
from tests.mast3r_oracle import HEIGHT, WIDTH, set_of
from tests.view_oracle import ViewOracle

PAIRS = [(0, 1), (0, 2), (1, 2)]
KEYS = np.array([0, 2, 3])


@pytest.fixture(scope="module")
def oracle() -> ViewOracle:
    return ViewOracle(set_of(4))


def compared(oracle, folder, masks=None, pairs=PAIRS, source=None) -> Compared:
    run = Run(work_dir=folder)
    return compare(source or oracle, match_views, pairs, KEYS, masks, (WIDTH, HEIGHT), run)


class Backwards:
    """A source that answers in another order than it is asked."""

    def __init__(self, oracle: ViewOracle) -> None:
        self.oracle = oracle

    def predict(self, pairs):
        return self.oracle.predict(list(pairs)[::-1])


@pytest.fixture(scope="module")
def usual(oracle, tmp_path_factory) -> Compared:
    return compared(oracle, tmp_path_factory.mktemp("work"))


def test_of_frames_stay_canonical_views(usual, oracle):
    """Of the frames of the clip that the numbers of the pairs stand for."""
    asked = {(int(KEYS[i]), int(KEYS[j])): (i, j) for i, j in PAIRS}
    sums = [CanonicalSums() for _ in KEYS]
    for pair in oracle.predict(list(asked)):
        i, j = asked[pair.i, pair.j]
        sums[i].add(pair.ii)
        sums[j].add(pair.jj)
    for view, each in zip(usual.problem().views, sums):
        expected = each.finish()
        for name in ("points", "depth_ratio", "confidence", "core_depth"):
            torch.testing.assert_close(getattr(view, name), getattr(expected, name))
        assert view.focal_px == pytest.approx(expected.focal_px)
    assert usual.size == (WIDTH, HEIGHT)


def test_of_pairs_stay_matches_whatever_the_order_of_the_answers(usual, oracle, tmp_path):
    problem = usual.problem()
    assert [(p.i, p.j) for p in problem.pairs] == PAIRS
    (pair,) = oracle.predict([(0, 3)])
    expected = match_views(pair)
    assert len(expected) > 50
    assert torch.equal(problem.pairs[1].matches.xy_1, expected.xy_1)
    assert torch.equal(problem.pairs[1].matches.xy_2, expected.xy_2)
    torch.testing.assert_close(problem.pairs[1].matches.confidence, expected.confidence)
    other = compared(oracle, tmp_path, source=Backwards(oracle))
    np.testing.assert_array_equal(other.xy_1, usual.xy_1)
    np.testing.assert_allclose(other.points, usual.points, rtol=1e-5, atol=1e-5)


def test_no_match_ends_in_a_mask_and_a_mover_keeps_what_the_network_is_sure_of(usual, oracle, tmp_path):
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[1, :, :40] = True
    found = compared(oracle, tmp_path, masks)
    for pair in found.problem().pairs:
        for n, xy in ((pair.i, pair.matches.xy_1), (pair.j, pair.matches.xy_2)):
            assert len(xy) > 20
            assert not masks[n][xy[:, 1], xy[:, 0]].any()
    assert (found.confidence[1][masks[1]] == 0).all()
    assert (found.mover_confidence[1][masks[1]] > 1).all()
    assert not found.mover_confidence[[0, 2]].any()
    assert (found.mover_confidence[1][~masks[1]] == 0).all()
    np.testing.assert_allclose(found.confidence[0], usual.confidence[0])


def test_pairs_without_a_sure_match_bring_none(usual):
    best = [float(pair.matches.confidence.max()) for pair in usual.problem().pairs]
    worst = int(np.argmin(best))
    left = usual.problem(least=best[worst]).pairs
    assert [(p.i, p.j) for p in left] == PAIRS
    assert [len(p.matches) > 0 for p in left] == [n != worst for n in range(3)]


def test_a_frame_that_is_masked_all_over_cannot_be_compared(oracle, tmp_path):
    masks = np.zeros((3, HEIGHT, WIDTH), bool)
    masks[2] = True
    with pytest.raises(UserError, match="all of it is masked"):
        compared(oracle, tmp_path, masks)


def test_a_camera_stands_still_where_no_pair_says_that_most_of_the_picture_moves(usual, oracle, tmp_path):
    assert not stands_still(usual)
    grid = torch.stack(torch.meshgrid(torch.arange(8, 64, 8), torch.arange(8, 64, 8), indexing="xy"), -1).reshape(-1, 2)
    moved = grid + torch.where(grid[:, :1] < 24, 5, 0)  # a quarter, by a mover

    def still(pair, mask_i, mask_j):
        return Matches(grid, moved, torch.ones(len(grid)))

    def one_turns(pair, mask_i, mask_j):
        return Matches(grid, moved + (pair.j == 3), torch.ones(len(grid)))

    for matcher, stands in ((still, True), (one_turns, False)):
        run = Run(work_dir=tmp_path)
        found = compare(oracle, matcher, PAIRS, KEYS, None, (WIDTH, HEIGHT), run)
        assert stands_still(found) == stands
