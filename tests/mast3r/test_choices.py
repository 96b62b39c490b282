"""What the settings come to: which frames, which pairs, whose lens, and what that costs."""

import numpy as np
import pytest
import torch

from backend.cost import Footage
from backend.estimate import estimate
from backend.machine import Machine
from backend.mast3r.choices import (
    COMPLETE,
    graph_kind,
    is_sequence,
    pair_count,
    shares_lens,
    solved_frames,
    with_something_still,
)
from backend.mast3r.cost import cost
from backend.mast3r.pairs import choose_pairs
from backend.run import Run
from backend.wire import ClipSettings, JobSettings, MASt3RSettings, UserError

TIMES = tuple(n / 24 for n in range(40))


class Tokens:
    """Frames of three places, each frame a little apart from the next of its place."""

    def __init__(self, frames: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.places = torch.randn(3, 60, 16, generator=random)
        self.frames, self.asked = frames, 0

    def tokens(self, frames):
        for n in frames:
            self.asked += 1
            yield self.places[n % 3] + 0.02 * n * torch.randn(60, 16, generator=torch.Generator().manual_seed(n))


def test_a_video_is_a_sequence_and_a_folder_of_images_a_set_unless_said_otherwise():
    assert is_sequence(MASt3RSettings(), "video")
    assert not is_sequence(MASt3RSettings(), "images")
    assert is_sequence(MASt3RSettings(footage="sequence"), "images")
    assert not is_sequence(MASt3RSettings(footage="set"), "video")


def test_a_sequence_has_one_lens_and_images_have_one_each_unless_said_otherwise():
    assert shares_lens(MASt3RSettings(), sequence=True)
    assert not shares_lens(MASt3RSettings(), sequence=False)
    assert shares_lens(MASt3RSettings(lenses="shared"), sequence=False)
    assert not shares_lens(MASt3RSettings(lenses="each"), sequence=True)


def test_only_a_sequence_is_thinned():
    options = MASt3RSettings(solve_every=10)
    assert solved_frames(options, TIMES, sequence=True).tolist() == [0, 10, 20, 30, 39]
    assert len(solved_frames(options, TIMES, sequence=False)) == 40
    with pytest.raises(UserError, match="One image alone"):
        solved_frames(options, TIMES[:1], sequence=False)


def test_frames_that_are_masked_all_over_are_left_out():
    masks = np.zeros((4, 2, 2), bool)
    masks[1] = True
    masks[2, 0] = True
    assert with_something_still(np.arange(4), masks).tolist() == [0, 2, 3]
    assert with_something_still(np.arange(4), None).tolist() == [0, 1, 2, 3]
    masks[2:] = True
    with pytest.raises(UserError, match="masks cover"):
        with_something_still(np.arange(4), masks)


def test_many_frames_are_not_all_compared():
    assert graph_kind(MASt3RSettings(), COMPLETE, sequence=False) == "complete"
    assert graph_kind(MASt3RSettings(), COMPLETE + 1, sequence=False) == "retrieval"
    assert graph_kind(MASt3RSettings(), COMPLETE + 1, sequence=True) == "logwin"
    assert graph_kind(MASt3RSettings(scene_graph="complete"), 500, sequence=True) == "complete"


@pytest.mark.parametrize("kind", ["auto", "complete", "retrieval", "swin", "logwin", "oneref"])
@pytest.mark.parametrize("sequence", [True, False], ids=["sequence", "set"])
@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("count", [2, 7, 40])
def test_as_many_pairs_are_chosen_as_were_counted_or_fewer(kind, sequence, cyclic, count):
    options = MASt3RSettings(scene_graph=kind, neighbours=4, key_images=5, cyclic=cyclic)
    pairs = choose_pairs(Tokens(count), np.arange(count), sequence, options, {}, Run())
    assert pairs == sorted(set(pairs))
    assert all(0 <= i < j < count for i, j in pairs)
    assert {n for pair in pairs for n in pair} == set(range(count))
    most = pair_count(options, count, sequence)
    assert 0.3 * most <= len(pairs) <= most


def test_images_that_look_alike_are_compared_and_asked_for_once():
    source, options = Tokens(30), MASt3RSettings(scene_graph="retrieval", key_images=3, neighbours=2)
    pairs = choose_pairs(source, np.arange(30), False, options, {}, Run())
    alike = [(i - j) % 3 == 0 for i, j in pairs]
    assert np.mean(alike) > 0.8
    assert source.asked == 30


# What it costs


def told(options: MASt3RSettings, frames: int, long_side: int = 512, machine: Machine | None = None):
    settings = JobSettings("mast3r", ClipSettings(long_side=long_side), engine_settings=options)
    footage = Footage(1920, 1080, tuple(i / 24 for i in range(frames)))
    return cost(footage, settings, machine or Machine(cores=4, memory_free=10**12))


def test_more_images_more_pairs_and_more_pixels_cost_more():
    complete = MASt3RSettings(scene_graph="complete")
    base = told(complete, 20)
    for more in (told(complete, 30), told(complete, 20, 768)):
        assert more.seconds > base.seconds
        assert more.memory_bytes > base.memory_bytes
    assert told(MASt3RSettings(scene_graph="logwin", neighbours=3), 20).seconds < base.seconds
    assert base.weights == ("mast3r",)


def test_a_card_holds_the_network_in_its_own_memory():
    card = told(MASt3RSettings(), 20, machine=Machine(cores=4, memory_free=10**12, gpu_free=10**11))
    host = told(MASt3RSettings(), 20)
    assert host.gpu_bytes is None
    assert card.gpu_bytes > 2.7e9
    assert card.memory_bytes < host.memory_bytes
    assert card.seconds < host.seconds


def test_two_images_are_enough_and_one_is_told_before_anything_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path))
    machine = Machine(cores=4, memory_free=10**12)
    settings = JobSettings("mast3r", engine_settings=MASt3RSettings())
    two, one = (estimate(1920, 1080, n, 24.0, settings, machine, tmp_path) for n in (2, 1))
    assert "weights of MASt3R (2.8 GB)" in two.problem
    assert two.weights == ("mast3r",)
    assert "1 frame; at least 2" in one.problem
