"""Kinematic trees: they span all frames, prefer what shares most, and hang from the middle."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.matching.matches import Matches
from backend.sparse.problem import PairMatches
from backend.sparse.tree import kinematic_tree, match_counts
from backend.wire import UserError

KINDS = ("hclust-ward", "mst")


def counts_of(frames: int, **pairs: int) -> np.ndarray:
    """From `_0_1=50`: 50 matches of frames 0 and 1."""
    counts = np.zeros((frames, frames))
    for name, number in pairs.items():
        i, j = map(int, name.strip("_").split("_"))
        counts[i, j] = counts[j, i] = number
    return counts


def tree(counts: np.ndarray, kind: str):
    return kinematic_tree(counts, np.full(len(counts), 192), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(5))
def test_every_frame_hangs_once_below_a_parent_that_stands_before_it(kind, seed):
    rng = np.random.default_rng(seed)
    counts = np.triu(rng.integers(1, 900, (12, 12)), 1)
    found = tree(counts + counts.T, kind)
    placed = {found.root}
    for parent, child in found.edges:
        assert parent in placed
        assert child not in placed
        placed.add(child)
    assert placed == set(range(12))


@pytest.mark.parametrize("kind", KINDS)
def test_a_chain_hangs_from_its_middle(kind):
    counts = counts_of(5, _0_1=500, _1_2=400, _2_3=300, _3_4=200)
    found = tree(counts, kind)
    if kind == "mst":
        assert found.root == 2
        assert set(found.edges) == {(2, 1), (2, 3), (1, 0), (3, 4)}
    assert {frozenset(edge) for edge in found.edges} >= {frozenset((0, 1))}


def test_the_spanning_tree_takes_the_pairs_with_the_most_matches():
    counts = counts_of(4, _0_1=100, _0_2=90, _0_3=80, _1_2=70, _1_3=60, _2_3=85)
    assert {frozenset(edge) for edge in tree(counts, "mst").edges} == {frozenset(p) for p in ((0, 1), (0, 2), (2, 3))}


def test_clusters_join_by_their_best_connected_frames():
    """Two groups of three; 1 and 4 share the most with their own, so the groups meet there."""
    own = {"_0_1": 300, "_1_2": 300, "_0_2": 100, "_3_4": 300, "_4_5": 300, "_3_5": 100}
    found = tree(counts_of(6, **own, _2_3=40), "hclust-ward")
    across = [edge for edge in found.edges if (edge[0] < 3) != (edge[1] < 3)]
    assert [set(edge) for edge in across] == [{1, 4}]


def test_frames_without_a_common_match_are_joined_by_clusters_only():
    counts = counts_of(4, _0_1=100, _2_3=100)
    assert len(tree(counts, "hclust-ward").edges) == 3
    with pytest.raises(UserError, match="not connected"):
        tree(counts, "mst")


def test_one_frame_and_an_unknown_kind():
    assert tree(np.zeros((1, 1)), "mst").edges == ()
    with pytest.raises(UserError, match="no kinematic tree"):
        tree(counts_of(2, _0_1=9), "star")


def test_counts_are_of_matches_in_both_orders():
    def matches(count: int) -> Matches:
        return Matches(
            torch.zeros(count, 2, dtype=torch.int64), torch.zeros(count, 2, dtype=torch.int64), torch.ones(count)
        )

    found = match_counts([PairMatches(0, 2, matches(7)), PairMatches(1, 2, matches(0))], 3)
    assert found.tolist() == [[0, 0, 7], [0, 0, 0], [7, 0, 0]]
