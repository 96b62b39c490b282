"""The job store: files of an older Kinora, ids that a client chose, what is kept, and clocks that jump."""

import sqlite3
import time

import pytest

from backend.server import clock
from backend.server.clock import GAP_MOST_S, AgeClock
from backend.server.job import Kept
from backend.server.jobs import TICKETS_MOST, JobStore
from backend.server.retention import DAY_S, ENDED_MAX, GIB, RECENT_S, Keeping, Retention, to_forget
from backend.server.schema import VERSION
from backend.wire import UserError

VERSION_1 = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL, name TEXT NOT NULL,
    engine TEXT NOT NULL, created REAL NOT NULL, queued REAL NOT NULL, ended REAL, attempt INTEGER NOT NULL DEFAULT 1,
    since INTEGER NOT NULL DEFAULT 0, last INTEGER NOT NULL DEFAULT 0, files TEXT NOT NULL DEFAULT '[]'
);
CREATE TABLE events (
    job TEXT NOT NULL, n INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, level TEXT NOT NULL,
    text TEXT NOT NULL, hint TEXT NOT NULL, PRIMARY KEY (job, n)
) WITHOUT ROWID;
CREATE INDEX jobs_by_state ON jobs (state, queued);
INSERT INTO jobs VALUES ('done1', 'a', 'done', '{"clip": {"path": "/clip.mp4"}}', 'clip.mp4', 'classical',
    100.0, 100.0, 200.0, 2, 3, 5, '[{"name": "depth.npy", "size": 1000}, {"name": "capture.json", "size": 24}]');
