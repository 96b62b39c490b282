"""Requests about jobs over the socket: tickets, order, pins, usage, deleting; and what the next server does then."""

import os
import sqlite3
import uuid

import pytest

from backend.__main__ import main, parser
from backend.cli.serve import keeping
from backend.server.jobs import JobStore
from backend.server.keys import new_client
from backend.server.local_executor import LocalExecutor
from backend.server.retention import Keeping
from backend.wire import UserError
from tests.serving import WORKER, RawClient, clip_that, ends, send, server, state_of, wait_for


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def raw(broker):
    with RawClient(broker.connection) as it:
        yield it


@pytest.fixture
def held_up(raw, tmp_path):
    """A job that runs for the whole test, so that others wait."""
    job = send(raw, clip_that(tmp_path, "slow"), priority=9)["job"]
    wait_for(lambda: state_of(raw, job) == "running")
    yield job
    for row in raw.ask("list", first=0)["jobs"]:
        raw.ask("cancel", job=row["job"])
    ends(raw, job)


def row_of(raw, job):
    return next(row for row in raw.ask("list", first=0)["jobs"] if row["job"] == job)


# Tickets


def test_the_same_ticket_is_the_same_job_whatever_else_is_said(raw, tmp_path):
    ticket = uuid.uuid4().hex
    first = send(raw, clip_that(tmp_path, "refuse"), ticket=ticket)
    last = ends(raw, first["job"])[-1]
    again = send(raw, clip_that(tmp_path, "work"), ticket=ticket)
    assert (again["job"], again["existed"], again["state"]) == (first["job"], True, "failed")
    assert raw.ask("events", job=first["job"], since=0)["last"] == last["n"], "sent twice, done once"
    assert row_of(raw, first["job"])["ticket"] == ticket


def test_a_new_ticket_asks_a_failed_job_again(raw, tmp_path):
    clip = clip_that(tmp_path, "refuse")
    tickets = [uuid.uuid4().hex for _ in range(2)]
    first = send(raw, clip, ticket=tickets[0])
    ends(raw, first["job"])
    again = send(raw, clip, ticket=tickets[1])
    assert (again["job"], again["existed"]) == (first["job"], False)
    ends(raw, first["job"])
    found = [raw.ask("find", ticket=ticket) for ticket in tickets]
    assert [reply["job"] for reply in found] == [first["job"]] * 2
    assert [reply["since"] for reply in found] == [again["since"]] * 2
    assert row_of(raw, first["job"])["attempt"] == 2


def test_a_ticket_that_nobody_gave_finds_nothing(raw):
    assert raw.ask("find", ticket=uuid.uuid4().hex)["code"] == "no_such_job"
    assert raw.ask("find", ticket="../../etc/passwd")["code"] == "bad_request"


# Order


def test_priorities_and_order_are_told_truly(raw, held_up, tmp_path):
    a, b, c = (send(raw, clip_that(tmp_path, "slow"))["job"] for _ in range(3))
    assert [row_of(raw, job)["position"] for job in (a, b, c)] == [1, 2, 3]
    assert raw.ask("prioritise", job=c, priority=5)["position"] == 1
    assert raw.ask("reorder", job=b, before=a)["position"] == 2
    assert [row_of(raw, job)["position"] for job in (c, b, a)] == [1, 2, 3]
    assert raw.ask("reorder", job=c)["position"] == 3
    assert row_of(raw, c)["priority"] == 0
    assert raw.ask("status", job=a)["position"] == 2
    for fault in ({"job": held_up}, {"job": a, "before": held_up}):
        assert raw.ask("reorder", **fault)["code"] == "not_queued"
    assert raw.ask("reorder", job=a, before="0" * 32)["code"] == "no_such_job"
    for priority in (10, -10, 0.5, True):
        assert raw.ask("prioritise", job=a, priority=priority)["code"] == "bad_request"
    raw.ask("cancel", job=a)
    assert raw.ask("prioritise", job=a, priority=1)["code"] == "not_queued"


def test_a_running_job_says_where(raw, held_up):
    assert raw.ask("status", job=held_up)["where"] == "this machine"


# Keeping


