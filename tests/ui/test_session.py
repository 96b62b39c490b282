"""From the panel's settings over a real server into a scene: progress, import, cancel, errors, scenes that go."""

from __future__ import annotations

import itertools
from pathlib import Path

import bpy
import pytest

import blender_addon
from blender_addon.scene.report import ImportReport

from .conftest import of_the_addon, pump_until

pytestmark = pytest.mark.usefixtures("server")
NUMBERS = itertools.count()


@pytest.fixture
def ask(scene, tmp_path):
    """Press Reconstruct for a clip that makes the server's pipeline do `deed`; the job."""
    from blender_addon.ui.session import current

    def press(deed: str):
        clip = tmp_path / "street.mp4"
        clip.write_text(deed + "\n" * next(NUMBERS), encoding="utf-8")  # another content, another job
        scene.kinora.clip_path = str(clip)
        assert bpy.ops.kinora.reconstruct() == {"FINISHED"}
        return current().jobs[-1]

    return press


def test_a_clip_becomes_a_capture_in_the_scene(session, scene, ask):
    """Nothing was started or connected before: Reconstruct alone does it all."""
    assert session.state == "OFF"
    job = ask("work")
    assert job.status == "Waiting for the backend"
    seen = []
    pump_until(session, lambda: seen.append((job.state, job.fraction)) or not job.active)
    assert session.state == "READY"
    assert job.state == "DONE"
    assert not job.message
    assert {"QUEUED", "RUNNING", "IMPORTING"} & {state for state, _ in seen}
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert (job.folder / "capture.json").is_file()
    assert Path(bpy.path.abspath(scene.kinora.capture_path)) == job.folder
    (collection,) = scene.collection.children
    assert ImportReport.read(collection).points > 0
    assert session.summary(job.folder).registered == 2


def test_without_import_when_done_the_scene_stays_as_it_is(session, scene, ask):
    scene.kinora.import_when_done = False
    job = ask("work")
    pump_until(session, lambda: not job.active)
    assert job.state == "DONE"
    assert not scene.collection.children
    assert bpy.ops.kinora.import_capture(directory=scene.kinora.capture_path) == {"FINISHED"}
    assert scene.collection.children


def test_an_import_by_itself_can_be_undone(session, scene, ask):
    bpy.ops.ed.undo_push(message="Before")
    job = ask("work")
    pump_until(session, lambda: not job.active)
    assert bpy.context.scene.collection.children
    bpy.ops.ed.undo()
    assert not bpy.context.scene.collection.children
    bpy.ops.ed.redo()
    assert bpy.context.scene.collection.children


def test_cancel_stops_the_job_and_leaves_no_capture(session, scene, ask):
    job = ask("slow")
    pump_until(session, lambda: job.state == "RUNNING")
    assert bpy.ops.kinora.cancel() == {"FINISHED"}
    assert job.state == "CANCELLING"
    pump_until(session, lambda: not job.active)
    assert job.state == "CANCELLED"
    assert not job.out.exists()
    assert bpy.ops.kinora.reconstruct.poll()


def test_a_job_that_waits_for_the_backend_can_be_cancelled(session, ask):
    job = ask("work")
    bpy.ops.kinora.cancel()
    assert job.state == "CANCELLED"
    pump_until(session, lambda: session.state == "READY")
    assert not job.ticket


def test_what_the_user_can_fix_is_shown_with_its_hint(session, ask):
    job = ask("refuse")
    pump_until(session, lambda: not job.active)
    assert (job.state, job.message, job.hint) == ("FAILED", "The camera never moves", "choose another shot")
    report = job.report()
    assert "The camera never moves" in report
    assert '"engine":"classical"' in report
    assert "looking at 1 files" in report


@pytest.mark.slow
def test_a_bug_in_the_backend_is_shown_and_the_next_job_works(session, ask):
    job = ask("bug")
    pump_until(session, lambda: not job.active)
    assert job.state == "FAILED"
    assert job.message
    job = ask("work")
    pump_until(session, lambda: not job.active)
    assert job.state == "DONE"


def test_the_same_work_is_not_queued_twice_and_each_scene_has_its_own(session, scene, ask):
    job = ask("slow")
    with pytest.raises(RuntimeError, match="in the queue already"):
        bpy.ops.kinora.reconstruct()
    other = bpy.data.scenes.new("Other")
    assert session.job(scene) is job
    assert session.job(other) is None
    bpy.ops.kinora.cancel()
    pump_until(session, lambda: not job.active)


def test_a_renamed_scene_still_gets_its_capture(session, scene, ask):
    job = ask("work")
    scene.name = "Shot 12"
    pump_until(session, lambda: not job.active)
    assert bpy.data.scenes["Shot 12"].collection.children


def test_a_capture_never_lands_in_a_stranger(session, scene, ask):
    """Another file is opened while the job runs: its scene has the same name but did not ask."""
    job = ask("work")
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    pump_until(session, lambda: not job.active)
    assert job.state == "DONE"
    assert "not open" in job.message
    assert str(job.folder) in job.hint
    assert not bpy.context.scene.collection.children


def test_the_same_file_opened_again_gets_its_capture(session, scene, ask, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    job = ask("work")
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    pump_until(session, lambda: not job.active)
    assert not job.message
    assert bpy.context.scene.collection.children


def test_nothing_is_imported_under_the_artists_hands(session, scene, ask):
    """An import waits until Edit Mode is left: it could not be undone from within."""
    if not bpy.context.window_manager.windows:
        pytest.skip("this Blender has no window at all")
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    job = ask("work")
    pump_until(session, lambda: job.state == "IMPORTING")
    for _ in range(5):
        session.pump()
    assert job.state == "IMPORTING"
    assert not scene.collection.children
    bpy.ops.object.mode_set(mode="OBJECT")
    pump_until(session, lambda: not job.active)
    assert scene.collection.children


def test_leaving_the_backend_ends_its_jobs_here(session, ask, server):
    job = ask("slow")
    pump_until(session, lambda: job.state == "RUNNING")
    session.cancel(job)
    pump_until(session, lambda: not job.active)
    session.close()
    assert server.poll() is None  # another Blender may be using it: only what we started ends with us


def test_unregistering_leaves_no_thread(session, ask):
    before = of_the_addon()
    job = ask("work")
    pump_until(session, lambda: not job.active)
    assert of_the_addon() > before
    blender_addon.unregister()
    try:
        assert of_the_addon() <= before
    finally:
        blender_addon.register()


def test_a_backend_that_was_found_but_not_taken_yet_is_left_too(session, ask):
    """Blender quits between the moment that the backend is found and the next turn of the timer."""
    before = of_the_addon()
    ask("work")
    opening = session._opening
    opening._thread.join(20.0)
    assert of_the_addon() > before
    session.close()
    assert of_the_addon() <= before
    assert opening.result() is None
