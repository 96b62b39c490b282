"""The stream of a network: what it remembers can be saved, gone on from and forgotten, and is all that it keeps."""

from __future__ import annotations

import gc
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from backend.nets.point3r_stream import Point3RStream
from backend.streaming.frames import StreamedFrame
from backend.streaming.fusion import ORIGINAL, OURS, FusionOptions
from tests.point3r_recipe import point3r_net

OPTIONS = {"original": ORIGINAL, "ours": OURS, "ours, few read": replace(OURS, most_read=10)}


@pytest.fixture(scope="module")
def net():
    return point3r_net()


def clip(frames: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def same(one: StreamedFrame, other: StreamedFrame) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(StreamedFrame))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_stream_goes_on_from_a_saved_state_bit_for_bit(net, options):
    pictures, stream = clip(), Point3RStream(net, options)
    for picture in pictures[:3]:
        stream.push(picture)
    saved = stream.save()
    kept = {name: array.copy() for name, array in saved.items()}
    whole = [stream.push(picture) for picture in pictures[3:]]
    assert all(np.array_equal(saved[name], kept[name]) for name in kept), "what was saved stays"
    other = Point3RStream(net, options)
    other.restore(saved)
    assert np.array_equal(other.pointers(), saved["memory.positions"])
    assert all(same(other.push(picture), frame) for picture, frame in zip(pictures[3:], whole))
    assert all(np.array_equal(other.save()[name], array) for name, array in stream.save().items())


def test_a_saved_state_is_plain_numbers(net, tmp_path):
    stream = Point3RStream(net, OURS)
    stream.push(clip(1)[0])
    np.savez(tmp_path / "state.npz", **stream.save())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as file:
        other = Point3RStream(net, OURS)
        other.restore(dict(file))
    picture = clip(2)[1]
    assert same(stream.push(picture), other.push(picture))


def test_a_stream_that_was_reset_is_as_a_new_one(net):
    pictures, stream = clip(3), Point3RStream(net, OURS)
    first = [stream.push(picture) for picture in pictures]
    stream.reset()
    assert not stream.save()
    assert stream.pointers().shape == (0, 3)
    assert all(same(stream.push(picture), frame) for picture, frame in zip(pictures, first))
    stream.restore({})
    assert stream.push(pictures[0]).index == 0


def test_frames_are_of_one_size_and_states_of_one_network(net):
    stream = Point3RStream(net, OURS)
    stream.push(clip(1)[0])
    with pytest.raises(ValueError, match=r"\(64, 48\)"):
        stream.push(clip(1, 64, 48)[0])
    state = dict(stream.save())
    for wrong in (
        {**state, "slots": state["slots"][:, 1:]},
        {**state, "memory.features": state["memory.features"][:, 1:]},
        {**state, "memory.confidence": state["memory.confidence"][1:]},
        {name: state[name] for name in state if name != "memory.positions"},
        {**state, "patches": state["patches"].astype(np.float64)},
    ):
        with pytest.raises(ValueError, match="not the state"):
            stream.restore(wrong)
    assert stream.push(clip(2)[1]).index == 1, "a state that was refused leaves the stream as it was"


def alive() -> int:
    """Bytes of all tensors there are, each storage once."""
    gc.collect()
    tensors = (each for each in gc.get_objects() if issubclass(type(each), torch.Tensor) and each.device.type == "cpu")
    return sum({each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in tensors}.values())


def test_what_stays_of_a_frame_is_its_pointers(net):
    stream, beside, pointers = Point3RStream(net, ORIGINAL), [], []
    pictures = clip(8)
    for part in (pictures[:2], pictures[2:]):
        for picture in part:
            stream.push(picture)
        memory = stream.state.memory
        beside.append(alive() - sum(getattr(memory, f.name).nbytes for f in fields(memory)))
        pointers.append(len(memory))
    assert pointers[1] > pointers[0], "or nothing was tested"
    assert beside[1] == beside[0]


def test_the_decoder_is_shown_no_more_than_it_may_see(net, monkeypatch):
    shown = []
    later = type(net).later
    monkeypatch.setattr(type(net), "later", lambda self, *a: shown.append(len(a[2])) or later(self, *a))
    stream = Point3RStream(net, FusionOptions(most_read=10))
    remembered = [stream.push(picture).pointers for picture in clip(4)]
    assert shown == [10, 10, 10]
    assert min(remembered) >= 12


def test_doubtful_patches_are_not_remembered(net):
    pictures = clip(1, 64, 64)
    assert Point3RStream(net, ORIGINAL).push(pictures[0]).pointers == 16
    assert Point3RStream(net, OURS).push(pictures[0]).pointers == 12
