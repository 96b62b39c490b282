"""Localising a plate as an artist and a script do: over a real server into the scene, and what stands in its way."""

from __future__ import annotations

import itertools
from pathlib import Path

import bpy
import pytest

from backend.export.images import add_images
from backend.wire import write_capture
from blender_addon.scene.identity import job_of
from blender_addon.scene.imported import imported_in
from blender_addon.scene.plate_facts import PlateFacts
from blender_addon.scene.plates import plate_cameras
from tests.localised import localised
from tests.scene.captures import small

from .conftest import pump_until
from .test_every_operator import drawn
from .test_panels import in_sidebar, squeezed

NUMBERS = itertools.count()


@pytest.fixture
def clip_named(tmp_path):
    """A new "clip" whose first line tells the server's pipeline what to do."""

    def make(name: str, deed: str = "work") -> Path:
        path = tmp_path / name
        path.write_text(deed + "\n" * next(NUMBERS), encoding="utf-8")
        return path

    return make


@pytest.fixture
def room(server, session, scene, clip_named):
    """The import of a capture that the backend made."""
    scene.kinora.clip_path = str(clip_named("room.mp4"))
    bpy.ops.kinora.reconstruct(wait=True)
    (found,) = imported_in(scene)
    return found


def panel(imported) -> str:
    """What the panel says."""
    bpy.context.view_layer.objects.active = imported.root
    with in_sidebar():
        return drawn(bpy.types.KINORA_PT_plates, bpy.context)


def test_a_plate_becomes_a_camera_of_the_capture(session, scene, room, clip_named):
    bpy.ops.ed.undo_push(message="Before")
    capture_path, own = scene.kinora.capture_path, scene.camera
    plate = clip_named("plate.mp4")
    assert bpy.ops.kinora.localise_plate(filepath=str(plate), focal_mm=35, near_frame=1) == {"FINISHED"}
    job = session.jobs[-1]
    assert job.settings.engine_settings.reference == job_of(room.root)[0]
    assert (job.settings.lens.focal_mm, job.settings.engine_settings.near_frame) == (35, 1)
    assert "plate.mp4: Waiting for the backend" in panel(room)
    pump_until(session, lambda: not job.active)
    assert (job.state, job.message) == ("DONE", "")
    (camera,) = plate_cameras(room)
    assert (camera.parent, scene.camera) == (room.root, own)
    assert len(imported_in(scene)) == 1
    assert scene.kinora.capture_path == capture_path, "Import would bring the capture again, not the plate"
    text = panel(room)
    assert "3 of 3" in text
    assert "100, median 90" in text
    assert "0.40 px, mean 0.50" in text
    bpy.ops.ed.undo()
    (room,) = imported_in(bpy.context.scene)
    assert not plate_cameras(room)
    bpy.ops.ed.redo()
    assert len(plate_cameras(imported_in(bpy.context.scene)[0])) == 1


def test_a_script_waits_for_it_and_the_near_frame_is_what_is_seen(session, scene, room, clip_named):
    scene.frame_set(2)
    arguments = {"near_current": True, "still": True, "points": True, "start_frame": 40, "wait": True}
    assert bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")), **arguments) == {"FINISHED"}
    how = session.jobs[-1].settings.engine_settings
    assert (how.near_frame, how.still) == (1, True)
    (camera,) = plate_cameras(room)
    assert PlateFacts.read(camera).scene_frames.tolist() == [40, 41, 42]
    assert [ob for ob in scene.objects if ob.type == "POINTCLOUD" and ob.get("kinora_root") == camera]


def test_it_works_after_saving_and_reloading(session, scene, room, clip_named, tmp_path):
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")))
    job = session.jobs[-1]
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))  # and again while it is under way
    pump_until(session, lambda: not job.active)
    assert not job.message
    assert len(plate_cameras(imported_in(bpy.context.scene)[0])) == 1