def test_pins_and_usage(raw, tmp_path):
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    before = raw.ask("usage")
    assert ends(raw, job)[-1]["kind"] == "done"
    after = raw.ask("usage")
    row = row_of(raw, job)
    assert after["jobs"] == before["jobs"] > 0
    assert after["bytes"] - before["bytes"] == row["bytes"] > 2_500_000
    assert after["free"] > 0
    assert "quota" not in after
    assert (row["state"], row["pinned"], row["attempt"]) == ("done", False, 1)
    assert row["created"] <= row["ended"]
    assert raw.ask("pin", job=job, pinned=True)["pinned"] is True
    assert row_of(raw, job)["pinned"] is True


@pytest.mark.slow
def test_the_next_server_holds_a_client_to_its_quota_and_leaves_what_is_pinned_or_in_use(tmp_path):
    """Of four results of 2.5 MB each there is room for two: the oldest goes, the pinned one does not count."""
    home, keeping = tmp_path / "home", Keeping(quota_bytes=6_000_000)
    with server(home) as it, RawClient(it.connection) as raw:
        jobs = [send(raw, clip_that(tmp_path, "work"))["job"] for _ in range(4)]
        for job in jobs:
            assert ends(raw, job)[-1]["kind"] == "done"
        raw.ask("pin", job=jobs[0], pinned=True)
        used = "UPDATE jobs SET used = used - 3600 WHERE id <> ?"
        it._store._db.execute(used, (jobs[3],))
    with server(home, keeping=keeping) as it, RawClient(it.connection) as raw:
        left = {row["job"] for row in raw.ask("list", first=0)["jobs"]}
        assert left == {jobs[0], jobs[2], jobs[3]}
        assert raw.ask("usage")["quota"] == 6_000_000
        pinned = [raw.ask("pin", job=job, pinned=True).get("code", "pinned") for job in (jobs[0], jobs[2], jobs[3])]
        assert pinned == ["pinned", "pinned", "quota"]
        assert {path.name for path in (home / "jobs").iterdir()} == left
        assert raw.ask("result_index", job=jobs[2], first=0)["total"] > 3


# Deleting


def test_deleting_while_files_are_fetched_ends_the_fetching_with_a_sentence(raw, broker, tmp_path):
    clip = clip_that(tmp_path, "work")
    job = send(raw, clip)["job"]
    ends(raw, job)
    piece = {"job": job, "name": "ballast.npy", "n": 1000}
    assert len(raw.ask("get", **piece, off=0)["_"][0]) == 1000
    assert raw.ask("delete", job=job)["t"] == "delete"
    assert raw.ask("get", **piece, off=1000)["code"] in ("no_such_job", "no_such_file")
    assert raw.ask("delete", job=job)["code"] == "no_such_job"
    assert not (broker._home / "jobs" / job).exists()
    again = send(raw, clip)
    assert (again["job"], again["existed"]) == (job, False), "and the same clip is a new job"
    assert ends(raw, job)[-1]["kind"] == "done"
    assert raw.ask("events", job=job, since=0)["events"][0]["n"] == 1


def test_on_a_full_disk_deleting_frees_it_first_and_is_written_down_later(raw, broker, tmp_path, monkeypatch):
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    ends(raw, job)

    def refuse(_):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(JobStore, "_transaction", refuse)
        assert raw.ask("delete", job=job)["t"] == "delete"
        wait_for(lambda: not (broker._home / "jobs" / job).exists())
        assert raw.ask("pin", job=job, pinned=True)["code"] == "disk"
    wait_for(lambda: raw.ask("status", job=job)["t"] == "error")
    assert raw.ask("status", job=job)["code"] == "no_such_job"


# Workers that are lost


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_a_job_whose_worker_is_killed_once_is_done_all_the_same(raw, tmp_path):
    job = send(raw, clip_that(tmp_path, "die_once", str(tmp_path / "marker")))["job"]
    events = ends(raw, job)
    kinds = [event["kind"] for event in events if event["kind"] not in ("log", "stage")]
    assert kinds == ["queued", "started", "retry", "started", "done"]
    text = next(event["text"] for event in events if event["kind"] == "retry")
    assert text.startswith("The worker process was killed in 'Looking'")
    assert text.endswith("; the job goes on from its last finished stage")


# Several clients, several slots, several servers


