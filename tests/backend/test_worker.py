"""Workers: whatever ends one is told for what it was, and nothing of it is left."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from backend.run import Progress
from backend.server import belongings, endings, process, pulse, vitals
from backend.server.endings import Vitals, silent_end
from backend.server.process import Outcome, WorkerProcess
from backend.server.pulse import Pulse, Signs
from tests.serving import PATIENCE_S, SETTINGS, WORKER, clip_that, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell of processes")


class Job:
    """A job of the pipeline for tests in a worker of its own, without a server."""

    def __init__(self, folder: Path, *words: str, **options) -> None:
        clip = clip_that(folder / "clips", *words)
        work = folder / clip.stem
        self.cleaned: list[Outcome] = []
        spec = {
            "clip": {"path": str(clip)},
            "masks": None,
            "settings": SETTINGS,
            "out": str(work / "capture"),
            "scratch": str(work / "scratch"),
            "log": str(work / "log.txt"),
            "cache": str(folder / "cache"),
            "replace": True,
        }
        self.log = work / "log.txt"
        self.worker = WorkerProcess(spec, self.log, command=WORKER, cleanup=self.cleaned.append, **options)
        self.said: list[dict] = []

    def until(self, kind: str, text: str = "") -> dict:
        """The next message of that kind that holds the text."""
        while True:
            event = self.worker.events.get(timeout=PATIENCE_S)
            assert isinstance(event, dict), f"the job ended before: {event}"
            self.said.append(event)
            if event["t"] == kind and text in event.get("text", event.get("stage", "")):
                return event

    def end(self) -> Outcome:
        """The outcome, once everything of the worker is gone."""
        while True:
            event = self.worker.events.get(timeout=PATIENCE_S)
            if isinstance(event, Outcome):
                assert self.cleaned == [event]
                assert belongings.bearers(self.worker._mark) == []
                assert not psutil.pid_exists(self.worker.pid)
                return event
            self.said.append(event)


@pytest.fixture
def job(tmp_path):
    begun: list[Job] = []

    def begin(*words: str, **options) -> Job:
        begun.append(Job(tmp_path, *words, **options))
        return begun[-1]

    yield begin
    for each in begun:
        each.worker.kill()
        each.worker.join(5)


@pytest.fixture
def impatient(monkeypatch):
    """A parent that looks early; the worker is the same."""
    monkeypatch.setattr(pulse, "QUIET_S", 1.5)
    monkeypatch.setattr(pulse, "STILL_MOST_S", 2.0)


# Heartbeats


@linux
@pytest.mark.parametrize(("deed", "says"), [("stop", "stopped from outside"), ("deaf", "did nothing at all")])
def test_a_worker_that_hangs_is_killed_and_told(job, impatient, deed, says):
    """`stop` is stopped by a signal; `deaf` sleeps in a call that keeps the interpreter's lock for ever."""
    outcome = job(deed).end()
    assert (outcome.state, outcome.cause, outcome.bug) == ("failed", "hang", True)
    assert re.search(rf"hung in 'Looking' and was killed: it was {says}|: it {says}", outcome.message)
    assert "log.txt" in outcome.hint


@linux
def test_a_worker_inside_a_long_call_is_left_alone(job, impatient):
    """The call takes longer than the parent's patience with a worker that does nothing."""
    it = job("grind", "5")
    began = time.monotonic()
    outcome = it.end()
    assert outcome.state == "done"
    assert time.monotonic() - began > pulse.QUIET_S + pulse.STILL_MOST_S


def test_a_hang_is_seen_within_fifteen_seconds():
    assert pulse.HEARTBEAT_S + pulse.QUIET_S + pulse.STILL_MOST_S + 2 * pulse.LOOK_S < 15


def looks(monkeypatch, signs: list[Signs | None]) -> list[str]:
    """What a pulse says at each look a second apart, when the process shows these signs and says nothing."""
    it = Pulse(1)
    rest = iter(signs)
    monkeypatch.setattr(pulse, "signs_of", lambda pid: next(rest))
    return [it.look(1.0) for _ in range(len(signs) + 2)]  # two looks are too early to ask for signs


IDLE = Signs(cpu_s=5.0, disk=10, wants=False, stopped=False)


