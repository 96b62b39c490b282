"""The scheduler with an executor that does what the test says: slots, lost workers, cancelling, parking, full disks."""

import contextlib
import queue
import sqlite3
from types import SimpleNamespace

import pytest

from backend.server import scheduler as scheduler_module
from backend.server.jobs import JobStore
from backend.server.process import Outcome
from backend.server.scheduler import Scheduler
from backend.server.trash import Trash
from tests.serving import wait_for

GIB = 1024**3
CRASH = Outcome("failed", "The worker process crashed (SIGSEGV)", "see the log", bug=True, cause="crash")


class FakeRunning:
    """A job of the fake executor; its end is what `end` says."""

    def __init__(self, spec, cleanup):
        self.events, self.spec, self.where = queue.SimpleQueue(), spec, "nowhere"
        self.asked_to_stop = False
        self._cleanup = cleanup

    def cancel(self):
        self.asked_to_stop = True

    def say(self, kind, **fields):
        self.events.put({"t": kind, **fields})

    def stage(self, name, fraction=0.0):
        self.say("progress", stage=name, stage_fraction=fraction, fraction=fraction, eta_s=None)

    def end(self, outcome):
        self._cleanup(outcome)
        self.events.put(outcome)


class FakeExecutor:
    """Begins jobs in `slots` and leaves the rest to the test; `fault` is raised instead."""

    def __init__(self, slots=1):
        self.slots, self.begun, self.fault = slots, {}, None

    def free(self):
        return self.slots

    def start(self, spec, log_file, *, notify, cleanup):
        if self.fault:
            raise self.fault
        self.slots -= 1
        running = FakeRunning(spec, lambda outcome: (cleanup(outcome), setattr(self, "slots", self.slots + 1)))
        self.begun[log_file.parent.name] = running
        return running

    def close(self):
        pass


@pytest.fixture
def it(tmp_path):
    """A scheduler with its parts; `submit` queues jobs whose owner is the first letter of their ids."""
    (tmp_path / "jobs").mkdir()
    store, executor, trash = JobStore(tmp_path / "jobs.db"), FakeExecutor(), Trash(tmp_path / "trash")
    scheduler = Scheduler(store, tmp_path / "jobs", executor, trash)

    def submit(*jobs, **spec):
        for job in jobs:
            store.submit(job, job[0], spec, "clip.mp4", "classical")

    def kinds(job, since=0):
        return [event["kind"] for event in store.events(job, since)]

    yield SimpleNamespace(
        store=store,
        executor=executor,
        scheduler=scheduler,
        submit=submit,
        kinds=kinds,
        state=lambda job: store.find(job).state,
        folder=tmp_path,
        tick=scheduler.tick,
    )
    trash.close()
    store.close()


# Slots


def test_as_many_jobs_run_as_the_executor_has_slots_and_clients_take_turns(it):
    it.executor.slots = 3
    it.submit("a1", "a2", "a3", "a4", "b1")
    it.tick()
    assert list(it.executor.begun) == ["a1", "b1", "a2"]
    assert it.store.order() == ["a3", "a4"]
    assert it.store.position(it.store.find("a3")) == 3
    it.executor.begun["b1"].end(Outcome("done"))
    it.tick()
    assert [it.state(job) for job in ("a1", "b1", "a2", "a3", "a4")] == ["running", "done", *["running"] * 2, "queued"]


def test_each_running_job_tells_its_own_progress_and_where_it_runs(it):
    it.executor.slots = 2
    it.submit("a1", "b1")
    it.tick()
    it.executor.begun["a1"].stage("Looking", 0.25)
    it.executor.begun["b1"].stage("Solving", 0.75)
    it.tick()
    told = {job: it.scheduler.status(it.store.find(job)) for job in ("a1", "b1")}
    assert (told["a1"]["stage"], told["a1"]["fraction"], told["a1"]["where"]) == ("Looking", 0.25, "nowhere")
    assert (told["b1"]["stage"], told["b1"]["fraction"]) == ("Solving", 0.75)
    assert it.kinds("b1") == ["queued", "started", "stage"]


