"""Which pairs of a set are compared: graphs against lists made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from backend.sparse.graph import key_frames, retrieval_pairs, set_pairs
from backend.wire import UserError


@pytest.mark.parametrize(
    ("graph", "frames", "expected"),
    [
        ("complete", 4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
        ("swin-1-noncyclic", 4, [(0, 1), (1, 2), (2, 3)]),
        ("swin-1", 4, [(0, 1), (0, 3), (1, 2), (2, 3)]),
        ("swin-2-noncyclic", 4, [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]),
        ("logwin-2-noncyclic", 5, [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (2, 4), (3, 4)]),
        (
            "logwin-3-noncyclic",
            6,
            [(0, 1), (0, 2), (0, 4), (1, 2), (1, 3), (1, 5), (2, 3), (2, 4), (3, 4), (3, 5), (4, 5)],
        ),
        ("oneref-1", 4, [(0, 1), (1, 2), (1, 3)]),
        ("complete", 2, [(0, 1)]),
        ("complete", 1, []),
    ],
)
def test_graphs_of_clips(graph, frames, expected):
    assert set_pairs(graph, frames) == expected


def test_filters_keep_what_is_near_along_the_clip_or_around_it():
    assert set_pairs("complete", 5, prefilter="seq1") == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert set_pairs("complete", 5, prefilter="cyc1") == [(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)]
    like = np.eye(5)
    assert set_pairs("retrieval-5-1", 5, likeness=like, prefilter="seq1") == [(0, 1), (1, 2), (2, 3), (3, 4)]


def like(*places: float) -> np.ndarray:
    """Frames at places on a line: alike is what is near."""
    return np.exp(-np.abs(np.subtract.outer(places, places)))


def test_key_frames_are_as_different_as_can_be():
    assert key_frames(like(0, 1, 2, 3, 10), 3, first=1) == [1, 4, 3]
    assert key_frames(like(0, 1, 2), 0, first=2) == []


def test_retrieval_joins_keys_with_each_other_and_all_others_with_their_own():
    along = like(0, 1, 2.1, 10, 11, 30)
    keys = [0, 5, 3]
    assert retrieval_pairs(along, keys, nearest=1) == [(0, 1), (0, 2), (0, 3), (0, 5), (3, 4), (3, 5)]
    # and each with its likest other: of two nearest, the first is itself
    assert retrieval_pairs(along, [], nearest=2) == [(0, 1), (1, 2), (3, 4), (4, 5)]


def test_the_first_key_frame_is_drawn_by_the_seed():
    along = like(*range(12))
    drawn = {tuple(set_pairs("retrieval-1-1", 12, likeness=along, seed=seed)) for seed in range(20)}
    assert len(drawn) > 3
    assert all(len(pairs) == 11 for pairs in drawn)  # a star around the only key frame
    assert set_pairs("retrieval", 12, likeness=along, seed=4) == set_pairs("retrieval", 12, likeness=along, seed=4)


def test_more_keys_than_frames_are_all_frames():
    assert set_pairs("retrieval-9-9", 4, likeness=like(0, 1, 2, 3)) == set_pairs("complete", 4)


def test_what_does_not_exist_is_refused():
    for graph, why in (("star", "no scene graph 'star'"), ("retrieval-3", "no scene graph"), ("oneref-9", "frame 9")):
        with pytest.raises(UserError, match=why):
            set_pairs(graph, 4, likeness=np.eye(4))
    with pytest.raises(UserError, match="look alike"):
        set_pairs("retrieval-2-2", 4)
    with pytest.raises(UserError, match="pair filter"):
        set_pairs("complete", 4, prefilter="near2")
