"""Jobs on this machine's devices: one at a time on each, and each sees its own alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.server import local_executor
from backend.server.local_executor import LocalExecutor, devices_of, seen_alone
from backend.server.process import Outcome
from backend.wire import UserError
from tests.serving import PATIENCE_S, SETTINGS, WORKER, clip_that, wait_for


def spec_of(folder: Path, *words: str) -> dict:
    clip = clip_that(folder / "clips", *words)
    work = folder / clip.stem
    places = {"out": str(work / "capture"), "scratch": str(work / "scratch"), "log": str(work / "log.txt")}
    return {"clip": {"path": str(clip)}, "masks": None, "settings": SETTINGS, "replace": True, **places}


@pytest.fixture
def executor():
    made: list[LocalExecutor] = []

    def make(*devices: str) -> LocalExecutor:
        made.append(LocalExecutor(WORKER, devices))
        return made[-1]

    yield make
    for each in made:
        each.close()


def begin(executor: LocalExecutor, folder: Path, *words: str):
    spec = spec_of(folder, *words)
    return executor.start(spec, Path(spec["log"]), notify=lambda: None, cleanup=lambda outcome: None)


def heard(running) -> tuple[list[str], Outcome]:
    """What a job logs, and its end."""
    texts = []
    while not isinstance(event := running.events.get(timeout=PATIENCE_S), Outcome):
        if event["t"] == "log":
            texts.append(event["text"])
    return texts, event


def test_each_device_has_one_job_that_sees_it_alone(executor, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    it = executor("cuda:0", "cuda:1")
    assert it.free() == 2
    jobs = [begin(it, tmp_path, "look_around") for _ in range(2)]
    assert [job.where for job in jobs] == ["cuda:0", "cuda:1"]
    assert it.free() == 0
    said = [heard(job) for job in jobs]
    assert ["device cuda:0 of '0'" in said[0][0], "device cuda:0 of '1'" in said[1][0]] == [True, True]
    assert [outcome.state for _, outcome in said] == ["done", "done"]
    wait_for(lambda: it.free() == 2)


@pytest.mark.slow
def test_a_device_is_free_again_after_whatever_ended_its_job(executor, tmp_path):
    it = executor("cpu")
    for words, state in (("die", "failed"), ("work", "done")):
        job = begin(it, tmp_path, *words.split())
        assert it.free() == 0
        assert heard(job)[1].state == state
        assert (it.free(), job.where) == (1, "cpu")


def test_closing_ends_what_runs(executor, tmp_path):
    it = executor("auto")
    job = begin(it, tmp_path, "slow")
    assert job.where == "this machine"
    it.close()
    assert heard(job)[1].cause == "lost"


def test_a_server_that_sees_some_cards_gives_out_those():
    assert seen_alone("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"})[1]["CUDA_VISIBLE_DEVICES"] == "6"
    assert seen_alone("cuda:1", {}) == ("cuda:0", {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert seen_alone("cpu", {}) == ("cpu", {"CUDA_VISIBLE_DEVICES": ""})
    assert seen_alone("auto", {"CUDA_VISIBLE_DEVICES": "4"}) == ("auto", {})


def test_devices_are_named_by_hand_or_are_all_that_there_are(monkeypatch):
    monkeypatch.setattr(local_executor, "nvidia", lambda query: "0\n1\n2")
    assert devices_of("all") == ["cuda:0", "cuda:1", "cuda:2"]
    assert devices_of("cuda:2, cuda:0") == ["cuda:2", "cuda:0"]
    assert devices_of("cuda:0,cpu") == ["cuda:0", "cpu"]
    assert devices_of("auto") == ["auto"]
    for text, says in {
        "cuda:3": "machine has 3",
        "gpu0": "'gpu0' is no device",
        "": "'' is no device",
        "cuda:0,cuda:0": "cannot share",
        "auto,cuda:0": "cannot share",
    }.items():
        with pytest.raises(UserError, match=says):
            devices_of(text)
    monkeypatch.setattr(local_executor, "nvidia", lambda query: "")
    assert devices_of("cuda:5") == ["cuda:5"]  # a machine without NVIDIA's tool may have cards all the same
    with pytest.raises(UserError, match="finds no graphics card"):
        devices_of("all")