def test_what_a_worker_says_wrongly_harms_nobody(it, monkeypatch):
    it.submit("a1")
    it.tick()
    worker = it.executor.begun["a1"]
    for nonsense in ({"t": "progress"}, {"t": "live", "n": "x", "frame": None}, {"t": "log"}, {"no": "type"}, {"t": 7}):
        worker.events.put(nonsense)
    worker.say("progress", stage="x" * 999, stage_fraction=float("nan"), fraction=7.0, eta_s=float("inf"))
    it.tick()
    told = it.scheduler.status(it.store.find("a1"))
    assert (len(told["stage"]), told["stage_fraction"], told["fraction"], "eta_s" in told) == (200, 0.0, 1.0, False)
    monkeypatch.setattr(scheduler_module, "EVENTS_MAX", 5)
    for _ in range(100):
        worker.say("retry", text="going on with 4")
        worker.say("log", text="hm", level="info")
    worker.end(Outcome("done", report={"stages": "nonsense"}))
    with contextlib.suppress(ValueError):  # of the metrics; the loop goes on after it
        it.tick()
    it.tick()
    kinds = it.kinds("a1")
    assert (kinds.count("retry"), kinds.count("log"), kinds[-1]) == (5, 5, "done")


# Workers that are lost


def test_a_lost_worker_is_tried_once_more_and_the_event_says_why(it):
    it.submit("a1", "b1")
    it.tick()
    it.executor.begun["a1"].stage("Solving")
    it.executor.begun["a1"].end(CRASH)
    it.tick()
    assert it.state("a1") == "running", "before b1, which waited meanwhile"
    assert (it.store.find("a1").attempt, it.store.find("a1").since) == (2, 0)
    retry = it.store.events("a1", 0)[-2]
    assert (retry["kind"], retry["level"], retry["hint"]) == ("retry", "warning", "see the log")
    assert "crashed (SIGSEGV) in 'Solving'; the job goes on from its last finished stage" in retry["text"]
    it.executor.begun["a1"].end(Outcome("done", files=[{"name": "capture.json", "size": 3}]))
    it.tick()
    assert it.kinds("a1") == ["queued", "started", "stage", "retry", "started", "done"]


@pytest.mark.parametrize(
    ("stages", "state", "says"),
    [
        (["Solving", "Solving"], "failed", "crashed (SIGSEGV) in 'Solving' again"),
        (["Looking", "Solving"], "running", "goes on"),
        (["Looking", "Solving", "Looking"], "failed", "in 'Looking' again"),
        (["", ""], "failed", "crashed (SIGSEGV) again"),
        (["1", "2", "3", "4"], "failed", "in '4'"),
    ],
)
def test_a_stage_that_loses_two_workers_fails_the_job(it, stages, state, says):
    it.submit("a1")
    for stage in stages:
        it.tick()
        if stage:
            it.executor.begun["a1"].stage(stage)
        it.executor.begun["a1"].end(CRASH)
    it.tick()
    assert it.state("a1") == state
    assert says in next(e["text"] for e in reversed(it.store.events("a1", 0)) if e["kind"] in ("retry", "failed"))


def test_faults_are_remembered_by_the_next_server_and_forgotten_when_asked_for_again(it):
    it.submit("a1")
    it.tick()
    it.executor.begun["a1"].end(CRASH)
    it.scheduler.accepting = False
    it.tick()
    assert it.store.find("a1").faults == {"": 1}
    it.store.end("a1", "failed")
    it.submit("a1")
    assert it.store.find("a1").faults == {}


@pytest.mark.parametrize("cause", ["hang", "lost"])
def test_hangs_and_lost_machines_are_tried_again_too(it, cause):
    it.submit("a1")
    it.tick()
    it.executor.begun["a1"].end(Outcome("failed", "It hung", cause=cause))
    it.tick()
    assert (it.state("a1"), it.kinds("a1")) == ("running", ["queued", "started", "retry", "started"])


def test_out_of_memory_is_tried_again_only_when_others_took_of_it(it):
    no_memory = Outcome("failed", "The worker ran out of memory", "use fewer frames", cause="out_of_memory")
    it.executor.slots = 2
    it.submit("a1", "b1")
    it.tick()
    it.executor.begun["a1"].end(no_memory)
    it.tick()
    assert it.kinds("a1")[-2:] == ["retry", "started"]
    it.executor.begun["b1"].end(Outcome("done"))
    it.tick()
    it.executor.begun["a1"].stage("Solving")
    it.executor.begun["a1"].end(no_memory)
    it.tick()
    last = it.store.events("a1", 0)[-1]
    assert (last["kind"], last["hint"]) == ("failed", "use fewer frames")