INSERT INTO jobs VALUES ('wait2', 'a', 'queued', '{}', 'b.mp4', 'classical', 50.0, 400.0, NULL, 1, 0, 1, '[]');
INSERT INTO jobs VALUES ('wait1', 'a', 'queued', '{}', 'c.mp4', 'classical', 60.0, 300.0, NULL, 1, 0, 1, '[]');
INSERT INTO jobs VALUES ('runs', 'b', 'running', '{}', 'd.mp4', 'monst3r', 70.0, 70.0, NULL, 1, 0, 2, '[]');
INSERT INTO events VALUES ('done1', 5, 200.0, 'done', 'info', '', '');
PRAGMA user_version = 1;
"""


@pytest.fixture
def store(tmp_path):
    it = JobStore(tmp_path / "jobs.db")
    yield it
    it.close()


def submit(store, job, owner="a", **options):
    return store.submit(job, owner, {"clip": {"path": "/clip.mp4"}}, "clip.mp4", "classical", **options)


# Files of other versions


def test_a_file_of_version_1_becomes_one_of_today_and_loses_nothing(tmp_path):
    old = sqlite3.connect(tmp_path / "jobs.db")
    old.executescript(VERSION_1)
    old.close()
    store = JobStore(tmp_path / "jobs.db")
    done = store.find("done1")
    assert (done.state, done.attempt, done.since, done.last) == ("done", 2, 3, 5)
    assert (done.created, done.ended, done.bytes) == (100.0, 200.0, 1024)
    assert done.spec == {"clip": {"path": "/clip.mp4"}}
    assert [file["name"] for file in done.files] == ["depth.npy", "capture.json"]
    assert (done.priority, done.pinned, done.resumed, done.faults) == (0, False, False, {})
    assert store.events("done1", 0)[0]["kind"] == "done"
    assert store.order() == ["wait1", "wait2"], "in the order of the old queue"
    assert [job.id for job in store.of_owner("a", 0)[0]] == ["done1", "wait1", "wait2"], "the newest first"
    assert store.running() == ["runs"]
    assert store.now() - done.used < 60, "kept as if it had ended today: its age is not known for certain"
    store.submit("new", "a", {}, "e.mp4", "classical")
    assert store.order() == ["wait1", "wait2", "new"]
    store.close()
    again = sqlite3.connect(tmp_path / "jobs.db")
    assert again.execute("PRAGMA user_version").fetchone()[0] == VERSION == 2
    again.close()


def test_a_migration_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    old = sqlite3.connect(tmp_path / "jobs.db")
    old.executescript(VERSION_1)
    old.close()
    from backend.server import schema

    monkeypatch.setattr(schema, "STEPS", (schema.FIRST, schema.SECOND + "CREATE TABLE jobs (id TEXT);"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        JobStore(tmp_path / "jobs.db")
    monkeypatch.undo()
    store = JobStore(tmp_path / "jobs.db")
    assert store.order() == ["wait1", "wait2"]
    store.close()


def test_a_file_of_a_newer_kinora_is_refused_and_left_alone(tmp_path):
    newer = sqlite3.connect(tmp_path / "jobs.db")
    newer.executescript("CREATE TABLE other (x); PRAGMA user_version = 99;")
    newer.close()
    with pytest.raises(UserError, match="written by a newer Kinora"):
        JobStore(tmp_path / "jobs.db")
    newer = sqlite3.connect(tmp_path / "jobs.db")
    assert newer.execute("PRAGMA user_version").fetchone()[0] == 99
    newer.close()


def test_a_damaged_file_is_told_in_a_sentence(tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"half a file of something else" * 100)
    with pytest.raises(UserError, match="is damaged"):
        JobStore(tmp_path / "jobs.db")


def test_two_stores_on_one_file_cannot_be(store, tmp_path):
    with pytest.raises(UserError, match="runs already"):
        JobStore(tmp_path / "jobs.db")


# Ids that a client chose


def test_a_ticket_finds_its_job_and_only_for_its_owner(store):
    ticket = "1" * 32
    job, existed = submit(store, "job", ticket=ticket)
    assert (job.id, existed) == ("job", False)
    assert store.find_ticket(ticket, "a").id == "job"
    assert store.find_ticket(ticket, "b") is None
    assert submit(store, "other", "b", ticket=ticket)[0].id == "other", "another client may choose the same"
    assert store.find_ticket(ticket, "a").id == "job"


def test_a_job_has_the_newest_of_its_tickets_and_keeps_a_few(store):
    tickets = [f"{n:032x}" for n in range(TICKETS_MOST + 3)]
    for ticket in tickets:
        assert submit(store, "job", ticket=ticket)[0].id == "job"
    assert store.ticket("job") == tickets[-1]
    assert [store.find_ticket(t, "a") is not None for t in tickets] == [False] * 3 + [True] * TICKETS_MOST


def test_a_deleted_job_takes_its_tickets_and_events_with_it(store):
    job = submit(store, "job", ticket="1" * 32)[0]
    store.delete("job", job.attempt)
    assert store.find("job") is not None, "it is not over"
    store.end("job", "cancelled")
    store.delete("job", job.attempt + 1)
    assert store.find("job") is not None, "it is not this attempt"
    store.delete("job", job.attempt)
    assert store.find("job") is None
    assert store.find_ticket("1" * 32, "a") is None
    assert store.events("job", 0) == []


def test_of_a_job_that_is_submitted_for_ever_only_the_last_two_attempts_are_told(store):
    for _ in range(50):
        submit(store, "job")
        store.end("job", "failed", "no")
    events = store.events("job", 0)
    assert [event["kind"] for event in events] == ["queued", "failed"] * 2
    assert events[-1]["n"] == 100


# The clock of the store


def test_the_age_clock_never_believes_a_jump(monkeypatch):
    wall, steady = [1e9], [0.0]
    monkeypatch.setattr(clock.time, "time", lambda: wall[0])
    monkeypatch.setattr(clock.time, "monotonic", lambda: steady[0])
    it = AgeClock()
    steady[0] += 10
    wall[0] += 30 * DAY_S
    assert it.now() == 10, "while it runs it is the steady clock that counts"
    for jump, gap in ((30 * DAY_S, GAP_MOST_S), (3600.0, 3600.0), (-30 * DAY_S, 0.0)):
        before = it.now()
        it = AgeClock(before, wall[0] - jump)
        assert it.now() == before + gap, "across restarts the clock of the computer counts, for a day at most"


def test_a_clock_that_jumps_a_month_forgets_nothing(tmp_path, monkeypatch):
    now = time.time()
    store = JobStore(tmp_path / "jobs.db")
    submit(store, "job")
    store.end("job", "done")
    store.close()
    for days in (31, 0, 31, -31, 400):
        monkeypatch.setattr("time.time", lambda days=days: now + days * DAY_S)
        store = JobStore(tmp_path / "jobs.db")
        assert to_forget(store.kept(), store.now(), Keeping()) == []
        store.close()


def test_what_is_old_by_the_stores_own_clock_is_forgotten(tmp_path, monkeypatch):
    store = JobStore(tmp_path / "jobs.db")
    submit(store, "old")
    store.end("old", "done")
    store.close()
    now = time.time()
    for day in range(1, 14):  # a server that is started once a day
        monkeypatch.setattr("time.time", lambda day=day: now + day * DAY_S)
        store = JobStore(tmp_path / "jobs.db")
        assert to_forget(store.kept(), store.now(), Keeping()) == []
        submit(store, f"new{day}")
        store.end(f"new{day}", "done")
        store.close()
    monkeypatch.setattr("time.time", lambda: now + 14 * DAY_S)
    store = JobStore(tmp_path / "jobs.db")
    assert to_forget(store.kept(), store.now(), Keeping()) == ["old"]
    store.close()


# What is kept

NOW = 100 * DAY_S


def kept(job, days, gib=0.0, owner="a", pinned=False):
    return Kept(job, owner, int(gib * GIB), NOW - days * DAY_S, pinned)


def test_age_forgets_what_is_neither_pinned_nor_young():
    jobs = [kept("p", 99, pinned=True), kept("x", 15), kept("y", 13)]
    assert to_forget(jobs, NOW, Keeping(keep_days=14)) == ["x"]
    assert to_forget(jobs, NOW, Keeping(keep_days=12)) == ["x", "y"]


def test_the_quota_forgets_the_oldest_of_the_client_that_is_over_it():
    jobs = [
        kept("b1", 5, 2, "b"),
        kept("a1", 4, 2),
        kept("ap", 3.5, 50, pinned=True),
        kept("a2", 3, 2),
        kept("a3", 2, 2),
    ]
    assert to_forget(jobs, NOW, Keeping(quota_bytes=4 * GIB)) == ["a1"]
    assert to_forget(jobs, NOW, Keeping(quota_bytes=1 * GIB)) == ["b1", "a1", "a2", "a3"]
    assert to_forget(jobs, NOW, Keeping(quota_bytes=None)) == []


def test_what_was_fetched_just_now_stays_whatever_the_quota():
    recent = Kept("r", "a", 9 * GIB, NOW - RECENT_S / 2)
    assert to_forget([kept("x", 1, 1), recent], NOW, Keeping(quota_bytes=GIB)) == ["x"]


def test_a_client_cannot_heap_up_ended_jobs():
    jobs = [kept(f"{n}", 2) for n in range(ENDED_MAX + 3)] + [kept("other", 1, owner="b")]
    assert to_forget(jobs, NOW, Keeping()) == ["0", "1", "2"]


def test_sweeping_goes_in_small_pieces_and_survives_a_full_disk():
    gone, full = [], [True]

    def forget(job):
        if full[0]:
            raise sqlite3.OperationalError("database or disk is full")
        gone.append(job)

    retention = Retention(lambda: ["a", "b", "c"], forget)
    assert not retention.tick()
    full[0] = False
    retention.tick()
    assert gone == ["b"], "one in a tick; what failed is looked for again in the next sweep"
    retention.tick()
    retention.tick()
    assert gone == ["b", "c"]
    retention.sweep()
    assert gone == ["b", "c", "a", "b", "c"]


def test_usage_and_touch(store):
    for job, owner in (("j1", "a"), ("j2", "a"), ("j3", "b")):
        submit(store, job, owner)
        store.end(job, "done", size=1000)
    assert store.usage("a") == (2, 2000)
    store.touch("j1", 1500)
    assert store.usage("a") == (2, 2500)
    assert [job.id for job in store.kept()] == ["j2", "j3", "j1"], "what was used longest ago comes first"


def test_the_footage_of_jobs_that_are_not_over_is_in_use(store):
    upload = {"upload": "/home/uploads/abc", "kind": "file", "name": "a.mp4"}
    masks = {"upload": "/home/uploads/def", "kind": "folder", "name": "masks"}
    store.submit("job", "a", {"clip": upload, "masks": masks}, "a.mp4", "classical")
    store.submit("path", "a", {"clip": {"path": "/clip.mp4"}, "masks": None}, "a.mp4", "classical")
    assert store.uploads_in_use() == {"/home/uploads/abc", "/home/uploads/def"}
    store.start("job")
    assert len(store.uploads_in_use()) == 2
    store.end("job", "done")
    assert store.uploads_in_use() == set()