def test_a_capture_imported_by_hand_is_known_by_its_folder(session, scene, room, clip_named):
    folder = str(room.folder)
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.kinora.import_capture(directory=folder)
    assert job_of(imported_in(bpy.context.scene)[0].root) is None
    assert bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")), wait=True) == {"FINISHED"}
    assert len(plate_cameras(imported_in(bpy.context.scene)[0])) == 1


def test_a_capture_that_the_backend_has_no_more_is_told_with_what_to_do(session, scene, room, clip_named):
    job = job_of(room.root)[0]
    pump_until(session, lambda: session.server.known and session.server.job(job) is not None)
    bpy.ops.kinora.delete_job(job=job)
    pump_until(session, lambda: session.server.job(job) is None and not session.server.busy)
    with pytest.raises(RuntimeError, match=r"does not have the capture of .* any more.*reconstruct its clip"):
        bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")))
    session.server.known = False  # it could not be asked in time: the backend itself refuses
    with pytest.raises(RuntimeError, match="does not have that capture of yours any more"):
        bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")), wait=True)
    assert not plate_cameras(room)


def test_a_root_that_is_deleted_meanwhile_is_told(session, scene, room, clip_named):
    bpy.ops.kinora.localise_plate(filepath=str(clip_named("plate.mp4")))
    job = session.jobs[-1]
    bpy.ops.kinora.remove_import()
    pump_until(session, lambda: not job.active)
    assert "is not in this scene" in job.message
    assert str(job.folder) in job.hint
    assert not bpy.data.cameras


@pytest.fixture
def by_hand(scene, tmp_path):
    """An import of a capture that no backend is known to have made."""
    path = write_capture(small(3), tmp_path / "kinora" / "room")
    bpy.ops.kinora.import_capture(directory=str(path))
    (found,) = imported_in(scene)
    return found


def test_what_is_missing_is_said(scene, by_hand, clip_named, tmp_path):
    for arguments, words in (
        ({}, "No plate was chosen"),
        ({"filepath": str(tmp_path / "gone.mp4")}, "does not exist"),
        ({"filepath": str(clip_named("plate.mp4"))}, "It is not known which job of the backend made room"),
    ):
        with pytest.raises(RuntimeError, match=words):
            bpy.ops.kinora.localise_plate(**arguments)


def test_a_plate_camera_from_the_disk_is_viewed_and_removed(scene, by_hand, tmp_path):
    folder = write_capture(localised(4, lost=(2,)), tmp_path / "plate", [add_images])
    assert bpy.ops.kinora.import_plate(directory=str(folder), start_frame=5) == {"FINISHED"}
    (camera,) = plate_cameras(by_hand)
    scene.frame_set(7)
    text = panel(by_hand)
    assert "3 of 4" in text
    assert "Not found" in text
    assert bpy.ops.kinora.view_plate() == {"FINISHED"}
    assert (scene.camera, scene.render.resolution_x, scene.render.resolution_y) == (camera, 90, 60)
    with pytest.raises(RuntimeError, match="has no plate camera Nobody"):
        bpy.ops.kinora.remove_plate(camera="Nobody")
    bpy.ops.kinora.import_plate(directory=str(folder))
    bpy.context.view_layer.objects.active = by_hand.root
    with pytest.raises(RuntimeError, match="select the one that is meant"):
        bpy.ops.kinora.remove_plate()
    assert bpy.ops.kinora.remove_plate(camera=camera.name) == {"FINISHED"}
    bpy.context.view_layer.objects.active = plate_cameras(by_hand)[0]
    assert bpy.ops.kinora.remove_plate() == {"FINISHED"}
    assert not plate_cameras(by_hand)
    assert not bpy.ops.kinora.remove_plate.poll()


def test_a_plate_of_an_earlier_version_of_the_capture_is_told(scene, by_hand, tmp_path):
    bpy.ops.kinora.import_plate(directory=str(write_capture(localised(2), tmp_path / "plate")))
    assert "wasupdatedsince" not in squeezed(panel(by_hand))
    bpy.ops.kinora.update_capture(directory=str(write_capture(small(5), tmp_path / "again")))
    assert "wasupdatedsince" in squeezed(panel(imported_in(scene)[0]))
