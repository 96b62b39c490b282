"""A capture is imported between redraws: undo, saving, loading and Cancel in the middle find nothing half done."""

from __future__ import annotations

import time

import bpy
import pytest

from blender_addon.scene.imported import imported_in
from blender_addon.scene.report import ImportReport
from blender_addon.ui import landing
from tests.scene.captures import player_of

from .conftest import pump_until

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def half_way(session, scene, tmp_path, monkeypatch):
    """A job whose capture is imported one step a pump, and about half of it is."""
    monkeypatch.setattr(landing, "IMPORT_S", 0.0)
    monkeypatch.setattr(landing, "IMPORT_SHARE", 0.0)
    scene.kinora.live = False
    bpy.ops.ed.undo_push(message="Before")
    clip = tmp_path / "street.mp4"
    clip.write_text(f"work\n{time.monotonic_ns()}", encoding="utf-8")
    scene.kinora.clip_path = str(clip)
    bpy.ops.kinora.reconstruct()
    job = session.jobs[-1]
    pump_until(session, lambda: job.state == "IMPORTING" and bpy.data.collections.get("street Frames") is not None)
    assert not scene.collection.children
    return job


def finished(session, job) -> None:
    pump_until(session, lambda: not job.active)
    (imported,) = imported_in(bpy.context.scene)
    assert not job.message
    assert ImportReport.read(imported.collection).points > 0
    assert player_of(imported.collection)
    assert len([c for c in bpy.data.collections if c.name.startswith("street")]) == 2  # its own and the frames'


def test_it_takes_many_pumps_and_says_how_far_it_is(session, half_way):
    fractions = []
    pump_until(session, lambda: fractions.append(half_way.stage_fraction) or not half_way.active)
    assert len(fractions) > 10
    assert len(set(fractions)) > 3
    finished(session, half_way)


def test_undo_in_the_middle_makes_it_start_over(session, half_way):
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Cube")
    bpy.ops.ed.undo()
    assert bpy.data.collections.get("street") is None or not bpy.data.collections["street"].users
    finished(session, half_way)


def test_redo_of_a_step_that_was_made_in_the_middle_brings_nothing_half_done_back(session, scene, half_way):
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Cube")  # it has half an import in it
    bpy.ops.ed.undo()
    session.cancel(half_way)
    bpy.ops.ed.redo()
    assert bpy.data.objects.get("Cube")
    assert not bpy.data.pointclouds
    assert not [c.name for c in bpy.data.collections if c.name.startswith("street")]


def test_undo_before_it_has_its_own_step_makes_it_start_over(session, scene, half_way):
    """It is in the scene already; its step for Ctrl-Z, which takes Blender a while, comes with the next pump."""
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.ed.undo_push(message="Cube")
    pump_until(session, lambda: session.landing.landed(half_way))
    assert imported_in(scene)
    bpy.ops.ed.undo()
    assert not imported_in(bpy.context.scene)
    finished(session, half_way)


def test_it_is_one_step_for_undo(session, scene, half_way):
    pump_until(session, lambda: not half_way.active)
    assert imported_in(bpy.context.scene)
    bpy.ops.ed.undo()
    assert not imported_in(bpy.context.scene)
    bpy.ops.ed.redo()
    assert imported_in(bpy.context.scene)


def test_cancel_does_not_take_away_what_is_in_the_scene(session, scene, half_way):
    pump_until(session, lambda: session.landing.landed(half_way))
    session.cancel(half_way)
    finished(session, half_way)


def test_a_file_saved_in_the_middle_holds_nothing_of_it(session, half_way, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "middle.blend"), copy=True)
    with bpy.data.libraries.load(str(tmp_path / "middle.blend")) as (held, _):
        assert not held.collections
        assert not held.pointclouds
        assert not held.objects
    finished(session, half_way)


def test_another_file_opened_in_the_middle_gets_nothing_of_it(session, half_way):
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    pump_until(session, lambda: not half_way.active)
    assert "not open" in half_way.message
    assert not bpy.data.pointclouds
    assert not bpy.data.collections


def test_cancel_in_the_middle_leaves_nothing_but_the_capture(session, scene, half_way):
    assert bpy.ops.kinora.cancel() == {"FINISHED"}
    assert half_way.state == "DONE"
    assert "cancelled" in half_way.message
    assert str(half_way.folder) in half_way.hint
    assert not bpy.data.pointclouds
    assert not scene.collection.children
    assert (half_way.folder / "capture.json").is_file()


def test_what_it_built_can_be_purged_under_it(session, half_way):
    bpy.data.orphans_purge(do_recursive=True)
    finished(session, half_way)


def test_it_waits_while_the_artist_edits(session, scene, half_way):
    if not bpy.context.window_manager.windows:
        pytest.skip("this Blender has no window at all")
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    before = half_way.stage_fraction
    for _ in range(20):
        session.pump()
    assert half_way.state == "IMPORTING"
    assert half_way.stage_fraction == before
    bpy.ops.object.mode_set(mode="OBJECT")
    finished(session, half_way)


def test_a_scene_deleted_in_the_middle_is_told(session, scene, half_way):
    bpy.data.scenes.new("Other")
    bpy.data.scenes.remove(scene)
    pump_until(session, lambda: not half_way.active)
    assert "not open" in half_way.message
    assert not bpy.data.pointclouds


def test_unregistering_in_the_middle_leaves_nothing(session, scene, half_way):
    session.close()
    assert not bpy.data.pointclouds
    assert not [c for c in bpy.data.collections if c.name.startswith("street")]


def test_a_window_that_is_slow_to_draw_is_given_more_of_an_import_at_a_time(session, monkeypatch):
    """A quarter of the time between two pumps, within limits: else an import takes a redraw for each of its steps."""
    now = session.landing._rested
    monkeypatch.setattr(landing.time, "perf_counter", lambda: now)
    seen = []
    for away in (0.01, 0.1, 1.0, 10.0):
        now += away
        session.pump()
        seen.append(session.landing.seconds)
    assert seen == pytest.approx([0.015, 0.025, 0.25, 0.5])
