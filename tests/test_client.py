"""The client: orders go in, events come out, captures arrive whole, and a break is repaired or explained."""

import asyncio
import dataclasses
import socket
import threading
import time

import pytest
import zmq

from backend.wire import JobSettings, read_capture
from blender_addon.client import (
    Client,
    Connected,
    Disconnected,
    JobCancelled,
    JobDone,
    JobFailed,
    JobLog,
    JobProgress,
    JobQueued,
)
from blender_addon.link import Link, Lost
from tests.serving import client, clip_that, collect, end_of, reconstruct, server

SETTINGS = JobSettings()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


@pytest.fixture(params=[True, False], ids=["same disk", "far away"])
def it(request, broker):
    with client(broker.connection, share_files=request.param) as it:
        yield it


@pytest.fixture
def near(broker):
    with client(broker.connection) as it:
        yield it


def has(kind):
    return lambda events: any(isinstance(event, kind) for event in events)


# Orders and captures


def test_a_clip_goes_in_and_a_capture_comes_back(it, tmp_path):
    clip = clip_that(tmp_path, "work")
    ticket = it.submit(
        clip, JobSettings(lens=dataclasses.replace(SETTINGS.lens, focal_mm=35.0)), tmp_path / "shots" / "out"
    )
    events = collect(it, has(JobDone))
    kinds = [type(event) for event in events]
    assert kinds.index(Connected) < kinds.index(JobQueued) < kinds.index(JobDone) == len(kinds) - 1
    assert {event.ticket for event in events if not isinstance(event, Connected)} == {ticket}
    assert events[-1].folder == tmp_path / "shots" / "out"
    assert any(event.text == "looking at 1 files, 0 masks" for event in events if isinstance(event, JobLog))
    assert [p.name for p in (tmp_path / "shots").iterdir()] == ["out"]
    capture = read_capture(tmp_path / "shots" / "out")
    assert capture.settings["lens"]["focal_mm"] == 35.0
    assert capture.clip.source == str(clip), "the plate is named as this machine knows it, also after an upload"


@pytest.mark.slow
def test_progress_only_grows_and_tells_its_stage(near, tmp_path):
    ticket = near.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "out")
    events = collect(near, lambda events: sum(isinstance(e, JobProgress) for e in events) >= 3)
    near.cancel(ticket)
    assert isinstance(end_of(near, ticket), JobCancelled)
    progress = [e for e in events if isinstance(e, JobProgress)]
    assert {e.stage for e in progress} == {"Looking"}
    assert [e.fraction for e in progress] == sorted(e.fraction for e in progress)


def test_folders_of_images_and_masks_travel(it, tmp_path):
    for folder, words in (("frames", "work"), ("masks", "white")):
        for name in ("0001.png", "0002.png", "notes.txt"):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / name).write_text(f"{words}\n{name} {time.monotonic_ns()}")
    it.submit(tmp_path / "frames", SETTINGS, tmp_path / "out", masks=tmp_path / "masks")
    events = collect(it, has((JobDone, JobFailed)))
    assert isinstance(events[-1], JobDone), events[-1]
    files = {True: 3, False: 2}[collect_same_host(events)]  # by path, the worker sees the notes as well
    assert any(e.text == f"looking at {files} files, {files} masks" for e in events if isinstance(e, JobLog))


def collect_same_host(events):
    return next(event.server["same_host"] for event in events if isinstance(event, Connected))


def test_the_same_order_is_answered_from_the_finished_job(near, tmp_path):
    clip = clip_that(tmp_path, "work")
    assert isinstance(reconstruct(near, clip, tmp_path / "one"), JobDone)
    ticket = near.submit(clip, SETTINGS, tmp_path / "two")
    events = collect(near, has(JobDone))
    job = next(e.job for e in events if isinstance(e, JobQueued))
    assert events[-1].ticket == ticket
    assert read_capture(tmp_path / "two").settings == read_capture(tmp_path / "one").settings
    assert job


@pytest.mark.slow
def test_an_earlier_capture_stays_unless_its_replacement_was_asked_for(near, tmp_path):
    assert isinstance(reconstruct(near, clip_that(tmp_path, "work"), tmp_path / "out"), JobDone)
    before = read_capture(tmp_path / "out").clip.source
    refused = reconstruct(near, clip_that(tmp_path, "work"), tmp_path / "out")
    assert isinstance(refused, JobFailed)
    assert "already holds a capture" in refused.message
    failed = reconstruct(near, clip_that(tmp_path, "refuse"), tmp_path / "out", replace=True)
    assert isinstance(failed, JobFailed)
    assert read_capture(tmp_path / "out").clip.source == before
    assert isinstance(reconstruct(near, clip_that(tmp_path, "work"), tmp_path / "out", replace=True), JobDone)
    assert read_capture(tmp_path / "out").clip.source != before


