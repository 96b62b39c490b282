"""What every `Executor` owes the scheduler, whether it runs jobs here or on a cluster; the workers are real ones."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from backend.server.executor import Executor, Running
from backend.server.process import Outcome
from backend.wire import ClipSettings, JobSettings, LensSettings, LiveFrame, read_capture
from tests.footage import write_video
from tests.serving import SETTINGS, clip_that, wait_for
from tests.worlds import locked_off

WORKER = (sys.executable, "-m", "backend.server.worker", "--pipeline", "tests.pipeline_for_tests")
EXACT = (*WORKER[:-1], "tests.cluster.one_thread")
PATIENCE_S = 120.0


class Job:
    """A job for an executor: its footage and folders, and what it heard."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.clip = clip_that(folder / "clips", *words)
        self.folder = folder / f"job-{time.monotonic_ns()}"
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log.txt"
        self.capture = self.folder / "capture"
        self.events: list[dict[str, Any]] = []
        self.cleaned: Outcome | None = None
        self.notified = threading.Event()
        self.spec = {
            "clip": {"path": str(self.clip)},
            "masks": None,
            "settings": SETTINGS,
            "out": str(self.capture),
            "scratch": str(self.folder / "scratch"),
            "log": str(self.log),
            "cache": str(folder / "cache"),
            "live": str(self.folder / "live"),
            "replace": True,
        }

    def start(self, executor: Executor) -> Job:
        """Give it to the executor."""
        self.running: Running = executor.start(
            self.spec, self.log, notify=self.notified.set, cleanup=lambda outcome: setattr(self, "cleaned", outcome)
        )
        return self

    def hears(self, kind: str) -> dict[str, Any]:
        """The next event of a kind."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                event = self.running.events.get(timeout=0.5)
                assert not isinstance(event, Outcome), event
                self.events.append(event)
                if event["t"] == kind:
                    return event
        raise AssertionError(f"no {kind} among {self.events}")

    def outcome(self) -> Outcome:
        """How it ended; it is the last that is heard."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                event = self.running.events.get(timeout=0.5)
                if isinstance(event, Outcome):
                    assert self.cleaned == event
                    assert self.running.events.empty()
                    return event
                self.events.append(event)
        raise AssertionError(f"no outcome after {self.events}")


