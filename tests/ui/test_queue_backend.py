"""The queue with a real backend: jobs of a Blender that is gone are followed and fetched, ordered, kept and deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import bpy
import pytest

import blender_addon
from backend.wire import JobSettings, paths
from blender_addon import launcher, orders
from tests.serving import client as serving_client
from tests.serving import clip_that, collect, end_of
from tests.serving import server as serving_server

from .conftest import ROOT, pump_until

pytestmark = pytest.mark.usefixtures("server")

SETTINGS = JobSettings()


@pytest.fixture
def connected(session):
    bpy.ops.kinora.backend_start()
    pump_until(session, lambda: session.state == "READY" and session.server.known)
    return session


@pytest.fixture
def other(server):
    """A client with the same key: an earlier Blender, or another one."""
    with serving_client(launcher.find_running()) as it:
        yield it


def queued(it, ticket: str) -> str:
    """The backend's id of a job that was submitted."""
    from blender_addon.client import JobQueued

    events = collect(it, lambda events: any(isinstance(e, JobQueued) and e.ticket == ticket for e in events))
    return next(e.job for e in events if isinstance(e, JobQueued))


def row(session, job: str):
    return session.server.job(job)


def leave(session) -> None:
    """Disconnect as from another computer: the backend is not stopped."""
    session.choice = replace(session.choice, remote=True)
    bpy.ops.kinora.backend_stop()


def settled(session, condition) -> None:
    """Until the list says so; the artist looks at it."""

    def look():
        session.server.refresh()
        return condition()

    pump_until(session, look)


def test_the_result_of_an_earlier_session_is_fetched_and_imported(connected, scene, other, tmp_path):
    clip = clip_that(tmp_path, "work")
    ticket = other.submit(clip, SETTINGS, tmp_path / "theirs")
    job = queued(other, ticket)
    end_of(other, ticket)
    settled(connected, lambda: row(connected, job) and row(connected, job).state == "done")
    out = tmp_path / "mine"
    assert bpy.ops.kinora.fetch_job(job=job, directory=str(out)) == {"FINISHED"}
    mine = connected.jobs[-1]
    pump_until(connected, lambda: not mine.active)
    assert (mine.state, mine.message) == ("DONE", "")
    assert (out / "capture.json").is_file()
    assert scene.collection.children
    # Once more: into the next folder, as the first one holds a capture.
    scene.kinora.output_path = str(tmp_path / "shots")
    assert bpy.ops.kinora.fetch_job(job=job, import_when_done=False) == {"FINISHED"}
    again = connected.jobs[-1]
    pump_until(connected, lambda: not again.active)
    assert again.state == "DONE"
    assert again.folder == out.with_name("mine_002")


def test_without_a_place_for_the_result_it_is_asked_for(connected, other, tmp_path):
    ticket = other.submit(clip_that(tmp_path, "work"), SETTINGS, tmp_path / "theirs")
    job = queued(other, ticket)
    end_of(other, ticket)
    settled(connected, lambda: row(connected, job))
    with pytest.raises(RuntimeError, match="save the file, or choose the output folder in Files"):
        bpy.ops.kinora.fetch_job(job=job)


def test_a_failed_job_has_no_result_to_fetch(connected, other, tmp_path):
    ticket = other.submit(clip_that(tmp_path, "refuse"), SETTINGS, tmp_path / "theirs")
    job = queued(other, ticket)
    end_of(other, ticket)
    settled(connected, lambda: row(connected, job) and row(connected, job).state == "failed")
    with pytest.raises(RuntimeError, match="has no result: it failed; reconstruct it again"):
        bpy.ops.kinora.fetch_job(job=job, directory=str(tmp_path / "mine"))


