"""Live frames over real sockets: what a running job shows reaches the client that wants it, newest version once."""

from __future__ import annotations

import time

import numpy as np
import pytest

from backend.geometry.camera import unproject
from blender_addon.client import JobFrame
from blender_addon.wire.live import LiveFrame
from blender_addon.wire.settings import JobSettings
from tests.pipeline_for_tests import shown_world
from tests.serving import RawClient, client, clip_that, collect, end_of, ends, send, server, wait_for


@pytest.fixture
def hub(tmp_path):
    with server(tmp_path / "home") as broker:
        yield broker


def frames_of(events) -> list[JobFrame]:
    return [event for event in events if isinstance(event, JobFrame)]


def true_points(frame: int, frames: int) -> np.ndarray:
    """(N, 3) points of the shown world; none is left out of so small a picture."""
    world, _ = shown_world(frames)
    points = unproject(world.depth[frame], world.intrinsics[frame], world.world_from_camera[frame])
    return points[world.depth[frame] > 0]


def test_frames_arrive_while_the_job_runs_and_are_true(hub, tmp_path):
    with client(hub.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "show_on", "4", "0.05"), JobSettings(), tmp_path / "out")
        it.watch(ticket)
        events = collect(it, lambda events: len(frames_of(events)) == 4)
        it.cancel(ticket)
        end_of(it, ticket)
    world, info = shown_world(4)
    for number, event in enumerate(frames_of(events)):
        live = event.live
        assert (live.frame, live.clip_frame, live.plate_size) == (number, 3 * number, info.plate_size)
        assert np.array_equal(live.world_from_camera, world.world_from_camera[number])
        assert np.allclose(live.plate_intrinsics, world.intrinsics[number], atol=1e-12)
        assert np.allclose(live.points, true_points(number, 4), atol=1e-5)
        assert np.array_equal(live.colours, world.rgb[number][world.depth[number] > 0])
        assert np.array_equal(live.dynamic, world.dynamic[number][world.depth[number] > 0])
        assert live.spacing == pytest.approx(1 / world.intrinsics[number, 0], rel=0.01)


def test_a_client_that_does_not_watch_is_sent_nothing(hub, tmp_path):
    with client(hub.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "show", "3", "0.05"), JobSettings(), tmp_path / "out")
        events = collect(it, lambda events: any(getattr(e, "folder", None) for e in events))
        assert ticket
    assert not frames_of(events)


def test_blender_sets_the_pace(hub, tmp_path):
    """With nobody taking frames, only a handful is fetched; the others are fetched once there is room."""
    with client(hub.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "show_on", "30", "0"), JobSettings(), tmp_path / "out")
        it.watch(ticket)
        first: list = []
        wait_for(lambda: first.extend(frames_of(it.drain(frames=1))) or first)
        time.sleep(1.5)
        assert not frames_of(it.drain(frames=0))
        waiting = frames_of(it.drain())
        assert 1 <= len(waiting) <= 8
        taken = [*first, *waiting]
        taken += frames_of(collect(it, lambda events: len(taken) + len(frames_of(events)) == 30))
        assert [event.live.frame for event in taken] == list(range(30))


def test_it_can_be_stopped_begun_again_and_asked_for_anew(hub, tmp_path):
    with client(hub.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "show_on", "3", "0"), JobSettings(), tmp_path / "out")
        it.watch(ticket)
        collect(it, lambda events: len(frames_of(events)) == 3)
        it.watch(ticket, False)
        it.watch(ticket)
        time.sleep(0.5)
        assert not frames_of(it.drain())  # it has them all
        it.watch(ticket, anew=True)
        assert len(frames_of(collect(it, lambda events: len(frames_of(events)) == 3))) == 3


def test_after_the_server_was_restarted_frames_come_from_the_new_attempt(tmp_path):
    out, clip = tmp_path / "out", clip_that(tmp_path, "show_on", "3", "0")
    with server(tmp_path / "home") as first:
        port = first.port
        with client(first.connection) as it:
            ticket = it.submit(clip, JobSettings(), out)
            it.watch(ticket)
            before = frames_of(collect(it, lambda events: len(frames_of(events)) == 3))
            first.stop()
            wait_for(lambda: not (tmp_path / "home" / "connection.json").exists())
            time.sleep(0.3)
            with server(tmp_path / "home", port=port):
                after = frames_of(collect(it, lambda events: len(frames_of(events)) == 3))
                it.cancel(ticket)
                end_of(it, ticket)
    assert {event.attempt for event in before} == {1}
    assert {event.attempt for event in after} == {2}
    assert [event.live.frame for event in after] == [0, 1, 2]


def test_the_server_answers_by_number_and_keeps_nothing_once_the_job_is_over(hub, tmp_path):
    with RawClient(hub.connection) as raw:
        job = send(raw, clip_that(tmp_path, "show_on", "3", "0"))["job"]
        wait_for(lambda: raw.ask("live", job=job, since=0)["last"] == 3)
        assert raw.ask("live", job=job, since=1)["frames"] == [{"n": 2, "frame": 1}, {"n": 3, "frame": 2}]
        assert raw.ask("live", job=job, since=3)["frames"] == []
        (data,) = raw.ask("live_get", job=job, frame=2)["_"]
        assert LiveFrame.decode(data).frame == 2
        assert raw.ask("live_get", job=job, frame=9)["code"] == "no_such_file"
        raw.ask("cancel", job=job)
        ends(raw, job)
        assert raw.ask("live", job=job, since=0)["frames"] == []
        assert raw.ask("live_get", job=job, frame=2)["code"] == "no_such_file"
    assert not list(tmp_path.rglob("*.live"))


def test_another_client_does_not_see_them(hub, tmp_path):
    with RawClient(hub.connection) as raw:
        assert raw.ask("live", job="0" * 32, since=0)["code"] == "no_such_job"
        assert raw.ask("live_get", job="0" * 32, frame=0)["code"] == "no_such_job"


def test_a_server_that_knows_no_live_frames_does_the_job_without(hub, tmp_path, monkeypatch):
    from backend.wire import messages

    older = {kind: fields for kind, fields in messages.REQUESTS.items() if not kind.startswith("live")}
    monkeypatch.setattr("backend.wire.messages.REQUESTS", older)
    with client(hub.connection) as it:
        ticket = it.submit(clip_that(tmp_path, "show", "3", "0.05"), JobSettings(), tmp_path / "out")
        it.watch(ticket)
        events = collect(it, lambda events: any(getattr(e, "folder", None) for e in events))
    assert not frames_of(events)
