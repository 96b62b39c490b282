"""Predictions of many pairs: equal to the plain network's, each frame encoded once, and not stopped by small memory."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import torch

from backend.nets import predict
from backend.nets.pairwise import PairwiseNet
from backend.nets.precision import EXACT, FAST
from backend.nets.predict import FrameCache, PairPredictor, network_input
from backend.run import Run
from backend.wire import Cancelled, UserError
from tests.recipe import fixture_net

EDGES = [(0, 1), (0, 3), (2, 1), (3, 2), (1, 0), (3, 0), (1, 2), (2, 3)]


class Counting(PairwiseNet):
    """The network, which counts what it is asked; with a limit of pairs or frames that it has memory for."""

    most_pairs = most_frames = 1000

    def encode(self, images):
        if len(images) > self.most_frames:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.encoded = [*getattr(self, "encoded", []), *images.sum((1, 2, 3)).tolist()]
        return super().encode(images)

    def shallow(self, view, tokens, grid):
        self.shallows = getattr(self, "shallows", Counter())
        self.shallows[view] += len(tokens)
        return super().shallow(view, tokens, grid)

    def pair(self, view1, view2):
        if len(view1.tokens) > self.most_pairs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.chunks = [*getattr(self, "chunks", []), len(view1.tokens)]
        return super().pair(view1, view2)


def clip(frames: int = 4, height: int = 48, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), np.uint8)


@pytest.fixture
def net() -> Counting:
    return fixture_net("dpt_mini", Counting)


def predictor(net, images, run=None, precision=EXACT, **kwargs) -> PairPredictor:
    return PairPredictor(net, images, "cpu", precision, run or Run(), **kwargs)


@pytest.mark.parametrize("size", [(48, 80), (80, 48)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("name", ["dpt_mini", "linear_mini"])
@pytest.mark.slow
def test_predictions_are_those_of_the_network_in_half_precision_and_in_the_order_asked(name, size):
    images = clip(4, *size)
    net = fixture_net(name, Counting)
    found = predictor(net, images).predict(EDGES)
    assert found.edges.tolist() == [list(edge) for edge in EDGES]
    assert found.size == (size[1], size[0])
    for e, (i, j) in enumerate(EDGES):
        plain = fixture_net(name)(*(network_input(images[f : f + 1], "cpu") for f in (i, j)))
        for ours, theirs in (
            (found.points_i, plain.pts3d_1),
            (found.points_j, plain.pts3d_2),
            (found.confidence_i, plain.conf_1),
            (found.confidence_j, plain.conf_2),
        ):
            assert ours.dtype == torch.float16
            assert ours.device.type == "cpu"
            torch.testing.assert_close(ours[e].float(), theirs[0], rtol=1e-3, atol=1e-4)


def test_each_frame_is_encoded_once_and_each_head_s_map_made_once(net):
    asked = predictor(net, clip())
    asked.predict(EDGES)
    assert len(net.encoded) == len(set(net.encoded)) == 4
    assert net.shallows == {1: 4, 2: 4}


def test_windows_that_share_frames_share_their_encodings(net):
    asked = predictor(net, clip(6))
    asked.predict([(0, 1), (1, 2), (2, 3)])
    asked.predict([(2, 3), (3, 4), (4, 5)])
    assert len(net.encoded) == len(set(net.encoded)) == 6


def test_frames_are_read_when_they_are_needed(net):
    """A clip of any length: only its shape is known beforehand."""

    class Store:
        shape = (1000, 48, 80, 3)
        read: list[int] = []  # noqa: RUF012

        def __len__(self):
            return 1000

        def __getitem__(self, t):
            self.read.append(t)
            return clip(1)[0]

    predictor(net, Store()).predict([(700, 701)])
    assert sorted(Store.read) == [700, 701]


@pytest.mark.slow
def test_too_little_memory_for_a_chunk_only_takes_longer(net, monkeypatch, caplog):
    monkeypatch.setitem(predict.MOST_AT_ONCE, "cpu", 8)
    whole = predictor(fixture_net("dpt_mini", Counting), clip()).predict(EDGES)
    net.most_pairs, net.most_frames = 3, 2
    with caplog.at_level(logging.WARNING):
        halved = predictor(net, clip()).predict(EDGES)
    assert net.chunks == [2, 2, 2, 2]
    assert "Out of memory with 8 pairs at once; going on with 4" in caplog.messages
    assert "Out of memory with 4 frames at once; going on with 2" in caplog.messages
    torch.testing.assert_close(halved.points_j, whole.points_j, rtol=1e-3, atol=1e-4)
    assert len(net.encoded) == 4  # what was encoded before the memory ran out is not encoded again


def test_too_little_memory_for_one_pair_says_what_to_change(net):
    net.most_pairs = 0
    with pytest.raises(UserError, match="one pair") as caught:
        predictor(net, clip()).predict(EDGES)
    assert "Resolution" in caught.value.hint


def test_predictions_that_the_host_cannot_hold_are_refused_at_once(net):
    class Vast:
        shape = (10, 16 * 40000, 16 * 40000, 3)

        def __len__(self):
            return 10

    with pytest.raises(UserError, match="2 pairs need"):
        predictor(net, Vast()).predict([(0, 1), (1, 0)])


def test_numbers_beyond_half_precision_stop_at_its_end(net):
    net.downstream_head1.dpt.head[4].bias = torch.nn.Parameter(torch.tensor([30.0, 0, 0, 30]), requires_grad=False)
    found = predictor(net, clip(2)).predict([(0, 1)])
    assert found.points_i.max() == found.confidence_i.max() == 65504
    assert found.confidence_i.min() >= 1


def test_no_number_is_never_an_answer(net):
    net.dec_norm.bias = torch.nn.Parameter(torch.full((32,), torch.nan), requires_grad=False)
    with pytest.raises(UserError, match="no numbers"):
        predictor(net, clip(2)).predict([(0, 1)])


def test_a_frame_that_is_not_there_is_an_error(net):
    with pytest.raises(IndexError):
        predictor(net, clip(4)).predict([(0, 4)])
    with pytest.raises(IndexError):
        predictor(net, clip(4)).predict([(-1, 0)])


def test_no_pairs_no_predictions(net):
    found = predictor(net, clip()).predict([])
    assert found.points_i.shape == (0, 48, 80, 3)


def test_a_cancelled_run_stops_at_the_next_chunk(net):
    run = Run(is_cancelled=lambda: len(getattr(net, "chunks", [])) >= 2)
    with pytest.raises(Cancelled):
        predictor(net, clip(), run).predict(EDGES)
    assert len(net.chunks) == 2


def test_progress_runs_over_all_calls_where_their_number_is_known(net):
    seen = []
    run = Run(report=lambda p: seen.append(p.stage_fraction), reports_per_second=1e9)
    asked = predictor(net, clip(), run, total_pairs=8)
    asked.predict(EDGES[:4])
    assert seen[-1] == 0.5
    asked.predict(EDGES[4:])
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_the_fast_path_keeps_tokens_in_half_precision(net):
    images = clip()
    exact = predictor(fixture_net("dpt_mini", Counting), images).predict(EDGES)
    asked = predictor(net, images, precision=FAST)
    fast = asked.predict(EDGES)
    assert asked._tokens.get(0).dtype == torch.float16
    error = (fast.points_i.float() - exact.points_i.float()).norm(dim=-1)
    assert 0 < error.median() / exact.points_i.float().norm(dim=-1).median() < 0.05


def test_a_full_cache_lets_go_of_what_was_used_longest_ago():
    cache = FrameCache(2)
    for frame in (0, 1):
        cache.put(frame, torch.full((1,), frame))
    assert cache.get(0) is not None
    cache.put(2, torch.zeros(1))
    assert (0 in cache, 1 in cache, 2 in cache) == (True, False, True)


def test_black_is_minus_one_and_white_is_one():
    pictures = np.stack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 255, np.uint8)])
    tensor = network_input(pictures)
    assert tensor.shape == (2, 3, 4, 6)
    assert torch.equal(tensor[0], -torch.ones(3, 4, 6))
    assert torch.equal(tensor[1], torch.ones(3, 4, 6))