def test_a_capture_in_the_users_folder_is_not_the_servers_own(near, tmp_path):
    """Linked files share their content: the one file that is rewritten must not be among them."""
    clip = clip_that(tmp_path, "work")
    assert isinstance(reconstruct(near, clip, tmp_path / "one"), JobDone)
    moved = clip.rename(tmp_path / "moved.mp4")
    assert isinstance(reconstruct(near, moved, tmp_path / "two"), JobDone)
    assert read_capture(tmp_path / "one").clip.source == str(clip)
    assert read_capture(tmp_path / "two").clip.source == str(moved)


# What goes wrong


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: p / "nosuch.mp4", "There is no file"),
        (lambda p: (p / "empty.mp4").touch() or p / "empty.mp4", "is empty"),
        (lambda p: (p / "folder").mkdir() or p / "folder", "no images"),
    ],
    ids=["missing", "empty", "folder without images"],
)
def test_what_is_no_clip_is_refused_in_words(near, tmp_path, make, says):
    failed = reconstruct(near, make(tmp_path), tmp_path / "out")
    assert says in failed.message
    assert failed.hint
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_is_refused_before_the_work(near, tmp_path):
    (tmp_path / "file").write_text("a file")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        failed = reconstruct(near, clip_that(tmp_path, "work"), out)
        assert isinstance(failed, JobFailed)
        assert failed.hint
    assert (tmp_path / "file").read_text() == "a file"


def test_an_output_folder_that_fills_up_meanwhile_is_left_untouched(near, tmp_path):
    """Somebody puts files there while the job runs: they stay, and the user is told."""
    out = tmp_path / "out"
    ticket = near.submit(clip_that(tmp_path, "work"), SETTINGS, out)
    collect(near, has(JobQueued))
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    assert isinstance(end_of(near, ticket), JobFailed)
    assert [p.name for p in out.iterdir()] == ["mine.txt"]


def test_a_failure_says_what_happened_and_what_to_do(near, tmp_path):
    failed = reconstruct(near, clip_that(tmp_path, "refuse"), tmp_path / "out")
    assert (failed.message, failed.hint) == ("The camera never moves", "choose another shot")


@pytest.mark.slow
def test_a_killed_worker_is_told_and_the_next_job_runs(near, tmp_path):
    failed = reconstruct(near, clip_that(tmp_path, "die"), tmp_path / "out")
    assert "killed" in failed.message
    assert isinstance(reconstruct(near, clip_that(tmp_path, "work"), tmp_path / "out"), JobDone)


# Cancelling


@pytest.mark.parametrize("deed", [pytest.param("slow", marks=pytest.mark.slow), "deaf"])
@pytest.mark.slow
def test_cancel_ends_a_running_job_and_leaves_nothing(near, tmp_path, deed):
    ticket = near.submit(clip_that(tmp_path, deed), SETTINGS, tmp_path / "place" / "out")
    collect(near, lambda events: any(isinstance(e, JobProgress) and e.stage == "Looking" for e in events))
    near.cancel(ticket)
    assert isinstance(end_of(near, ticket), JobCancelled)
    assert not (tmp_path / "place").exists()


def test_orders_reach_the_server_in_their_order(near, tmp_path):
    """A large clip takes long to read through; a small one that was asked for later still waits behind it."""
    large = clip_that(tmp_path / "plates", "slow")
    with open(large, "ab") as file:
        file.truncate(200 * 2**20)
    clips = [large, *(clip_that(tmp_path / "plates", "work") for _ in range(3))]
    tickets = [near.submit(clip, SETTINGS, tmp_path / f"out{i}") for i, clip in enumerate(clips)]
    queued = lambda events: [e.ticket for e in events if isinstance(e, JobQueued)]  # noqa: E731
    events = collect(near, lambda events: len(set(queued(events))) == len(clips))
    assert list(dict.fromkeys(queued(events))) == tickets
    for ticket in reversed(tickets):
        near.cancel(ticket)
    assert isinstance(end_of(near, tickets[0]), JobCancelled)


def test_cancel_ends_a_waiting_job(near, tmp_path):
    first = near.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "one")
    collect(near, has(JobQueued))
    second = near.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "two")
    queued = next(e for e in collect(near, has(JobQueued)) if isinstance(e, JobQueued))
    assert queued.position == 1
    for ticket in (second, first):
        near.cancel(ticket)
        assert isinstance(end_of(near, ticket), JobCancelled)


