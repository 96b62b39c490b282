"""Jobs at the server: one job whatever happens to it, a worker that can die, and nothing left but the log."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys

import psutil
import pytest

from backend.server.jobs import JobStore
from backend.wire import Connection
from tests.serving import SETTINGS, RawClient, clip_that, ends, send, server, state_of, wait_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def raw(broker):
    with RawClient(broker.connection) as it:
        yield it


def test_submitting_twice_is_one_job_and_other_settings_are_another(raw, tmp_path):
    clip = clip_that(tmp_path, "refuse")
    first, second = send(raw, clip), send(raw, clip)
    assert first["job"] == second["job"]
    assert (first["existed"], second["existed"]) == (False, True)
    fields = {"sha256": hashlib.sha256(clip.read_bytes()).hexdigest(), "kind": "file", "name": "a.mp4", "size": 1}
    other = raw.ask("submit", **fields, settings={**SETTINGS, "clip": {"long_side": 256}})
    assert other["job"] != first["job"]
    assert (other["position"], other["state"]) == (1, "queued") or other["position"] == 2
    for reply in (first, other):
        ends(raw, reply["job"])


def test_events_are_numbered_and_can_be_asked_for_again_by_any_connection(broker, raw, tmp_path):
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    events = ends(raw, job)
    assert [e["n"] for e in events] == list(range(1, len(events) + 1))
    with RawClient(broker.connection) as later:
        assert later.ask("events", job=job, since=0)["events"] == events
        assert later.ask("events", job=job, since=4)["events"] == events[4:]
        assert later.ask("events", job=job, since=99)["events"] == []


def test_a_failed_job_says_why_and_is_tried_again_when_asked_for_again(raw, tmp_path):
    clip = clip_that(tmp_path, "refuse")
    job = send(raw, clip)["job"]
    last = ends(raw, job)[-1]
    assert (last["kind"], last["text"], last["hint"]) == ("failed", "The camera never moves", "choose another shot")
    again = send(raw, clip)
    assert (again["job"], again["existed"], again["since"]) == (job, False, last["n"])
    assert ends(raw, job)[-1]["n"] > last["n"]


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        ("die", "was killed"),
        pytest.param("segfault", r"crashed \(SIGSEGV\)", marks=pytest.mark.slow),
        pytest.param("exit", "code 7", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_dies_is_told_and_the_next_job_runs(raw, broker, tmp_path, deed, says):
    job, next_job = (send(raw, clip_that(tmp_path, words))["job"] for words in (deed, "refuse"))
    last = ends(raw, job)[-1]
    assert last["kind"] == "failed"
    assert re.search(says, last["text"])
    assert "log.txt" in last["hint"]
    assert [p.name for p in (broker._home / "jobs" / job).iterdir()] == ["log.txt"]
    assert ends(raw, next_job)[-1]["text"] == "The camera never moves"


def test_a_bug_leaves_its_traceback_in_the_log(raw, broker, tmp_path):
    job = send(raw, clip_that(tmp_path, "bug"))["job"]
    last = ends(raw, job)[-1]
    assert "ZeroDivisionError" in last["text"]
    assert "this is a bug; see the log" in last["hint"]
    assert "ZeroDivisionError: a mistake of ours" in (broker._home / "jobs" / job / "log.txt").read_text()


@pytest.mark.slow
def test_what_libraries_print_goes_to_the_log(raw, broker, tmp_path):
    job = send(raw, clip_that(tmp_path, "shout"))["job"]
    assert ends(raw, job)[-1]["kind"] == "done"
    assert "{not json" in (broker._home / "jobs" / job / "log.txt").read_text()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_a_full_disk_is_told_and_leaves_only_the_log(raw, broker, tmp_path):
    job = send(raw, clip_that(tmp_path, "small_disk"))["job"]
    last = ends(raw, job)[-1]
    assert last["kind"] == "failed"
    assert "could not be written" in last["text"]
    assert "free some space" in last["hint"]
    assert [p.name for p in (broker._home / "jobs" / job).iterdir()] == ["log.txt"]


@pytest.mark.parametrize("deed", [pytest.param("slow", marks=pytest.mark.slow), "deaf"])
@pytest.mark.slow
def test_cancel_frees_the_worker_and_leaves_only_the_log(raw, broker, tmp_path, deed):
    """`deaf` is inside a call that holds the interpreter's lock: only killing stops it."""
    job, waiting = (send(raw, clip_that(tmp_path, words))["job"] for words in (deed, "slow"))
    wait_for(lambda: raw.ask("status", job=job)["stage"] == "Looking")
    wait_for(lambda: list((broker._home / "jobs" / job).glob("scratch/*")))
    raw.ask("cancel", job=waiting)
    assert state_of(raw, waiting) == "cancelled"
    raw.ask("cancel", job=job)
    assert ends(raw, job)[-1]["kind"] == "cancelled"
    assert [p.name for p in (broker._home / "jobs" / job).iterdir()] == ["log.txt"]
    assert ends(raw, send(raw, clip_that(tmp_path, "refuse"))["job"])[-1]["kind"] == "failed"


@pytest.mark.slow
def test_deleting_forgets_a_job_that_has_ended(raw, broker, tmp_path):
    job = send(raw, clip_that(tmp_path, "slow"))["job"]
    assert raw.ask("delete", job=job)["code"] == "busy"
    raw.ask("cancel", job=job)
    ends(raw, job)
    assert raw.ask("delete", job=job)["t"] == "delete"
    assert raw.ask("status", job=job)["code"] == "no_such_job"
    assert not (broker._home / "jobs" / job).exists()


