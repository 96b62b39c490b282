"""What can go wrong beside kill -9, each with its target: docs/faults.md has the table.

Real servers and workers; the pipeline is tests/chaos/pipeline.py, whose captures are known to the last byte.
"""

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from backend.wire import JobSettings
from blender_addon.client import Disconnected, JobDone, JobFailed, JobLog, JobProgress, JobQueued
from tests import serving
from tests.chaos.pipeline import STAGES, differences, write_clip
from tests.chaos.processes import server_process
from tests.serving import RawClient, client, collect, end_of, ends, send, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
]
SEEN_MOST_S = 15.0


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with server_process(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def ledger(tmp_path) -> Path:
    return tmp_path / "ledger.txt"


def begun(ledger: Path) -> list[tuple[int, str]]:
    """(process, stage) of all stages that began to compute."""
    rows = [line.split() for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return [(int(pid), stage) for pid, _, what, stage in rows if what == "begin"]


def whole(out: Path, tmp_path: Path, number: int, clip: Path) -> bool:
    """Whether every byte of a capture is right."""
    return differences(out, tmp_path / "truth", number, clip) == ""


# Hangs


def test_a_worker_that_is_stopped_is_seen_killed_and_its_job_goes_on_in_another(server, tmp_path, ledger):
    clip = write_clip(tmp_path / "1.mp4", 1, ledger, stage_s=0.3)
    with client(server.connection) as it:
        ticket = it.submit(clip, JobSettings(), tmp_path / "out")
        wait_for(lambda: any(stage == "Solving" for _, stage in begun(ledger)))
        stopped = psutil.Process(begun(ledger)[-1][0])
        stopped.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        wait_for(lambda: not stopped.is_running(), 2 * SEEN_MOST_S)
        seen_s = time.monotonic() - began
        events = collect(it, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events))
    print(f"a stopped worker was killed after {seen_s:.1f} s")
    assert seen_s < SEEN_MOST_S
    assert isinstance(events[-1], JobDone), events[-1]
    assert events[-1].ticket == ticket
    assert [e.text for e in events if isinstance(e, JobLog) and e.level == "retry" and "hung" in e.text]
    assert whole(tmp_path / "out", tmp_path, 1, clip)
    assert len({pid for pid, _ in begun(ledger)}) == 2, "tried once more"
    first = [stage for pid, stage in begun(ledger) if pid == stopped.pid]
    second = [stage for pid, stage in begun(ledger) if pid != stopped.pid]
    assert first + second[second[0] == first[-1] :] == list(STAGES), "only the stage that was stopped is computed again"


def test_a_server_whose_loop_stands_still_is_seen_by_its_clients_and_goes_on(tmp_path, monkeypatch):
    """ZeroMQ's own heartbeats are answered by a thread that never stands still: they see nothing."""
    with serving.server(tmp_path / "home") as broker, client(broker.connection) as it:
        ticket = it.submit(serving.clip_that(tmp_path, "slow"), JobSettings(), tmp_path / "out")
        collect(it, lambda events: any(isinstance(e, JobProgress) for e in events))
        tick, stand_still = broker._tick, [6.0]

        def stuck():
            time.sleep(stand_still.pop() if stand_still else 0)
            tick()

        monkeypatch.setattr(broker, "_tick", stuck)
        began = time.monotonic()
        events = collect(it, lambda events: any(isinstance(e, Disconnected) for e in events))
        seen_s = time.monotonic() - began
        print(f"a server that stands still was seen after {seen_s:.1f} s")
        assert seen_s < SEEN_MOST_S
        assert "does not answer" in next(e.reason for e in events if isinstance(e, Disconnected))
        collect(it, lambda events: any(isinstance(e, JobProgress) for e in events))
        it.cancel(ticket)
        assert type(end_of(it, ticket)).__name__ == "JobCancelled"


# Crashes and memory


def test_a_stage_that_crashes_is_tried_twice_and_then_told_with_its_reason(server, tmp_path, ledger):
    with RawClient(server.connection) as raw:
        job = send(raw, write_clip(tmp_path / "2.mp4", 2, ledger, stage_s=0.0, trouble="crash"))["job"]
        events = ends(raw, job)
    assert [stage for _, stage in begun(ledger)] == ["Reading", "Matching", "Solving", "Solving"]
    assert len({pid for pid, _ in begun(ledger)}) == 2
    assert [e["kind"] for e in events].count("retry") == 1
    last = events[-1]
    assert last["kind"] == "failed"
    assert "SIGSEGV" in last["text"]
    assert "Solving" in last["text"]
    assert "log.txt" in last["hint"]
    assert "Segmentation fault" in (server.home / "jobs" / job / "log.txt").read_text(), "where it was"


def test_out_of_memory_goes_down_the_ladder_and_each_step_is_an_event(server, tmp_path):
    clip = write_clip(tmp_path / "3.mp4", 3, stage_s=0.0, trouble="memory")
    with client(server.connection) as it:
        it.submit(clip, JobSettings(), tmp_path / "out")
        events = collect(it, lambda events: any(isinstance(e, JobDone | JobFailed) for e in events), 60)
    assert isinstance(events[-1], JobDone), events[-1]
    steps = [e.text for e in events if isinstance(e, JobLog) and e.level == "retry"]
    assert steps == [f"Out of memory with {n} pieces at once; going on with {n // 2}" for n in (16, 8, 4)]
    assert whole(tmp_path / "out", tmp_path, 3, clip)


# Clocks


def test_a_clock_that_jumps_a_month_loses_no_job_and_keeps_the_order(tmp_path, ledger):
    """A month ahead while jobs wait, and back: the order they came in stays, and nothing is too old meanwhile."""
    clock = tmp_path / "clock"
    month = 30 * 24 * 3600
    clock.write_text("0")
    options = {"environment": {"KINORA_TEST_CLOCK": str(clock)}}
    clips = [write_clip(tmp_path / f"{n}.mp4", n, ledger, stage_s=0.1) for n in range(10, 16)]
    with server_process(tmp_path / "home", **options) as server:
        with client(server.connection) as it, RawClient(server.connection) as raw:
            tickets = []
            for clip, jump in zip(clips, (0, month, 2 * month, 0, -month, 0)):
                clock.write_text(str(jump))
                tickets.append(it.submit(clip, JobSettings(), tmp_path / clip.stem))
                collect(it, lambda events: any(isinstance(e, JobQueued) for e in events))
                assert raw.ask("ping")["t"] == "ping"
            before = time.monotonic()
            assert isinstance(end_of(it, tickets[-1], 60), JobDone)
            assert time.monotonic() - before < 45
            jobs = {row["job"] for row in raw.ask("list", first=0)["jobs"]}
        assert len(jobs) == len(clips)
        order = list(dict.fromkeys(line.split()[1] for line in ledger.read_text().splitlines()))
        assert order == [clip.stem for clip in clips], "the order in which they came"
        assert len(begun(ledger)) == len(STAGES) * len(clips), "nothing was done twice"
        for clip in clips:
            assert whole(tmp_path / clip.stem, tmp_path, int(clip.stem), clip)
        server.stop()
        for jump in (month, -month, 0):  # three starts under a wrong clock, with their sweeps of what is old
            clock.write_text(str(jump))
            server.start()
            server.answers()
            with RawClient(server.connection) as raw:
                rows = raw.ask("list", first=0)["jobs"]
                assert {row["job"] for row in rows} == jobs
                assert {row["state"] for row in rows} == {"done"}
                for row in rows:
                    assert raw.ask("result_index", job=row["job"], first=0)["total"] > len(STAGES)
            server.stop()
        server.start()
        server.answers()