@pytest.mark.parametrize("outcome", [Outcome("failed", "no parallax", "move"), Outcome("failed", "bug", bug=True)])
def test_what_had_its_last_word_is_never_tried_again(it, outcome):
    it.submit("a1")
    it.tick()
    it.executor.begun["a1"].end(outcome)
    it.tick()
    assert it.kinds("a1") == ["queued", "started", "failed"]


# What the owner says


@pytest.mark.parametrize("outcome", [CRASH, Outcome("done"), Outcome("failed", "no"), Outcome("cancelled")])
def test_cancelling_beats_whatever_the_worker_does(it, outcome):
    it.submit("a1")
    it.tick()
    (it.folder / "jobs" / "a1" / "capture").mkdir()
    it.scheduler.cancel(it.store.find("a1"))
    assert it.executor.begun["a1"].asked_to_stop
    it.executor.begun["a1"].end(outcome)
    it.tick()
    assert it.kinds("a1") == ["queued", "started", "cancelled"]
    assert list((it.folder / "jobs" / "a1").iterdir()) == []


def test_a_job_that_waits_for_its_second_try_can_be_cancelled(it):
    it.submit("a1")
    it.tick()
    it.executor.begun["a1"].end(CRASH)
    it.scheduler.accepting = False
    it.tick()
    assert it.kinds("a1")[-1] == "retry"
    it.scheduler.cancel(it.store.find("a1"))
    assert it.kinds("a1")[-1] == "cancelled"
    assert it.store.order() == []


# The server's end


def test_parked_jobs_are_queued_again_without_blame(it):
    it.executor.slots = 2
    it.submit("a1", "b1", "c1")
    it.tick()
    it.executor.begun["b1"].stage("Solving")
    it.scheduler.park()
    assert all(running.asked_to_stop for running in it.executor.begun.values())
    it.executor.begun["a1"].end(Outcome("done"))
    it.executor.begun["b1"].end(Outcome("cancelled"))
    it.tick()
    assert not it.scheduler.busy
    assert [it.state(job) for job in ("a1", "b1", "c1")] == ["done", "queued", "queued"]
    assert it.store.order() == ["b1", "c1"], "what was interrupted goes on first"
    assert (it.store.find("b1").faults, it.store.find("b1").attempt) == ({}, 2)
    assert it.store.events("b1", 0)[-1]["text"] == "The backend was stopped"


def test_a_job_that_its_owner_cancels_while_the_server_parks_stays_cancelled(it):
    it.submit("a1")
    it.tick()
    it.scheduler.park()
    it.scheduler.cancel(it.store.find("a1"))
    it.executor.begun["a1"].end(Outcome("cancelled"))
    it.tick()
    assert it.state("a1") == "cancelled"


def test_jobs_that_ran_when_the_last_server_died_go_on_first(it):
    it.executor.slots = 2
    it.submit("a1", "b1", "c1", "a2")
    it.tick()
    later = FakeExecutor(0)
    scheduler = Scheduler(it.store, it.folder / "jobs", later, Trash(it.folder / "trash2"))
    scheduler.begin()
    assert it.store.order() == ["a1", "b1", "c1", "a2"]
    later.slots = 2
    scheduler.tick()
    assert list(later.begun) == ["a1", "b1"]
    assert it.kinds("a1") == ["queued", "started", "queued", "started"]


# Full disks


