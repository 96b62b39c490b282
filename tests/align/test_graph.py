"""Laws of scene graphs, and the pair lists recorded from the original."""

import json
from collections import Counter
from pathlib import Path

import pytest

from backend.align.graph import make_pairs
from backend.wire import UserError

RECORDED = Path(__file__).parent.parent / "fixtures" / "monst3r" / "pairs"
GRAPHS = ["complete", "swin-4", "swinstride-5-noncyclic", "swin2stride-3", "swinskip_start-3-noncyclic", "logwin-3"]


def test_every_recorded_pair_list_is_made_again():
    recorded = json.loads((RECORDED / "pairs.json").read_text())
    assert len(recorded) > 200
    for key, pairs in recorded.items():
        graph, frames, symmetrize, prefilter = (part.split("=")[-1] for part in key.split("|"))
        made = make_pairs(graph, int(frames), symmetrize == "1", None if prefilter == "none" else prefilter)
        assert Counter(made) == Counter(map(tuple, pairs)), key


def test_every_recorded_count_is_met():
    for key, count in json.loads((RECORDED / "counts.json").read_text()).items():
        graph, frames = key.split("|N=")
        assert len(make_pairs(graph, int(frames))) == count, key


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("frame_count", [2, 3, 9, 20])
def test_symmetrised_graphs_have_every_pair_both_ways_second_half_mirrored(graph, frame_count):
    pairs = make_pairs(graph, frame_count)
    half = len(pairs) // 2
    assert pairs[half:] == [(j, i) for i, j in pairs[:half]]


def test_the_default_graph_looks_one_three_five_seven_and_nine_frames_ahead():
    ahead = {j - i for i, j in make_pairs("swinstride-5-noncyclic", 30, symmetrize=False)}
    assert ahead == {1, 3, 5, 7, 9}


@pytest.mark.parametrize("graph", ["swin-1", "swin-1-noncyclic", "swin-10-noncyclic", "oneref-2"])
def test_one_way_graphs_stay_one_way_unless_there_are_two_frames(graph):
    assert make_pairs(graph, 6) == make_pairs(graph, 6, symmetrize=False)


def test_filters_keep_frames_that_are_near_along_the_clip_or_around_it():
    assert max(abs(i - j) for i, j in make_pairs("complete", 9, prefilter="seq2")) == 2
    assert (0, 8) in make_pairs("complete", 9, prefilter="cyc2")
    assert (0, 6) not in make_pairs("complete", 9, prefilter="cyc2")


@pytest.mark.parametrize("graph", ["", "ring", "swin-", "swin-x", "swin-3-cyclic", "complete-3", "oneref--1"])
def test_an_unknown_graph_is_refused_with_those_that_exist(graph):
    with pytest.raises(UserError) as caught:
        make_pairs(graph, 5)
    for name in ("complete", "oneref", "swin2stride", "swinskip_start", "logwin"):
        assert name in str(caught.value.hint)


def test_a_reference_outside_the_clip_and_an_unknown_filter_are_refused():
    with pytest.raises(UserError, match="frame 5"):
        make_pairs("oneref-5", 5)
    with pytest.raises(UserError, match="near3"):
        make_pairs("complete", 5, prefilter="near3")
