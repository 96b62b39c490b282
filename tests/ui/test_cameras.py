"""Every operator on the camera works from a script, says why it cannot, is undone, and the panel tells the truth."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import bpy
import numpy as np
import pytest

from blender_addon.scene.camera_edits import CameraEdits
from blender_addon.scene.imported import imported_in
from blender_addon.scene.smoothing import Smoothing
from blender_addon.scene.solve_quality import SolveQuality
from blender_addon.ui import camera_panel
from blender_addon.wire.capture import read_capture, write_capture
from tests.scene.test_camera_edits import EXPECTED, flagged, markers
from tests.ui.test_panels import Recorder

kinora = bpy.ops.kinora


@pytest.fixture
def shot(scene, tmp_path):
    """An import with frames that the solver flagged; the folder of its capture."""
    folder = write_capture(flagged(), tmp_path / "capture")
    kinora.import_capture(directory=str(folder), start_frame=1)
    return folder


@pytest.fixture
def camera(scene, shot):
    return imported_in(scene)[0].camera


def drawn(scene) -> str:
    """The texts of the Camera panel; without a window, long ones are wrapped to a few letters."""
    window = bpy.context.window_manager.windows[0]
    area = next(a for a in window.screen.areas if a.type == "VIEW_3D")
    region = next(r for r in area.regions if r.type == "UI")
    seen: list[str] = []
    with bpy.context.temp_override(window=window, area=area, region=region):
        panel = SimpleNamespace(layout=Recorder(seen), draw_import=None)
        camera_panel.KINORA_PT_camera.draw_import(panel, bpy.context, imported_in(scene)[0])
    return " | ".join(seen)


def test_without_an_import_every_operator_says_what_to_do_first(scene):
    for name in ("measure_camera", "smooth_camera", "reset_camera", "switch_camera_frames", "write_st_maps"):
        with pytest.raises(RuntimeError, match="Import a capture first"):
            getattr(kinora, name)()


def test_smoothing_and_reset(scene, camera):
    assert kinora.smooth_camera(location=3, rotation=1.5) == {"FINISHED"}
    assert CameraEdits.read(camera).smoothing == Smoothing(3, 1.5, 0)
    assert SolveQuality.read(camera).deviation_px > 0.01
    text = drawn(scene)
    assert "Smoothed | 3 / 1.5 / 0 frames" in text
    assert kinora.reset_camera() == {"FINISHED"}
    assert CameraEdits.read(camera) == CameraEdits()
    assert SolveQuality.read(camera).deviation_px < 0.01
    assert "Smoothed" not in drawn(scene)


def test_an_edit_is_undone_whole(scene, camera):
    name = camera.name
    bpy.ops.ed.undo_push(message="before")
    scene.frame_set(2)
    before = tuple(camera.location)
    kinora.smooth_camera(location=3)
    bpy.ops.ed.undo_push(message="smoothed")
    bpy.ops.ed.undo()
    camera = bpy.data.objects[name]
    assert CameraEdits.read(camera) == CameraEdits()
    bpy.context.scene.frame_set(2)
    assert tuple(camera.location) == pytest.approx(before, abs=1e-6)


def test_frames_are_switched_off_by_what_is_known_of_them(scene, camera):
    scene.frame_set(7)
    kinora.switch_camera_frames(which="CURRENT")
    assert CameraEdits.read(camera).switched_off == {6}
    assert "[Switch Frame On]" in drawn(scene)
    kinora.switch_camera_frames(which="FLAGGED")
    assert CameraEdits.read(camera).switched_off == {3, 4, 6, 9, 10, 11}
    assert "Switched Off | 6 frames" in drawn(scene)
    kinora.switch_camera_frames(which="RANGE", first=10, last=11, on=True)
    assert CameraEdits.read(camera).switched_off == {3, 4, 6, 11}
    kinora.switch_camera_frames(which="ALL", on=True)
    assert CameraEdits.read(camera) == CameraEdits()
    with pytest.raises(RuntimeError, match="No frame of the capture is meant"):
        kinora.switch_camera_frames(which="WORSE", limit_px=1.0)
    with pytest.raises(RuntimeError, match="No frame would have a camera"):
        kinora.switch_camera_frames(which="ALL")
    assert CameraEdits.read(camera) == CameraEdits()


def test_jumping(scene, camera, shot):
    scene.frame_set(1)
    found = []
    for _ in range(6):
        kinora.jump_to_frame(where="NEXT")
        found.append(scene.frame_current)
    assert found == [4, 5, 7, 10, 11, 12]
    with pytest.raises(RuntimeError, match="No frame after this one is flagged"):
        kinora.jump_to_frame(where="NEXT")
    kinora.jump_to_frame(where="PREVIOUS")
    assert scene.frame_current == 11
    camera.animation_data.action = None
    camera.location = read_capture(shot).world_from_camera[1, :3, 3]  # right for the second frame at most
    kinora.measure_camera()
    kinora.jump_to_frame(where="WORST")
    assert scene.frame_current == 1 + np.nanargmax(SolveQuality.read(camera).mean_px)


def test_markers_are_toggled(scene, camera):
    assert markers(scene) == EXPECTED
    kinora.solver_markers(show=False)
    assert not scene.timeline_markers
    kinora.solver_markers(show=True)
    assert markers(scene) == EXPECTED


def test_the_panel_shows_the_error_and_what_is_flagged(scene, camera):
    scene.frame_set(5)
    text = drawn(scene)
    assert "Reprojection | 0.00 px" in text
    assert "This Frame | No tracks | Solver | No Camera" in text
    assert "6 of 12 frames flagged" in text
    camera.data.shift_x += 8 / 96
    kinora.measure_camera()
    assert "Reprojection | 8.00 px" in drawn(scene)


def test_a_capture_without_tracks_says_so(scene, tmp_path):
    folder = write_capture(replace(flagged(), tracks=None), tmp_path / "capture")
    kinora.import_capture(directory=str(folder))
    text = drawn(scene)
    assert "Thecapturehasnotracks" in text.replace(" | ", "").replace(" ", "")
    assert "Off the Capture | 0.00 px" in text
    assert "Worst Frame" not in text
    with pytest.raises(RuntimeError, match="no tracks to measure"):
        kinora.jump_to_frame(where="WORST")


def test_known_sensors_for_the_camera_and_for_the_job(scene, camera):
    lens = camera.data.lens
    kinora.camera_sensor(preset="APS-C")
    assert camera.data.lens == pytest.approx(lens * 23.6 / 36, rel=1e-5)
    kinora.measure_camera()
    assert SolveQuality.read(camera).error_px < 0.01
    kinora.job_sensor(preset="Arri_Alexa_LF")
    assert scene.kinora.lens.sensor_width_mm == pytest.approx(36.7)
    kinora.job_sensor(preset="Arri_Alexa_LF", portrait=True)
    assert scene.kinora.lens.sensor_width_mm == pytest.approx(25.54)
    with pytest.raises(RuntimeError, match="no camera preset 'Kodak'"):
        kinora.job_sensor(preset="Kodak")


def test_a_render_of_another_shape_is_told_and_mended(scene, camera):
    assert "Match Render" not in drawn(scene)
    scene.render.resolution_x, scene.render.resolution_y = 192, 128
    assert "Match Render" not in drawn(scene)  # twice the size, the same shape
    scene.render.resolution_x, scene.render.pixel_aspect_y = 1080, 1.5
    assert "[Match Render to Plate]" in drawn(scene)
    kinora.match_plate()
    render = scene.render
    assert (render.resolution_x, render.resolution_y, render.pixel_aspect_x, render.pixel_aspect_y) == (96, 64, 1, 1)
    assert "Match Render" not in drawn(scene)


def test_a_capture_that_is_gone_and_a_camera_that_was_deleted(scene, camera, shot):
    shutil.rmtree(shot)
    with pytest.raises(RuntimeError, match="use Relink Capture"):
        kinora.smooth_camera(location=2)
    assert "Reprojection | 0.00 px" in drawn(scene)  # what was measured stays known
    bpy.data.objects.remove(camera)
    with pytest.raises(RuntimeError, match="camera of this capture was deleted"):
        kinora.measure_camera()
    assert "wasdeleted" in drawn(scene).replace(" | ", "").replace(" ", "")


def test_a_straight_plate_has_no_st_maps_and_no_choice(scene, camera):
    with pytest.raises(RuntimeError, match="no lens distortion"):
        kinora.write_st_maps()
    with pytest.raises(RuntimeError, match="No plate stands behind the camera"):
        kinora.plate_undistorted()
    assert "Distortion" not in drawn(scene)


def test_st_maps_beside_the_capture_or_where_the_artist_says(scene, tmp_path):
    capture = flagged()
    capture = replace(capture, clip=replace(capture.clip, k1=-0.1))
    folder = write_capture(capture, tmp_path / "capture")
    kinora.import_capture(directory=str(folder))
    assert kinora.write_st_maps() == {"FINISHED"}
    assert kinora.write_st_maps(directory=str(tmp_path / "maps")) == {"FINISHED"}
    for place in (folder, tmp_path / "maps"):
        assert sorted(p.name for p in place.glob("st_*")) == ["st_redistort.exr", "st_undistort.exr"]
    assert [g.name for g in bpy.data.node_groups if "Lens" in g.name] == ["room Lens Distortion"]
    with pytest.raises(RuntimeError, match="not saved yet"):
        kinora.write_st_maps(directory="//maps")
