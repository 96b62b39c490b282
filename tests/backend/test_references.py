"""Jobs that work on the capture of an earlier one, as localising a plate does: whose it is, and that it stays."""

from __future__ import annotations

import shutil

import pytest

from backend.server.keys import new_client
from backend.server.retention import Keeping
from backend.wire import JobSettings, LocaliseSettings, read_capture
from blender_addon.wire.bundle import identify
from tests.serving import RawClient, clip_that, ends, send, server, state_of, wait_for

GONE = "does not have that capture of yours any more"


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture
def raw(broker):
    with RawClient(broker.connection) as it:
        yield it


def done(raw, tmp_path):
    """A job that has its capture."""
    job = send(raw, clip_that(tmp_path, "work"))["job"]
    assert ends(raw, job)[-1]["kind"] == "done"
    return job


def localise_in(reference):
    return JobSettings("localise", engine_settings=LocaliseSettings(reference=reference)).to_json()


def refused(reply, code, words):
    assert (reply["t"], reply.get("code")) == ("error", code), reply
    assert words in reply["message"]
    assert reply["hint"]


def test_the_worker_gets_the_capture_of_the_earlier_job(broker, raw, tmp_path):
    reference = done(raw, tmp_path)
    job = send(raw, clip_that(tmp_path, "work"), settings=localise_in(reference))["job"]
    events = ends(raw, job)
    assert events[-1]["kind"] == "done", events[-1]
    capture = read_capture(broker._home / "jobs" / job / "capture")
    assert capture.engine.name == "localise"
    assert capture.settings["engine_settings"]["reference"] == reference
    known = read_capture(broker._home / "jobs" / reference / "capture").clip.source
    assert any(event["text"] == f"localised in {known}" for event in events)


def test_the_reference_is_a_part_of_what_a_job_is(raw, tmp_path):
    first, second, clip = done(raw, tmp_path), done(raw, tmp_path), clip_that(tmp_path, "work")
    jobs = [send(raw, clip, settings=localise_in(reference)) for reference in (first, second, first)]
    assert jobs[0]["job"] != jobs[1]["job"]
    assert (jobs[2]["job"], jobs[2]["existed"]) == (jobs[0]["job"], True)
    for reply in jobs:
        ends(raw, reply["job"])


def test_what_is_no_finished_capture_of_this_client_is_refused_with_a_sentence(broker, raw, tmp_path):
    clip, mine = clip_that(tmp_path, "work"), done(raw, tmp_path)
    refused(send(raw, clip, settings=localise_in("")), "bad_settings", "none is named")
    refused(send(raw, clip, settings=localise_in("../../keys")), "bad_settings", "none is named")
    refused(send(raw, clip, settings=localise_in("0" * 32)), "no_such_capture", GONE)
    failed = send(raw, clip_that(tmp_path, "refuse"))["job"]
    ends(raw, failed)
    refused(send(raw, clip, settings=localise_in(failed)), "no_such_capture", GONE)
    slow = send(raw, clip_that(tmp_path, "slow"))["job"]
    wait_for(lambda: state_of(raw, slow) == "running")
    refused(send(raw, clip, settings=localise_in(slow)), "not_done", "not done yet")
    raw.ask("cancel", job=slow)
    ends(raw, slow)
    with RawClient(new_client(broker._home, "other", broker.connection.address)) as other:
        refused(send(other, clip, settings=localise_in(mine)), "no_such_capture", GONE)
    (broker._home / "jobs" / mine / "capture" / "depth.npy").unlink()
    refused(send(raw, clip, settings=localise_in(mine)), "no_such_capture", GONE)
    assert not [
        row for row in raw.ask("list", first=0)["jobs"] if row["engine"] == "localise" and row["name"] == clip.name
    ]


def test_a_capture_that_a_waiting_job_needs_is_not_deleted(raw, tmp_path):
    reference, slow = done(raw, tmp_path), send(raw, clip_that(tmp_path, "slow"))["job"]
    wait_for(lambda: state_of(raw, slow) == "running")
    job = send(raw, clip_that(tmp_path, "work"), settings=localise_in(reference))["job"]
    refused(raw.ask("delete", job=reference), "busy", "needs this capture")
    raw.ask("cancel", job=slow)
    assert ends(raw, job)[-1]["kind"] == "done"
    assert raw.ask("delete", job=reference)["t"] == "delete"


def test_a_capture_that_vanishes_while_the_job_waits_fails_it_with_a_sentence(broker, raw, tmp_path):
    reference, slow = done(raw, tmp_path), send(raw, clip_that(tmp_path, "slow"))["job"]
    wait_for(lambda: state_of(raw, slow) == "running")
    job = send(raw, clip_that(tmp_path, "work"), settings=localise_in(reference))["job"]
    shutil.rmtree(broker._home / "jobs" / reference)
    raw.ask("cancel", job=slow)
    last = ends(raw, job)[-1]
    assert (last["kind"], "is not a capture" in last["text"]) == ("failed", True), last


def test_retention_leaves_a_capture_that_a_waiting_job_needs(tmp_path):
    """There is no room for any result: those that nobody needs go, the one that a job waits for stays until it ends."""
    home = tmp_path / "home"

    def sweep(it):
        it._store._db.execute("UPDATE jobs SET used = used - 3600")
        it._retention._due = 0.0

    with server(home) as it, RawClient(it.connection) as raw:
        needed, other = done(raw, tmp_path), done(raw, tmp_path)
        slow = send(raw, clip_that(tmp_path, "slow"))["job"]
        wait_for(lambda: state_of(raw, slow) == "running")
        job = send(raw, clip_that(tmp_path, "work"), settings=localise_in(needed))["job"]
        it._requests._server.keeping = Keeping(quota_bytes=1)
        sweep(it)
        wait_for(lambda: not (home / "jobs" / other).exists())
        assert state_of(raw, needed) == "done"
        raw.ask("cancel", job=slow)
        assert ends(raw, job)[-1]["kind"] == "done"
        sweep(it)
        wait_for(lambda: not (home / "jobs" / needed).exists())


def test_one_image_of_a_sequence_is_sent_alone(tmp_path):
    for number in range(3):
        (tmp_path / f"plate.{number:03d}.png").write_bytes(b"x" * (number + 1))
    chosen = tmp_path / "plate.001.png"
    assert (identify(chosen).kind, identify(chosen).size > 3) == ("sequence", True)
    assert (identify(chosen, alone=True).kind, identify(chosen, alone=True).size) == ("file", 2)
