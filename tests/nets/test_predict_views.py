"""Views of many pairs: equal to the plain network's, streamed, each frame encoded once, not stopped by small memory."""

from __future__ import annotations

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from backend.nets import predict
from backend.nets.mast3r import MatchingNet
from backend.nets.precision import EXACT
from backend.nets.predict import FrameCache, network_input
from backend.nets.predict_views import ViewPredictor
from backend.run import Run
from backend.sparse.views import SymmetricPair
from backend.wire import Cancelled, UserError
from tests.recipe import matching_net

PAIRS = [(0, 1), (2, 3), (0, 3), (1, 2)]


class Counting(MatchingNet):
    """The network, which counts what it is asked; with a limit of pairs that it has memory for."""

    most_pairs = 1000

    def encode(self, images):
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


@pytest.fixture
def net() -> Counting:
    return matching_net(kind=Counting)


def frames(count: int = 4, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def predictor(net, images=None, run=None, **kwargs) -> ViewPredictor:
    return ViewPredictor(net, frames() if images is None else images, "cpu", EXACT, run or Run(), **kwargs)


@pytest.mark.parametrize("size", [(32, 48), (48, 32)], ids=["landscape", "portrait"])
def test_views_are_those_of_the_network_in_both_orders(net, size):
    """`ab` is pixels of a in the camera of b: view 2 of the pair (b, a)."""
    images = frames(4, *size)
    found = list(predictor(net, images).predict(PAIRS))
    assert sorted((pair.i, pair.j) for pair in found) == sorted(PAIRS)
    pictures = [network_input(images[f : f + 1]) for f in range(4)]
    for pair in found:
        forth, back = net(pictures[pair.i], pictures[pair.j]), net(pictures[pair.j], pictures[pair.i])
        for view, maps, v in ((pair.ii, forth, 1), (pair.ji, forth, 2), (pair.jj, back, 1), (pair.ij, back, 2)):
            for ours, name in zip(vars(view).values(), ("pts3d", "conf", "desc", "desc_conf")):
                assert ours.dtype == torch.float32
                assert ours.shape[:2] == size
                torch.testing.assert_close(ours, getattr(maps, f"{name}_{v}")[0], rtol=1e-4, atol=1e-5)


def test_each_frame_is_encoded_once_and_each_head_s_map_made_once(net):
    asked = predictor(net)
    list(asked.predict(PAIRS))
    list(asked.predict([(0, 2), (1, 3)]))
    assert len(net.encoded) == len(set(net.encoded)) == 4
    assert net.shallows == {1: 4, 2: 4}


def test_tokens_are_the_encoder_s_and_serve_the_pairs(net):
    asked = predictor(net)
    found = dict(zip((2, 0, 3), asked.tokens([2, 0, 3])))
    for frame, tokens in found.items():
        assert tokens.dtype == torch.float32
        torch.testing.assert_close(tokens, matching_net().encode(network_input(frames()[frame][None]))[0])
    list(asked.predict(PAIRS))
    assert len(net.encoded) == len(set(net.encoded)) == 4
    with pytest.raises(IndexError):
        list(asked.tokens([4]))


def test_pairs_come_while_others_are_still_to_be_asked(net):
    """An answer can be used up before the next one is made, so memory does not grow with the pairs."""
    stream = predictor(net, pairs_at_once=2).predict(PAIRS)
    first = next(stream)
    assert (first.i, first.j) == (0, 1)
    assert net.chunks == [2]
    assert len(list(stream)) == 3
    assert net.chunks == [2, 2, 2, 2]


@pytest.mark.parametrize("most", [1, 3], ids=["one order at a time", "chunks across pairs"])
def test_too_little_memory_for_a_chunk_only_takes_longer(net, monkeypatch, most):
    monkeypatch.setitem(predict.MOST_AT_ONCE, "cpu", 8)
    whole = by_frames(predictor(matching_net()).predict(PAIRS))
    net.most_pairs = most
    told = []
    halved = by_frames(predictor(net, run=Run(retried=told.append)).predict(PAIRS))
    assert max(net.chunks) <= most
    assert told[0] == "Out of memory with 8 pairs at once; going on with 4"
    assert halved.keys() == whole.keys()
    for key, pair in halved.items():
        torch.testing.assert_close(pair.ij.points, whole[key].ij.points, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(pair.jj.descriptors, whole[key].jj.descriptors, rtol=1e-4, atol=1e-5)


def by_frames(pairs) -> dict[tuple[int, int], SymmetricPair]:
    return {(pair.i, pair.j): pair for pair in pairs}


def test_too_little_memory_for_one_pair_says_what_to_change(net):
    net.most_pairs = 0
    with pytest.raises(UserError, match="one pair") as caught:
        list(predictor(net).predict(PAIRS))
    assert "Resolution" in caught.value.hint


def test_small_caches_make_each_map_few_times(net):
    """All pairs of 60 frames where 12 are held: in blocks of 6, a third as often as row by row."""
    asked = predictor(net, frames(2))
    asked._tokens.capacity, asked._shallow.capacity = 50, 24  # a frame has a map for either head
    pairs = [(i, j) for i in range(60) for j in range(i + 1, 60)]

    def made(order: list) -> int:
        cache, count = FrameCache(12), 0
        for frame in chain.from_iterable(order):
            count += cache.get(frame) is None
            cache.put(frame, torch.empty(0))
        return count

    assert made(sorted(pairs, key=asked._place)) < made(pairs) / 3


@pytest.mark.parametrize("part", ["dec_norm.bias", "downstream_head2.head_local_features.fc2.bias"])
def test_no_number_is_never_an_answer(net, part):
    net.get_parameter(part).fill_(torch.nan)
    with pytest.raises(UserError, match="no numbers for a pair of frames near 0 and 1"):
        list(predictor(net).predict(PAIRS))


def test_pairs_that_are_none_are_errors(net):
    with pytest.raises(IndexError):
        list(predictor(net).predict([(0, 4)]))
    for wrong in ((1, 0), (2, 2)):
        with pytest.raises(ValueError, match="i < j"):
            list(predictor(net).predict([wrong]))


def test_a_pair_twice_is_asked_once_and_no_pairs_are_none(net):
    assert len(list(predictor(net).predict([(0, 1), (0, 1)]))) == 1
    assert list(predictor(net).predict([])) == []


def test_a_cancelled_run_stops_at_the_next_chunk(net):
    run = Run(is_cancelled=lambda: len(getattr(net, "chunks", [])) >= 2)
    with pytest.raises(Cancelled):
        list(predictor(net, run=run, pairs_at_once=2).predict(PAIRS))
    assert len(net.chunks) == 2


def test_progress_runs_over_all_calls_where_their_number_is_known(net):
    seen = []
    run = Run(report=lambda p: seen.append(p.stage_fraction), reports_per_second=1e9)
    asked = predictor(net, run=run, total_pairs=4)
    list(asked.predict(PAIRS[:2]))
    assert seen[-1] == 0.5
    list(asked.predict(PAIRS[2:]))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_views_may_be_used_in_gradients(net):
    """They come without one of their own, and outside of torch's inference mode."""
    pair = next(predictor(net).predict(PAIRS))
    scale = torch.ones((), requires_grad=True)
    (scale * pair.ii.points).square().mean().backward()
    assert not pair.ii.points.requires_grad
    torch.testing.assert_close(scale.grad, 2 * pair.ii.points.square().mean())


def test_tokens_of_single_frames_are_the_encoder_s_and_serve_their_pairs(net):
    views = predictor(net)
    found = list(views.tokens([2, 0]))
    expected = net.encode(network_input(frames()[[2, 0]], "cpu"))
    torch.testing.assert_close(torch.stack(found), expected)
    net.encoded = []
    list(views.predict([(0, 2)]))
    assert not net.encoded