@pytest.mark.slow
def test_cancel_at_once_or_twice_or_of_nothing_does_no_harm(near, tmp_path):
    ticket = near.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "out")
    for name in (ticket, ticket, "no such ticket"):
        near.cancel(name)
    assert isinstance(end_of(near, ticket), JobCancelled)
    assert isinstance(reconstruct(near, clip_that(tmp_path, "work"), tmp_path / "out"), JobDone)


# The connection


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def reason(connection):
    with client(connection) as it:
        events = collect(it, has(Disconnected))
        return next(e.reason for e in events if isinstance(e, Disconnected))


def test_a_failed_connection_says_why(broker):
    public, secret = (key.decode() for key in zmq.curve_keypair())
    here, change = broker.connection, dataclasses.replace
    assert "does not know this computer's key" in reason(
        change(here, client_public_key=public, client_secret_key=secret)
    )
    assert "not the one of this connection file" in reason(change(here, server_public_key=public))
    assert "No backend answers" in reason(change(here, address=f"tcp://127.0.0.1:{free_port()}"))
    assert "not an address" in reason(change(here, address="banana"))


def test_a_stranger_on_the_port_is_told_from_a_backend(broker):
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()

        def answer():
            with stranger.accept()[0] as it:
                it.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{stranger.getsockname()[1]}"
        assert "not a Kinora backend" in reason(dataclasses.replace(broker.connection, address=address))


@pytest.mark.slow
def test_a_job_survives_the_connection_and_the_server(tmp_path):
    """The server goes away under a running job and comes back: the same ticket ends with the capture."""
    clip, port = clip_that(tmp_path, "slow"), free_port()
    with server(tmp_path / "home", port=port) as first:
        it = Client(first.connection)
        it.start()
        ticket = it.submit(clip, SETTINGS, tmp_path / "out")
        collect(it, has(JobProgress))
    clip.write_text(clip.read_text().replace("slow", "work"))  # what the second attempt will find
    with server(tmp_path / "home", port=port):
        events = collect(it, has(JobDone))
        it.stop()
    assert events[-1].ticket == ticket
    assert any(isinstance(e, Disconnected) for e in events)
    assert any(isinstance(e, JobLog) and "restarted" in e.text for e in events)
    assert read_capture(tmp_path / "out")


@pytest.mark.slow
def test_an_order_waits_for_the_server(tmp_path):
    with server(tmp_path / "home") as earlier:
        connection = earlier.connection
    with client(connection) as it:
        ticket = it.submit(clip_that(tmp_path, "work"), SETTINGS, tmp_path / "out")
        collect(it, has(Disconnected))
        with server(tmp_path / "home", port=earlier.port):
            assert isinstance(end_of(it, ticket), JobDone)


def test_cancel_works_without_a_server(tmp_path):
    with server(tmp_path / "home") as gone:
        pass
    with client(gone.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "work"), SETTINGS, tmp_path / "out")
        collect(it, has(Disconnected))
        it.cancel(ticket)
        assert isinstance(end_of(it, ticket), JobCancelled)


def test_a_stop_is_not_lost_when_the_line_breaks_at_the_same_moment(broker, monkeypatch):
    async def ends() -> bool:
        link, broken = Link(broker.connection), asyncio.Event()

        async def listen(socket: object) -> None:
            await broken.wait()
            raise Lost("the line broke")

        monkeypatch.setattr(link, "_listen", listen)
        running = asyncio.create_task(link.run())
        await asyncio.sleep(0.1)
        broken.set()
        await asyncio.sleep(0)  # the listener has its turn, the link has not
        running.cancel()
        await asyncio.wait({running}, timeout=5.0)
        return running.cancelled()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(ends())


def test_stop_ends_the_thread_whatever_it_does(broker, tmp_path):
    it = Client(broker.connection)
    it.start()
    it.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "out")
    collect(it, has(JobQueued))
    it.stop()
    it.stop()
    assert not [t for t in threading.enumerate() if t.name == "kinora-client" and t.is_alive() and t is it._thread]
    with client(broker.connection) as other:  # the job went on at the server; end it for the next tests
        ticket = other.submit(next(tmp_path.glob("slow*")), SETTINGS, tmp_path / "out")
        collect(other, has(JobQueued))
        other.cancel(ticket)
        assert isinstance(end_of(other, ticket), JobCancelled)