class ExecutorContract:
    """Tests of what a class's `new_executor` makes: two slots, the worker of `WORKER`, all files below a home."""

    @staticmethod
    def new_executor(home: Path) -> Executor:
        """An executor to be tested."""
        raise NotImplementedError

    def test_a_job_gives_its_capture_and_its_slot_back(self, executor, home):
        wait_for(lambda: executor.free() == 2)
        job = Job(home, "work").start(executor)
        assert executor.free() == 1
        outcome = job.outcome()
        assert (outcome.state, outcome.message) == ("done", "")
        there = {path.name: path.stat().st_size for path in job.capture.iterdir()}
        assert there == {file["name"]: file["size"] for file in outcome.files}
        assert there["ballast.npy"] > 2_000_000
        assert read_capture(job.capture).frame_count == 2
        assert [e["stage"] for e in job.events if e["t"] == "progress"][-1] == "Writing the capture"
        assert any(e["t"] == "log" and "looking at 1 files" in e["text"] for e in job.events)
        assert job.notified.is_set()
        assert executor.free() == 2

    def test_two_jobs_run_side_by_side(self, executor, home):
        jobs = [Job(home, "slow").start(executor) for _ in range(2)]
        for job in jobs:
            job.hears("progress")
        assert executor.free() == 0
        for job in jobs:
            job.running.cancel()
        assert [job.outcome().state for job in jobs] == ["cancelled", "cancelled"]

    def test_a_refusal_says_what_the_pipeline_said(self, executor, home):
        outcome = Job(home, "refuse").start(executor).outcome()
        assert outcome == Outcome("failed", "The camera never moves", "choose another shot", report=outcome.report)

    def test_a_crash_is_a_crash(self, executor, home):
        job = Job(home, "segfault").start(executor)
        outcome = job.outcome()
        assert (outcome.state, outcome.cause, outcome.bug) == ("failed", "crash", True)
        assert "SIGSEGV" in outcome.message
        assert str(job.log) in outcome.hint
        assert "Segmentation fault" in job.log.read_text()

    def test_a_job_that_does_not_listen_is_cancelled_all_the_same(self, executor, home):
        job = Job(home, "deaf").start(executor)
        job.hears("progress")
        began = time.monotonic()
        job.running.cancel()
        job.running.cancel()
        assert job.outcome().state == "cancelled"
        assert time.monotonic() - began < 15
        assert workers_below(home) == []
        assert not job.capture.exists()

    def test_a_killed_job_ends_at_once_and_leaves_nobody(self, executor, home):
        job = Job(home, "slow").start(executor)
        job.hears("progress")
        job.running.kill()
        job.running.join(PATIENCE_S)
        outcome = job.outcome()
        assert (outcome.state, outcome.cause) == ("failed", "lost")
        assert workers_below(home) == []

    def test_what_a_job_shows_can_be_read_when_it_is_told(self, executor, home):
        job = Job(home, "show", "3", "0.05").start(executor)
        for number in (1, 2, 3):
            event = job.hears("live")
            assert (event["n"], event["frame"]) == (number, number - 1)
            data = (job.folder / "live" / f"{number - 1:06d}.live").read_bytes()
            assert LiveFrame.decode(data).frame == number - 1
        assert job.outcome().state == "done"

    def test_jobs_find_results_of_earlier_ones(self, executor, home):
        """The memory of stages is one for all jobs of a node."""
        looked = []
        for _ in range(2):
            job = Job(home, "remember").start(executor)
            assert job.outcome().state == "done"
            looked.append(any("for the first time" in e.get("text", "") for e in job.events))
        assert looked == [True, False]

    def test_closing_ends_what_runs(self, make, home):
        executor = make()
        job = Job(home, "slow").start(executor)
        job.hears("progress")
        executor.close()
        job.running.join(PATIENCE_S)
        assert workers_below(home) == []


def content(capture: Path) -> dict[str, Any]:
    """A capture's files, without what tells when and where they were made."""
    files: dict[str, Any] = {path.name: path.read_bytes() for path in sorted(capture.iterdir())}
    told = json.loads(files["capture.json"])
    told["clip"].pop("source")
    told.pop("created", None)
    told.pop("timings", None)
    return {**files, "capture.json": told}


def long_job(folder: Path) -> Job:
    """A job of the classical engine on a clip of two pieces of flow, soon solved: the camera stands."""
    job = Job(folder, "work")
    world = locked_off(20, 128, 72)
    job.spec["clip"] = {"path": str(write_video(folder / "long.mp4", world.rgb))}
    job.spec["settings"] = JobSettings(
        lens=LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36), clip=ClipSettings(long_side=128)
    ).to_json()
    return job


def assert_helped(job: Job) -> None:
    """A helper was there, and pieces of the flow are in the cache."""
    assert "1 more worker helps with it" in [event.get("text") for event in job.events]
    assert len(list(Path(job.spec["cache"]).glob("flow-of-some-frames.*"))) == 2


def assert_same(job: Job, local: Executor) -> None:
    """The local executor makes the same capture of the job's clip, without anybody's pieces."""
    alone = Job(job.folder.parent, "work")
    alone.spec |= {"clip": job.spec["clip"], "settings": job.spec["settings"], "cache": None}
    assert alone.start(local).outcome().state == "done"
    local.close()
    ours, theirs = content(job.capture), content(alone.capture)
    assert [name for name in theirs if ours.get(name) != theirs[name]] == []
    assert ours.keys() == theirs.keys()


def workers_below(home: Path) -> list[int]:
    """Processes whose log is below a folder, once those that are ending had two seconds."""
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    deadline = time.monotonic() + 2
    while True:
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError):
                below = os.readlink(process / "fd" / "2").startswith(str(home))
                if below and (process / "cmdline").read_bytes().split(b"\0")[2] == b"backend.server.worker":
                    found.append(int(process.name))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)