def test_a_job_that_found_the_disk_full_waits_until_more_is_free_or_ten_minutes_have_passed(it, monkeypatch):
    free, now = [1000], [0.0]
    monkeypatch.setattr(scheduler_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    monkeypatch.setattr(scheduler_module.time, "monotonic", lambda: now[0])
    it.submit("a1", "b1")
    it.tick()

    def runs_full():
        it.executor.begun.pop("a1").end(Outcome("failed", "The disk of the backend is full", cause="disk_full"))
        it.tick()
        return it.executor.begun

    assert runs_full() == {}, "nobody else begins either"
    assert (it.state("a1"), it.store.order()) == ("queued", ["a1", "b1"])
    assert it.kinds("a1") == ["queued", "started", "retry", "log"]
    free[0] = 1099  # hardly more than what was not enough
    it.tick()
    assert it.executor.begun == {}
    free[0] = 1101
    it.tick()
    assert list(it.executor.begun) == ["a1"]
    for _ in range(5):  # however often: a full disk is no fault of the job's
        assert runs_full() == {}
        now[0] += 601
        it.tick()
        assert list(it.executor.begun) == ["a1"]
    it.executor.begun["a1"].end(Outcome("done"))
    it.tick()
    assert [it.state(job) for job in ("a1", "b1")] == ["done", "running"]


def test_too_little_room_holds_the_queue_up_and_is_told_once(it, monkeypatch):
    free = [3 * GIB]
    monkeypatch.setattr(scheduler_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=free[0]))
    it.scheduler._keep_free = GIB
    it.submit("a1", footage_bytes=2 * GIB)
    for _ in range(3):
        it.tick()
    assert it.kinds("a1") == ["queued", "log"]
    assert "3.0 GiB of the backend's disk are free, it needs 5.0" in it.store.events("a1", 1)[0]["text"]
    it.submit("b1", footage_bytes=GIB // 2)
    it.tick()
    assert (it.state("a1"), it.state("b1")) == ("queued", "running"), "a job that needs less goes first"
    free[0] = 6 * GIB
    it.executor.begun["b1"].end(Outcome("done"))
    it.tick()
    assert it.state("a1") == "running"


def test_an_executor_that_cannot_begin_is_tried_again_and_no_job_is_lost(it, monkeypatch):
    monkeypatch.setattr(scheduler_module, "RETRY_S", 0.0)
    it.executor.fault = OSError("the cluster is not there")
    it.submit("a1", "b1")
    for _ in range(3):
        it.tick()
    assert (it.kinds("a1"), it.kinds("b1")) == (["queued", "log"], ["queued"])
    it.executor.fault = None
    it.tick()
    assert it.state("a1") == "running"


@contextlib.contextmanager
def full_disk(monkeypatch):
    """Nothing can be written to the store meanwhile."""

    def refuse(_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "_transaction", refuse)
        yield


def test_what_cannot_be_recorded_waits_in_order_and_nothing_is_begun_meanwhile(it, monkeypatch):
    monkeypatch.setattr(scheduler_module, "RETRY_S", 0.0)
    it.executor.slots = 2
    it.submit("a1", "b1", "c1")
    it.tick()
    with full_disk(monkeypatch):
        it.executor.begun["a1"].stage("Solving")
        it.executor.begun["a1"].end(Outcome("done", files=[{"name": "capture.json", "size": 3}]))
        for _ in range(3):
            it.tick()
        assert (it.state("a1"), it.state("c1"), it.scheduler.busy) == ("running", "queued", True)
    it.tick()
    assert (it.state("a1"), it.state("c1")) == ("done", "running")
    assert it.kinds("a1") == ["queued", "started", "stage", "done"]


def test_what_is_cancelled_before_its_end_is_recorded_is_cancelled(it, monkeypatch):
    monkeypatch.setattr(scheduler_module, "RETRY_S", 0.0)
    it.submit("a1")
    it.tick()
    with full_disk(monkeypatch):
        it.executor.begun["a1"].end(CRASH)
        it.tick()
        it.scheduler.cancel(it.store.find("a1"))
    it.tick()
    assert it.kinds("a1") == ["queued", "started", "cancelled"]


def test_a_disk_that_is_full_when_a_job_begins_is_not_the_jobs_fault(it, monkeypatch):
    monkeypatch.setattr(scheduler_module, "RETRY_S", 0.0)
    it.submit("a1")
    with full_disk(monkeypatch):
        it.tick()
        it.tick()
        assert (it.state("a1"), len(it.executor.begun), it.executor.slots) == ("queued", 1, 0), "begun once"
    it.executor.begun["a1"].end(Outcome("done"))
    it.tick()
    assert it.kinds("a1") == ["queued", "started", "done"]


def test_what_is_thrown_away_is_out_of_the_way_at_once(it):
    folder = it.folder / "jobs" / "a1"
    (folder / "scratch").mkdir(parents=True)
    (folder / "scratch" / "store.npy").write_bytes(b"x" * 1000)
    (folder / "log.txt").write_text("kept")
    it.submit("a1")
    it.tick()
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
    wait_for(lambda: not list((it.folder / "trash").iterdir()))


def test_trash_of_a_server_that_was_killed_is_removed_by_the_next(tmp_path):
    (tmp_path / "trash" / "left" / "deep").mkdir(parents=True)
    (tmp_path / "trash" / "file").write_text("x")
    Trash(tmp_path / "trash")
    wait_for(lambda: not list((tmp_path / "trash").iterdir()))