def test_waiting_for_the_disk_or_a_processor_is_work(monkeypatch):
    waits = [Signs(5.0, 10, wants=True, stopped=False)] * 60
    reads = [Signs(5.0, 10 + n, wants=False, stopped=False) for n in range(60)]
    works = [Signs(5.0 + 0.5 * n, 10, wants=False, stopped=False) for n in range(60)]
    for signs in (waits, reads, works):
        assert set(looks(monkeypatch, signs)) == {""}
    assert "did nothing" in looks(monkeypatch, [IDLE] * 12)[-1]


def test_threads_that_only_look_around_are_no_work(monkeypatch):
    turning = [Signs(5.0 + 0.01 * n, 10, wants=False, stopped=False) for n in range(12)]
    assert "did nothing" in looks(monkeypatch, turning)[-1]


def test_one_that_never_stops_working_and_never_speaks_is_seen_at_last(monkeypatch):
    grinds = [Signs(float(n), 10, wants=True, stopped=False) for n in range(1000)]
    said = looks(monkeypatch, grinds)
    assert (said[800], said[-1]) == ("", "it worked on without a word for 17 minutes")


def test_a_parent_that_was_itself_stopped_does_not_blame_the_worker():
    it = Pulse(os.getpid())
    assert it.look(3600.0) == ""


def test_without_a_kernel_that_tells_silence_must_be_long(monkeypatch):
    said = looks(monkeypatch, [None] * 200)
    assert said[100] == ""
    assert "said nothing" in said[-1]


def test_a_word_resets_the_patience(monkeypatch):
    monkeypatch.setattr(pulse, "signs_of", lambda pid: IDLE)
    it = Pulse(1)
    for _ in range(10):
        assert {it.look(1.0) for _ in range(8)} == {""}
        it.heard()


# Ends


@pytest.mark.parametrize(
    ("deed", "cause", "says"),
    [
        ("die", "crash", "was killed in 'Looking' by another program or a person"),
        ("segfault", "crash", r"crashed \(SIGSEGV\) in 'Looking'"),
        ("exit", "crash", "ended with code 7 in 'Looking'"),
        ("no_memory python", "out_of_memory", "memory of this machine ran out"),
        ("no_memory torch", "out_of_memory", "memory of the graphics card ran out"),
        ("no_memory cuda", "out_of_memory", "memory of the graphics card ran out"),
        ("no_memory card", "crash", "graphics card failed .*illegal memory access"),
        ("bug", "", "ZeroDivisionError: a mistake of ours"),
        ("refuse", "", "camera never moves"),
    ],
)
def test_each_end_has_its_cause_and_its_advice(job, deed, cause, says):
    outcome = job(*deed.split()).end()
    assert (outcome.state, outcome.cause) == ("failed", cause)
    assert re.search(says, outcome.message)
    assert outcome.hint


@linux
def test_a_worker_that_somebody_ends_has_not_crashed(job):
    it = job("slow")
    it.until("log", "looking")
    os.kill(it.worker.pid, signal.SIGTERM)
    outcome = it.end()
    assert "was ended in 'Looking' by another program or a person" in outcome.message


def test_a_picture_that_never_comes_stops_the_clip_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(vitals, "PICTURE_MOST_S", 0.3)
    monkeypatch.setattr(vitals, "HEARTBEAT_S", 0.05)
    stuck: list[float] = []
    heart = vitals.Heart("Reading the clip", lambda *memory: None, lambda: stuck.append(time.monotonic()))
    heart.report(Progress("Aligning", 0.5, 0.5, None))
    time.sleep(0.6)
    assert stuck == []
    began = time.monotonic()
    heart.report(Progress("Reading the clip", 0.1, 0.1, None))
    wait_for(lambda: stuck)
    assert 0.3 <= stuck[0] - began < 1.5


@linux
def test_a_crash_leaves_where_it_was_in_the_log(job):
    it = job("segfault")
    it.end()
    assert "Fatal Python error: Segmentation fault" in it.log.read_text()
    assert "in segfault" in it.log.read_text()


def killed(tmp_path, **known) -> dict:
    return silent_end(-signal.SIGKILL, Vitals(tmp_path / "log.txt", stage="Aligning", **known))