def test_a_result_that_is_gone_from_the_disk_is_made_again(raw, broker, tmp_path):
    clip = clip_that(tmp_path, "work")
    job = send(raw, clip)["job"]
    assert ends(raw, job)[-1]["kind"] == "done"
    shutil.rmtree(broker._home / "jobs" / job / "capture")
    again = send(raw, clip)
    assert (again["job"], again["existed"]) == (job, False)
    assert ends(raw, job)[-1]["kind"] == "done"
    assert (broker._home / "jobs" / job / "capture" / "capture.json").is_file()


def test_what_ended_long_ago_is_forgotten_with_its_files(tmp_path):
    home = tmp_path / "home"
    with server(home) as it, RawClient(it.connection) as raw:
        old, new = (send(raw, clip_that(tmp_path, "refuse"))["job"] for _ in range(2))
        for job in (old, new):
            ends(raw, job)
        it._store._db.execute("UPDATE jobs SET used = used - 15 * 24 * 3600 WHERE id = ?", (old,))
        unused = next(path for path in (home / "uploads").rglob("*") if path.is_file())
        os.utime(unused, (1, 1))
    with server(home) as it, RawClient(it.connection) as raw:
        assert [row["job"] for row in raw.ask("list", first=0)["jobs"]] == [new]
        assert [p.name for p in (home / "jobs").iterdir()] == [new]
        assert not unused.exists()


# The server's own end


@pytest.mark.slow
def test_a_job_that_ran_when_the_server_ended_is_done_by_the_next_one(tmp_path):
    with server(tmp_path / "home") as first, RawClient(first.connection) as raw:
        job = send(raw, clip_that(tmp_path, "slow"))["job"]
        wait_for(lambda: state_of(raw, job) == "running")
        waiting = send(raw, clip_that(tmp_path, "refuse"))["job"]
        assert raw.ask("shutdown", how="now")["t"] == "shutdown"
    with server(tmp_path / "home") as second, RawClient(second.connection) as raw:
        assert state_of(raw, job) in ("queued", "running")
        raw.ask("cancel", job=job)
        kinds = [e["kind"] for e in ends(raw, job)]
        assert kinds[-1] == "cancelled"
        assert kinds.count("queued") == 2
        assert ends(raw, waiting)[-1]["kind"] == "failed"


@pytest.mark.slow
def test_draining_ends_after_the_running_job(tmp_path):
    with server(tmp_path / "home") as it, RawClient(it.connection) as raw:
        job = send(raw, clip_that(tmp_path, "work"))["job"]
        wait_for(lambda: state_of(raw, job) == "running")
        raw.ask("shutdown", how="drain")
        assert (
            raw.ask("submit", sha256="0" * 64, kind="file", name="a", size=1, settings=SETTINGS)["code"] == "stopping"
        )
        wait_for(lambda: not (tmp_path / "home" / "connection.json").exists())
    store = JobStore(tmp_path / "home" / "jobs.db")
    assert store.find(job).state == "done"
    store.close()


def test_a_mistake_in_the_loop_does_not_take_the_server(tmp_path, monkeypatch):
    with server(tmp_path / "home") as it, RawClient(it.connection) as raw:
        with monkeypatch.context() as patch:
            patch.setattr(it._scheduler, "tick", lambda: 1 / 0)
            job = send(raw, clip_that(tmp_path, "refuse"))["job"]
            wait_for(lambda: it._rests_until > 0)
            assert state_of(raw, job) == "queued"
        assert ends(raw, job)[-1]["text"] == "The camera never moves"


@pytest.mark.slow
def test_a_database_on_a_full_disk_holds_the_queue_up_and_loses_nothing(tmp_path):
    with server(tmp_path / "home") as it, RawClient(it.connection) as raw:
        job = send(raw, clip_that(tmp_path, "work"))["job"]
        wait_for(lambda: state_of(raw, job) == "running")
        # SQLite's own way to a full disk: no page more than there are.
        pages = it._store._db.execute("PRAGMA page_count").fetchone()[0]
        it._store._db.execute(f"PRAGMA max_page_count = {pages}")
        fill_up(it._store, job)
        wait_for(lambda: (tmp_path / "home" / "jobs" / job / "capture" / "capture.json").is_file())
        assert raw.ask("ping")["t"] == "ping"
        assert state_of(raw, job) == "running"
        it._store._db.execute("PRAGMA max_page_count = 1000000")
        assert ends(raw, job)[-1]["kind"] == "done"


def fill_up(store, job):
    """Events until not even an empty one finds room in a page that stands."""
    for length in (3000, 300, 30, 0):
        with contextlib.suppress(sqlite3.OperationalError):
            while True:
                store.add_event(job, "log", "x" * length)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_workers_do_not_outlive_a_killed_server(tmp_path):
    code = (
        "import sys; from pathlib import Path; from backend.server.broker import Broker;"
        "from tests.serving import WORKER; Broker(Path(sys.argv[1]), worker_command=WORKER).run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home")])
    try:
        wait_for(lambda: (tmp_path / "home" / "connection.json").is_file())
        with RawClient(Connection.read(tmp_path / "home" / "connection.json")) as raw:
            job = send(raw, clip_that(tmp_path, "slow"))["job"]
            wait_for(lambda: raw.ask("status", job=job)["stage"] == "Looking")
        workers = psutil.Process(process.pid).children(recursive=True)
        assert workers
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert psutil.wait_procs(workers, timeout=90)[1] == []
