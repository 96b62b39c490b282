"""A stage made by several processes: every piece once, each from another end, and the result that of one alone."""

from __future__ import annotations

import numpy as np
import pytest

from backend.classical import flow
from backend.classical.flow import neighbour_flows
from backend.run import Run
from backend.sharing import Sharing
from backend.stage_memory import StageMemory
from tests.worlds import room

FRAMES = 30
PIECES = 3


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return room(FRAMES, 64, 40).rgb


@pytest.fixture
def memory(tmp_path) -> StageMemory:
    return StageMemory(tmp_path / "cache", leave_free_bytes=0)


def run_of(folder, memory, sharing=None) -> Run:
    folder.mkdir(exist_ok=True)
    return Run(work_dir=folder, threads=1, memory=memory, sharing=sharing)


def entries(memory: StageMemory) -> int:
    return len(list(memory.folder.glob("flow-of-some-frames.*"))) if memory.folder.is_dir() else 0


def assert_same(a: flow.Flows, b: flow.Flows) -> None:
    assert a.of.keys() == b.of.keys()
    for offset in a.of:
        np.testing.assert_array_equal(a.of[offset], b.of[offset])


def test_a_job_goes_forward_and_helpers_come_from_the_ends_of_their_shares():
    assert Sharing().order(6) == [0, 1, 2, 3, 4, 5]
    assert Sharing(helper=0, helpers=1).order(6) == [5, 4, 3, 2, 1, 0]
    assert Sharing(helper=0, helpers=2).order(6) == [3, 2, 5, 4, 1, 0]
    assert Sharing(helper=1, helpers=2).order(6) == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("helpers", [1, 2, 5])
@pytest.mark.parametrize("pieces", [1, 3, 7])
def test_no_piece_is_left_to_nobody(helpers, pieces):
    for helper in range(helpers):
        assert sorted(Sharing(helper=helper, helpers=helpers).order(pieces)) == list(range(pieces))


def test_a_job_alone_makes_no_pieces(frames, memory, tmp_path):
    neighbour_flows(frames, run_of(tmp_path / "work", memory))
    assert entries(memory) == 0


def test_what_a_helper_made_is_taken_and_the_result_is_the_same(frames, memory, tmp_path, monkeypatch):
    alone = neighbour_flows(frames, run_of(tmp_path / "alone", None))
    helper = Sharing(least_frames=FRAMES, helper=0, helpers=1)
    neighbour_flows(frames, run_of(tmp_path / "helper", memory, helper))
    assert entries(memory) == PIECES
    monkeypatch.setattr(flow, "flow_method", lambda: pytest.fail("a piece was made twice"))
    shared = neighbour_flows(frames, run_of(tmp_path / "job", memory, Sharing(least_frames=FRAMES)))
    assert_same(shared, alone)


def test_a_lost_piece_is_made_by_the_job(frames, memory, tmp_path):
    alone = neighbour_flows(frames, run_of(tmp_path / "alone", None))
    neighbour_flows(frames, run_of(tmp_path / "helper", memory, Sharing(least_frames=FRAMES, helper=0, helpers=1)))
    first, second, _ = sorted(memory.folder.glob("flow-of-some-frames.*"))
    (first / "entry.txt").unlink()
    (second / "2.npy").write_bytes(b"half of it")
    shared = neighbour_flows(frames, run_of(tmp_path / "job", memory, Sharing(least_frames=FRAMES)))
    assert_same(shared, alone)


def test_a_helper_leaves_alone_what_is_made(frames, memory, tmp_path, monkeypatch):
    neighbour_flows(frames, run_of(tmp_path / "job", memory, Sharing(least_frames=FRAMES)))
    monkeypatch.setattr(flow, "flow_method", lambda: pytest.fail("a piece was made twice"))
    neighbour_flows(frames, run_of(tmp_path / "helper", memory, Sharing(least_frames=FRAMES, helper=0, helpers=1)))


def test_short_clips_and_those_too_large_to_keep_are_not_shared(frames, tmp_path):
    small = StageMemory(tmp_path / "small", limit_bytes=10_000, leave_free_bytes=0)
    assert not run_of(tmp_path / "a", small, Sharing(least_frames=FRAMES)).shares(FRAMES, 5_001)
    assert run_of(tmp_path / "a", small, Sharing(least_frames=FRAMES)).shares(FRAMES, 5_000)
    assert not run_of(tmp_path / "a", small, Sharing(least_frames=FRAMES)).shares(FRAMES - 1, 1)
    assert not run_of(tmp_path / "a", None, Sharing(least_frames=FRAMES)).shares(FRAMES, 1)


def test_help_is_asked_for_unless_the_stage_is_known(memory, tmp_path):
    asked = []
    run = run_of(tmp_path / "a", memory, Sharing(least_frames=10, ask=lambda: asked.append(True)))
    run.ask_for_help(9, "Stage", {"a": 1})
    assert asked == []
    run.ask_for_help(10, "Stage", {"a": 1})
    assert asked == [True]
    run.remember("Stage", {"a": 1}, lambda: 5)
    run.ask_for_help(10, "Stage", {"a": 1})
    assert asked == [True]