CRASHES = """
import sys, time
sys.path.insert(0, {root!r})
import bpy, blender_addon
bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
blender_addon.register()
from blender_addon.ui.session import current
bpy.ops.wm.save_as_mainfile(filepath={blend!r})
bpy.context.scene.kinora.clip_path = {clip!r}
bpy.ops.kinora.reconstruct()
while current().jobs[-1].state != "RUNNING":
    current().pump()
    time.sleep(0.02)
print("RUNNING", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_after_a_crash_of_blender_the_job_comes_back_to_its_scene_by_itself(session, tmp_path):
    """kill -9 while the job runs, in a file that was saved before: opened again, it gets the capture."""
    blend, clip = tmp_path / "shot.blend", clip_that(tmp_path, "show", "10", "0.3")
    script = CRASHES.format(root=str(ROOT), blend=str(blend), clip=str(clip))
    blender = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=dict(os.environ))
    assert any(line.startswith(b"RUNNING") for line in blender.stdout)
    blender.kill()
    blender.wait()
    bpy.ops.wm.open_mainfile(filepath=str(blend))
    assert not bpy.context.scene.kinora.tickets, "nothing was saved after Reconstruct"
    bpy.ops.kinora.backend_start()
    pump_until(session, lambda: bool(session.jobs))
    (job,) = session.jobs
    assert job.clip == clip
    assert job.settings == SETTINGS
    pump_until(session, lambda: not job.active)
    assert (job.state, job.message) == ("DONE", "")
    assert job.folder == tmp_path / "kinora" / clip.stem
    assert bpy.context.scene.collection.children
    # Its end was seen: it does not come again.
    leave(session)
    session.jobs = []
    bpy.ops.kinora.backend_start()
    pump_until(session, lambda: session.state == "READY" and session.server.known and not session.server.busy)
    assert session.jobs == []


@pytest.mark.slow
def test_a_job_follows_its_scene_into_a_file_of_another_name(session, scene, tmp_path):
    clip = clip_that(tmp_path, "show", "8", "0.3")
    scene.kinora.clip_path = str(clip)
    scene.kinora.output_path = str(tmp_path / "out")
    bpy.ops.kinora.reconstruct()
    pump_until(session, lambda: session.jobs[-1].state == "RUNNING")
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "v002.blend"))
    blender_addon.unregister()  # Blender is quit
    try:
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    finally:
        blender_addon.register()
    from blender_addon.ui.session import current

    bpy.ops.kinora.backend_start()
    pump_until(current(), lambda: current().state == "READY" and current().server.known)
    assert current().jobs == [], "no open scene waits for it"
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "v002.blend"))
    pump_until(current(), lambda: bool(current().jobs) and not current().jobs[0].active)
    assert current().jobs[0].state == "DONE"
    assert (tmp_path / "out" / "capture.json").is_file()


@pytest.mark.slow
def test_leaving_the_backend_leaves_its_jobs_and_coming_back_follows_them(connected, scene, tmp_path):
    scene.kinora.clip_path = str(clip_that(tmp_path, "show", "8", "0.3"))
    bpy.ops.kinora.reconstruct()
    job = connected.jobs[-1]
    pump_until(connected, lambda: job.state == "RUNNING")
    leave(connected)
    assert job.state == "AWAY"
    assert not job.active
    bpy.ops.kinora.backend_start()
    pump_until(connected, lambda: job.state == "DONE")
    assert scene.collection.children


@pytest.mark.slow
def test_a_backend_that_is_stopped_goes_on_with_its_jobs_when_it_is_started_again(
    session, scene, tmp_path, monkeypatch
):
    """Stop, as for the backend of this computer, while a job runs; a second server on the same data folder."""
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    scene.kinora.clip_path = str(clip_that(tmp_path, "show", "10", "0.3"))
    with serving_server(tmp_path / "home"):
        bpy.ops.kinora.reconstruct()
        job = session.jobs[-1]
        pump_until(session, lambda: job.state == "RUNNING")
        bpy.ops.kinora.backend_stop()
        assert job.state == "AWAY"
        with pytest.raises(RuntimeError, match="goes on at a backend that is not connected"):
            bpy.ops.kinora.cancel(job=job.uid)
    with serving_server(tmp_path / "home"):
        bpy.ops.kinora.backend_start()
        pump_until(session, lambda: not job.active and job.state != "AWAY")
        assert (job.state, job.message) == ("DONE", "")
        assert scene.collection.children
        session.close()


def test_waiting_jobs_are_ordered_kept_and_deleted(connected, scene, other, tmp_path):
    """One blocks the backend; the others wait, and are moved about."""
    blocker = other.submit(clip_that(tmp_path, "slow"), SETTINGS, tmp_path / "blocked")
    ids = [queued(other, blocker)]
    for name in "abc":
        ids.append(queued(other, other.submit(clip_that(tmp_path / name, "work"), SETTINGS, tmp_path / f"out-{name}")))
    blocked, a, b, c = ids

    def order() -> list[str]:
        rows = [r for r in connected.server.listing.jobs if r.state == "queued" and r.job in ids]
        return [r.job for r in sorted(rows, key=lambda r: r.position)]

    settled(connected, lambda: order() == [a, b, c])
    for job, direction, expected in (
        (c, "UP", [a, c, b]),
        (c, "TOP", [c, a, b]),
        (c, "UP", [c, a, b]),
        (c, "DOWN", [a, c, b]),
        (a, "BOTTOM", [c, b, a]),
        (a, "DOWN", [c, b, a]),
    ):
        assert bpy.ops.kinora.move_job(job=job, direction=direction) == {"FINISHED"}
        settled(connected, lambda expected=expected: order() == expected)
    bpy.ops.kinora.job_priority(job=a, level="HIGH")
    settled(connected, lambda: order() == [a, c, b])
    with pytest.raises(RuntimeError, match="does not wait in the queue"):
        bpy.ops.kinora.move_job(job=blocked)
    with pytest.raises(RuntimeError, match="has not ended; cancel it first"):
        bpy.ops.kinora.delete_job(job=a)

    for job in (a, b, c, blocked):
        assert bpy.ops.kinora.cancel(job=job) == {"FINISHED"}
    settled(connected, lambda: all(row(connected, job).state == "cancelled" for job in ids))

    bpy.ops.kinora.pin_job(job=a)
    settled(connected, lambda: row(connected, a).pinned)
    bpy.ops.kinora.pin_job(job=a, pinned=False)
    settled(connected, lambda: not row(connected, a).pinned)
    for job in ids:
        assert bpy.ops.kinora.delete_job(job=job) == {"FINISHED"}
    settled(connected, lambda: not any(row(connected, job) for job in ids))
    assert connected.server.problem == ""


def test_a_refusal_of_the_backend_is_told_and_forgotten_by_the_next_request(connected, tmp_path):
    connected.server.ask(connected.client, "delete", job="0" * 32)
    pump_until(connected, lambda: connected.server.problem)
    assert "does not know this job" in connected.server.problem
    bpy.ops.kinora.refresh_jobs()
    connected.server.ask(connected.client, "usage")
    assert connected.server.problem == ""
    pump_until(connected, lambda: not connected.server.busy)
    assert connected.server.usage.free > 0


def test_what_is_kept_of_an_order_holds_no_key_but_the_public_one(connected, scene, tmp_path):
    scene.kinora.clip_path = str(clip_that(tmp_path, "refuse"))
    bpy.ops.kinora.reconstruct()
    job = connected.jobs[-1]
    pump_until(connected, lambda: not job.active)
    file = paths.orders_folder() / f"{job.server_job}.json"
    end = time.monotonic() + 5
    while not (file.is_file() and json.loads(file.read_text())["settled"]):
        assert time.monotonic() < end
        time.sleep(0.02)
    text = file.read_text()
    assert connected.connection.server_public_key in text
    assert connected.connection.client_secret_key not in text
    assert orders.kept(connected.connection.server_public_key)[job.server_job].clip == str(job.clip)
    assert orders.kept("another backend") == {}


def test_nothing_of_it_holds_the_window_up(connected, scene, other, tmp_path):
    """A job runs, the list is asked for all the time, orders are kept: no pump takes longer than 10 ms."""
    scene.kinora.import_when_done = False
    scene.kinora.live = False
    scene.kinora.clip_path = str(clip_that(tmp_path, "show", "6", "0.2"))
    bpy.ops.kinora.reconstruct()
    job, took = connected.jobs[-1], []
    while job.active:
        connected.server.refresh()
        began = time.thread_time()  # this thread's own work: the machine is shared
        connected.pump()
        took.append(time.thread_time() - began)
        time.sleep(0.02)
    assert job.state == "DONE"
    assert max(took) < 0.010, f"{1e3 * max(took):.1f} ms"


def test_a_clip_in_its_folder_is_found_again_for_the_plate(connected, scene, other, tmp_path):
    """The scene's own clip stands for a job of that name whose order is not known."""
    clip = clip_that(tmp_path, "work")
    ticket = other.submit(clip, SETTINGS, tmp_path / "theirs")
    job = queued(other, ticket)
    end_of(other, ticket)
    settled(connected, lambda: row(connected, job) and row(connected, job).state == "done")
    scene.kinora.clip_path = str(clip)
    bpy.ops.kinora.fetch_job(job=job, directory=str(tmp_path / "mine"), import_when_done=False)
    mine = connected.jobs[-1]
    pump_until(connected, lambda: not mine.active)
    assert Path(json.loads((mine.folder / "capture.json").read_text())["clip"]["source"]) == clip