def test_the_kernel_s_count_of_the_killed_tells_a_want_of_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(endings, "oom_counts", lambda: {"group": 3, "machine": 7})
    told = killed(tmp_path, ooms_before={"group": 2, "machine": 6}, memory_bytes=12_300_000_000)
    assert told["cause"] == "out_of_memory"
    assert "in 'Aligning' (the kernel counted it in this group of processes, it held 12.3 GB)" in told["message"]
    assert "lower Resolution" in told["hint"]
    assert "on this machine" in killed(tmp_path, ooms_before={"group": 3, "machine": 6})["message"]
    assert killed(tmp_path, ooms_before={"group": 3, "machine": 7})["cause"] == "crash"


def test_without_a_count_the_last_heartbeat_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(endings, "oom_counts", dict)
    monkeypatch.setattr(endings, "memory_total", lambda: 16_000_000_000)
    told = killed(tmp_path, memory_bytes=14_000_000_000, memory_free=200_000_000)
    assert (told["cause"], "0.2 GB of memory were free" in told["message"]) == ("out_of_memory", True)
    assert killed(tmp_path, memory_bytes=1_000_000_000, memory_free=200_000_000)["cause"] == "crash"
    assert killed(tmp_path, memory_bytes=14_000_000_000, memory_free=8_000_000_000)["cause"] == "crash"
    assert killed(tmp_path)["cause"] == "crash"


@linux
def test_the_kernel_s_counts_are_read_here():
    assert endings.oom_counts()["machine"] >= 0


def test_a_crash_while_the_clip_is_read_blames_the_clip(tmp_path):
    told = silent_end(-signal.SIGSEGV, Vitals(tmp_path / "log.txt", stage=endings.READING))
    assert "re-encode it" in told["hint"]


# Its children


@linux
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_children_that_left_the_group_end_with_the_worker(job, how):
    it = job("family")
    children = [int(n) for n in it.until("log", "children")["text"].split()[1:]]
    assert all(psutil.pid_exists(n) for n in children)
    getattr(it.worker, how)()
    outcome = it.end()
    assert (outcome.state, outcome.cause) == (("cancelled", "") if how == "cancel" else ("failed", "lost"))
    assert not any(is_running(n) for n in children)


@linux
def test_a_child_that_holds_the_pipe_does_not_hide_the_worker_s_death(job):
    outcome = job("orphans").end()
    assert outcome.cause == "crash"


@linux
@pytest.mark.parametrize("deed", ["deaf", "family"])
def test_nothing_outlives_a_killed_parent(tmp_path, deed):
    """`deaf` cannot notice that its parent is gone; the guard does."""
    code = (
        "import sys, time; from pathlib import Path; from tests.backend.test_worker import Job;"
        "it = Job(Path(sys.argv[1]), sys.argv[2]);"
        "it.until('log', 'looking'); print(it.worker._mark, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), deed], stdout=subprocess.PIPE, text=True
    ) as parent:
        mark = parent.stdout.readline().strip()
        least = {"deaf": 2, "family": 4}[deed]  # the worker and its guard; two children
        wait_for(lambda: len(belongings.bearers(mark)) >= least)
        parent.kill()
    wait_for(lambda: belongings.bearers(mark) == [], patience_s=5)


def test_a_deaf_worker_is_killed_after_the_grace(job):
    it = job("deaf")
    it.until("log", "looking")
    began = time.monotonic()
    it.worker.cancel()
    assert it.end().state == "cancelled"
    assert process.CANCEL_GRACE_S - 0.1 < time.monotonic() - began < process.CANCEL_GRACE_S + 3


# What it tells of itself


def test_the_outcome_has_what_the_job_took(job):
    report = job("work").end().report
    assert [name for name, _ in report["stages"]] == ["Looking", "Writing the capture"]
    assert all(seconds >= 0 for _, seconds in report["stages"])
    assert 20e6 < report["peak_memory_bytes"] < 2e9
    assert "peak_gpu_bytes" not in report


@linux
def test_of_a_worker_that_died_the_heartbeats_tell_the_memory(job):
    it = job("slow")
    wait_for(lambda: it.worker._peak_bytes)
    os.kill(it.worker.pid, signal.SIGKILL)
    assert it.end().report["peak_memory_bytes"] > 20e6


def test_a_step_down_the_ladder_is_told_once(job):
    it = job("retry")
    assert it.end().state == "done"
    told = [event for event in it.said if "Out of memory" in event.get("text", "")]
    assert told == [{"t": "retry", "text": "Out of memory with 8 pairs at once; going on with 4"}]


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