def test_a_client_with_many_jobs_does_not_keep_another_waiting(broker, raw, held_up, tmp_path):
    mine = [send(raw, clip_that(tmp_path, "slow"))["job"] for _ in range(4)]
    with RawClient(new_client(broker._home, "other", broker.connection.address)) as other:
        its = send(other, clip_that(tmp_path, "slow"))
        assert its["position"] == 1, "behind what runs alone"
        assert [raw.ask("status", job=job)["position"] for job in mine] == [2, 3, 4, 5]
        assert other.ask("prioritise", job=mine[0], priority=-9)["code"] == "no_such_job"
        assert other.ask("reorder", job=its["job"], before=mine[3])["code"] == "no_such_job"
        assert other.ask("pin", job=mine[0], pinned=True)["code"] == "no_such_job"
        assert other.ask("usage")["jobs"] == 1
        other.ask("cancel", job=its["job"])


@pytest.mark.slow
def test_parked_jobs_of_several_clients_go_on_with_the_next_server(tmp_path):
    home = tmp_path / "home"
    two = lambda: LocalExecutor(WORKER, ["auto", "cpu"])  # noqa: E731
    with (
        server(home, executor=two()) as it,
        RawClient(it.connection) as raw,
        RawClient(new_client(home, "other", it.connection.address)) as other,
    ):
        clients = (raw, other, raw)
        jobs = [send(client, clip_that(tmp_path, "slow"))["job"] for client in clients]
        wait_for(lambda: [state_of(*pair) for pair in zip(clients, jobs)] == ["running", "running", "queued"])
        wait_for(lambda: all(c.ask("status", job=j)["stage"] == "Looking" for c, j in zip(clients[:2], jobs)))
        it.stop("park")
        wait_for(lambda: not (home / "connection.json").exists())
    store = JobStore(home / "jobs.db")
    assert store.order() == jobs
    assert [store.find(job).faults for job in jobs] == [{}] * 3
    assert [store.find(job).attempt for job in jobs] == [2, 2, 1]
    assert [store.events(job, 0)[-1]["text"] for job in jobs] == ["The backend was stopped"] * 2 + [""]
    store.close()
    with server(home, executor=two()) as it, RawClient(it.connection) as raw:
        wait_for(lambda: state_of(raw, jobs[0]) == "running")
        assert it._store.running() == jobs[:2]
        for job in (jobs[0], jobs[2]):
            raw.ask("cancel", job=job)
        assert [ends(raw, job)[-1]["kind"] for job in (jobs[0], jobs[2])] == ["cancelled"] * 2


# The command line


def test_what_serve_keeps_is_an_option():
    parse = lambda *words: keeping(parser(["serve", *words]).parse_args(["serve", *words]))  # noqa: E731
    assert parse() == Keeping(keep_days=14, quota_bytes=None)
    assert parse("--keep-days", "0.5", "--quota-gb", "2") == Keeping(keep_days=0.5, quota_bytes=2 * 1024**3)
    for wrong in (("--keep-days", "0"), ("--keep-days", "nan"), ("--quota-gb", "-1"), ("--quota-gb", "inf")):
        with pytest.raises(UserError, match="have to be above 0"):
            parse(*wrong)


def test_jobs_on_the_command_line(raw, broker, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KINORA_HOME", str(broker._home))
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    ends(raw, job)

    def say(*words):
        code = main(["jobs", *words])
        told = capsys.readouterr()
        return code, (told.out + told.err).strip()

    code, told = say("list")
    assert code == 0
    assert told.splitlines()[-1].startswith(job)
    assert " done, 0.00 GiB " in told.splitlines()[-1]
    assert say("pin", job[:8])[1].endswith("kept until it is deleted")
    assert ", pinned, " in say("list")[1].splitlines()[-1]
    assert say("pin", "--off", job[:8])[1].endswith("forgotten when it is old")
    assert say("priority", "-3", job) == (1, "The job is over")
    assert say("cancel", job)[1].endswith("done")
    assert "GiB are free" in say("usage")[1]
    assert say("delete", job)[1].endswith("deleted, with its files on the server")
    assert say("delete", job) == (1, f"There is no job {job}; 'python -m backend jobs list' shows their ids")
