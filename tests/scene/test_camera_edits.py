"""What an artist does to an imported camera is always made from the capture again, measured, and can be taken back."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from backend.geometry.camera import project
from blender_addon.scene import ImportOptions, import_capture
from blender_addon.scene.camera import scene_framing
from blender_addon.scene.camera_edits import CameraEdits, edit_camera, renew_camera, set_sensor, switch_frames
from blender_addon.scene.imported import Imported
from blender_addon.scene.keys import keyed
from blender_addon.scene.markers import MOST_MARKERS, flag_runs, has_markers, remove_markers, show_markers
from blender_addon.scene.sensors import known_sensors
from blender_addon.scene.smoothing import Smoothing
from blender_addon.scene.solve_graph import picture, top_px, with_current
from blender_addon.scene.solve_quality import CURVE, SolveQuality, measure, solver_flags
from blender_addon.wire.capture import FrameReport
from blender_addon.wire.errors import UserError
from tests.scene.captures import camera_of, imported, seen_at, small


def shaken(frames=12, size=0.02):
    """A camera whose place trembles, while its tracks are where a steady one sees them."""
    capture = small(frames)
    tremble = np.random.default_rng(0).normal(0, size, (frames, 3))
    cameras = capture.world_from_camera.copy()
    cameras[:, :3, 3] += tremble
    return replace(capture, world_from_camera=cameras)


def root_of(collection):
    return Imported(camera_of(collection).parent)


def keys_of(camera):
    """Every key of the camera, as (T, 2) frames and values by path and index."""
    found = {}
    for owner in (camera, camera.data):
        for path in ("location", "rotation_quaternion", "lens", "shift_x", "shift_y"):
            for curve in keyed(owner, path):
                found[path, curve.array_index] = np.array([p.co[:] for p in curve.keyframe_points])
    return found


def same_keys(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_the_error_of_a_perfect_import_is_nothing(tmp_path, scene):
    quality = SolveQuality.read(camera_of(imported(small(4), tmp_path, scene)))
    assert quality.measured
    assert quality.error_px < 0.001
    assert quality.mean_px.max() < 0.001
    assert quality.scene_frames.tolist() == [1, 2, 3, 4]


def test_the_error_of_an_import_is_the_distance_of_the_tracks_from_blenders_own_projection(tmp_path, scene):
    capture = shaken(4)
    collection = imported(capture, tmp_path, scene)
    quality, root = SolveQuality.read(camera_of(collection)), np.array(camera_of(collection).parent.matrix_basis)
    tracks = capture.tracks
    for frame in range(4):
        scene.frame_set(1 + frame)
        rows = tracks.frame == frame
        points = tracks.points_world[tracks.point[rows]]
        off = seen_at(points @ root[:3, :3].T + root[:3, 3], scene) - tracks.plate_xy[rows]
        assert quality.mean_px[frame] == pytest.approx(np.hypot(*off.T).mean(), abs=1e-3)
        assert quality.median_px[frame] == pytest.approx(np.median(np.hypot(*off.T)), abs=1e-3)
    assert quality.error_px > 0.2


def test_a_record_of_another_version_counts_as_none(tmp_path, scene):
    camera = camera_of(imported(small(2), tmp_path, scene))
    del camera["kinora_solve"]["median_px"]
    assert SolveQuality.read(camera) is None


def test_measuring_follows_the_artists_edits_and_leaves_the_scene_alone(tmp_path, scene):
    capture = small(4)
    camera = camera_of(imported(capture, tmp_path, scene))
    scene.frame_set(3)
    root = camera.parent
    root.scale *= 3.7
    root.keyframe_insert("scale", frame=1)
    camera.data.shift_x += 8 / 96

    def state():
        return [
            camera.location[:],
            camera.rotation_quaternion[:],
            root.scale[:],
            camera.data.shift_x,
            len(bpy.data.scenes),
        ]

    before = state()
    quality = measure(camera, root, capture)
    assert quality.error_px == pytest.approx(8, abs=0.01)
    assert quality.deviation_px == pytest.approx(8, abs=0.01)
    assert state() == before


def test_the_error_is_a_curve_of_the_graph_editor(tmp_path, scene):
    camera = camera_of(imported(shaken(4), tmp_path, scene, start_frame=11))
    (curve,) = keyed(camera, f'["{CURVE}"]')
    quality = SolveQuality.read(camera)
    points = np.array([p.co[:] for p in curve.keyframe_points])
    assert points[:, 0].tolist() == [11, 12, 13, 14]
    assert points[:, 1] == pytest.approx(quality.mean_px, abs=1e-6)
    scene.frame_set(13)
    assert camera[CURVE] == pytest.approx(quality.mean_px[2], abs=1e-6)


def test_a_capture_without_tracks_has_no_error_but_a_deviation(tmp_path, scene):
    capture = replace(small(4), tracks=None)
    one = root_of(imported(capture, tmp_path, scene))
    quality = SolveQuality.read(one.camera)
    assert not quality.measured
    assert np.isnan(quality.error_px)
    assert np.isnan(quality.mean_px).all()
    assert quality.deviation_px < 0.01
    assert CURVE not in one.camera
    assert not keyed(one.camera, f'["{CURVE}"]')
    one.camera.location.x += 1
    one.camera.data.shift_y = 0.1
    assert measure(one.camera, one.root, capture).deviation_px > 9


def test_smoothing_updates_the_error_and_reset_gives_back_every_key(tmp_path, scene):
    capture = shaken(30)
    one = root_of(imported(capture, tmp_path, scene))
    solved, before = keys_of(one.camera), SolveQuality.read(one.camera).error_px
    after = edit_camera(one, capture, CameraEdits(Smoothing(location=4.0)), scene)
    assert after.error_px < 0.6 * before  # the tracks are those of the steady camera
    assert SolveQuality.read(one.camera).error_px == pytest.approx(after.error_px)
    assert CameraEdits.read(one.camera).smoothing == Smoothing(4.0, 0.0, 0.0)
    smoothed = keys_of(one.camera)
    assert not np.array_equal(smoothed["location", 0], solved["location", 0])
    assert np.array_equal(smoothed["rotation_quaternion", 2], solved["rotation_quaternion", 2])
    edit_camera(one, capture, CameraEdits(Smoothing(location=4.0)), scene)
    assert same_keys(keys_of(one.camera), smoothed)  # made from the capture, so it does not add up
    edit_camera(one, capture, CameraEdits(), scene)
    assert same_keys(keys_of(one.camera), solved)
    assert CameraEdits.read(one.camera) == CameraEdits()


def test_a_frame_that_is_off_has_no_key_and_comes_back(tmp_path, scene):
    capture = small(6)
    cameras = capture.world_from_camera.copy()
    cameras[:, :3, 3] = np.arange(6)[:, None] * (1.0, 0, 0)
    cameras[3, 0, 3] = 50.0  # a jump
    capture = replace(capture, world_from_camera=cameras)
    one = root_of(imported(capture, tmp_path, scene, start_frame=101))
    solved = keys_of(one.camera)
    scene.frame_set(104)
    assert one.camera.location.x == pytest.approx(50)
    edit_camera(one, capture, switch_frames(CameraEdits(), [3], on=False), scene)
    assert one.camera.location.x == pytest.approx(3)
    assert keys_of(one.camera)["location", 0][:, 0].tolist() == [101, 102, 103, 105, 106]
    edits = switch_frames(CameraEdits.read(one.camera), [3], on=True)
    edit_camera(one, capture, edits, scene)
    assert same_keys(keys_of(one.camera), solved)


def test_a_camera_without_any_frame_is_refused_and_untouched(tmp_path, scene):
    capture = small(3)
    one = root_of(imported(capture, tmp_path, scene))
    solved = keys_of(one.camera)
    with pytest.raises(UserError, match="No frame would have a camera"):
        edit_camera(one, capture, CameraEdits(switched_off=frozenset(range(3))), scene)
    with pytest.raises(UserError, match="was not made from the capture"):
        edit_camera(one, replace(small(4), folder=one.folder), CameraEdits(), scene)
    assert same_keys(keys_of(one.camera), solved)


def test_a_zoom_that_is_smoothed_keeps_its_curve_and_one_that_is_not_there_gets_none(tmp_path, scene):
    capture = small(12)
    zoom = np.linspace(1, 1.5, 12)[:, None] * (1, 1, 0, 0) + (0, 0, 1, 1)
    zooming = replace(capture, intrinsics=capture.intrinsics * zoom)
    one = root_of(imported(zooming, tmp_path, scene))
    (curve,) = keyed(one.camera.data, "lens")
    curve.modifiers.new("NOISE")
    edit_camera(one, zooming, CameraEdits(Smoothing(lens=3)), scene)
    assert [len(c.modifiers) for c in keyed(one.camera.data, "lens")] == [1]
    assert not keyed(one.camera.data, "shift_x")


def test_an_update_keeps_smoothing_frames_that_are_off_and_the_sensor(tmp_path, scene):
    capture = shaken(12)
    one = root_of(imported(capture, tmp_path, scene))
    edit_camera(one, capture, CameraEdits(Smoothing(2, 2, 0), frozenset({2, 11})), scene)
    set_sensor(one.camera, 24.0, 16.0)
    edited = keys_of(one.camera)
    one.camera["kinora_scene_frames"] = list(range(1, 11))
    shorter = shaken(10)
    renew_camera(one, shorter, scene)
    assert CameraEdits.read(one.camera) == CameraEdits(Smoothing(2, 2, 0), frozenset({2}))
    found = keys_of(one.camera)["location", 0]
    assert found[:, 0].tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert len(edited["location", 0]) == 10
    assert one.camera.data.lens == pytest.approx(0.9 * 24, rel=1e-5)


def test_another_sensor_changes_no_pixel(tmp_path, scene):
    capture = small(4, (1080, 1920))
    zoom = np.array([[1.0], [1.1], [1.3], [1.2]]) * (1, 1, 0, 0) + (0, 0, 1, 1)
    shift = np.array([0, 0, 0.7, -0.4])
    capture = replace(capture, intrinsics=capture.intrinsics * zoom + shift)
    one = root_of(imported(capture, tmp_path, scene))
    before = one.camera.data.lens
    sensor = next(s for s in known_sensors() if s.identifier == "APS-C")
    set_sensor(one.camera, *sensor.across(portrait=True))
    assert one.camera.data.sensor_width == pytest.approx(15.6)
    assert one.camera.data.lens == pytest.approx(before * 15.6 / 36, rel=1e-5)
    assert measure(one.camera, one.root, capture).deviation_px < 0.01
    edit_camera(one, capture, CameraEdits(), scene)  # and stays so when the keys are made anew
    assert measure(one.camera, one.root, capture).deviation_px < 0.01


def test_a_sensor_that_blender_has_no_lens_for_is_refused(tmp_path, scene):
    one = root_of(imported(small(2), tmp_path, scene))
    one.camera.data.lens = 5
    with pytest.raises(UserError, match=r"lens would be 0\.63 mm"):
        set_sensor(one.camera, 4.54, 3.42)
    assert one.camera.data.sensor_width == 36


def test_blenders_own_sensors_are_known():
    sensors = {s.label: s for s in known_sensors()}
    assert (sensors["1/2.3 inch"].width_mm, sensors["1/2.3 inch"].height_mm) == (6.17, 4.55)
    assert sensors["Fullframe"].across(portrait=True) == (24, 36)
    assert len(sensors) >= 30
    assert all(s.width_mm > s.height_mm > 0 and not s.lens_mm for s in sensors.values())


def test_a_users_preset_is_read_and_never_run(tmp_path, monkeypatch):
    monkeypatch.setattr(bpy.utils, "preset_paths", lambda kind: [str(tmp_path)])
    (tmp_path / "Mine.py").write_text(
        "import bpy\ncam = bpy.context.camera\ncam.sensor_width = 20\ncam.sensor_height = 10.5\ncam.lens = 35.0\n"
        f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    )
    (tmp_path / "broken.py").write_text("sensor_width = (")
    (mine,) = known_sensors()
    assert (mine.label, mine.width_mm, mine.height_mm, mine.lens_mm) == ("Mine", 20, 10.5, 35)
    assert not (tmp_path / "ran").exists()


def flagged(frames=12):
    """Frames 3 and 4 have no camera, 6 is interpolated, 9 to 11 have low confidence."""
    capture = small(frames)
    cameras = capture.world_from_camera.copy()
    cameras[3:5] = np.nan
    reports = [FrameReport(True)] * frames
    reports[3:5] = [FrameReport(False)] * 2
    reports[6] = FrameReport(False, interpolated=True)
    reports[9:12] = [FrameReport(True, low_confidence=True)] * 3
    tracks = capture.tracks
    seen = ~np.isin(tracks.frame, (3, 4))
    tracks = replace(tracks, point=tracks.point[seen], frame=tracks.frame[seen], plate_xy=tracks.plate_xy[seen])
    return replace(capture, world_from_camera=cameras, frames=tuple(reports), tracks=tracks)


def markers(scene):
    return sorted((m.frame, m.name) for m in scene.timeline_markers)


EXPECTED = [(4, "No Camera (2 frames)"), (7, "Interpolated"), (10, "Low Confidence (3 frames)")]


def test_frames_that_the_solver_flagged_are_on_the_timeline(tmp_path, scene):
    one = root_of(imported(flagged(), tmp_path, scene))
    assert solver_flags(flagged()).tolist() == [0, 0, 0, 3, 3, 0, 2, 0, 0, 1, 1, 1]
    assert markers(scene) == EXPECTED
    assert np.flatnonzero(np.isnan(SolveQuality.read(one.camera).mean_px)).tolist() == [3, 4]


def test_markers_go_and_come_without_touching_the_artists_own(tmp_path, scene):
    scene.timeline_markers.new("Cut", frame=4)
    one = root_of(imported(flagged(), tmp_path, scene))
    quality = SolveQuality.read(one.camera)
    next(m for m in scene.timeline_markers if m.name == "Interpolated").name = "look here"
    assert remove_markers(scene, one.root) == 2
    assert markers(scene) == [(4, "Cut"), (7, "look here")]
    assert not has_markers(scene, one.root)
    assert show_markers(scene, one.root, quality) == 3
    assert show_markers(scene, one.root, quality) == 3  # not twice
    assert len(scene.timeline_markers) == 5
    bpy.data.objects.remove(one.root)
    other = bpy.data.objects.new("another import", None)
    remove_markers(scene, other)  # takes along what a deleted import left
    assert markers(scene) == [(4, "Cut"), (7, "look here")]


def test_everything_is_known_again_in_a_saved_file(tmp_path, scene):
    capture = flagged()
    one = root_of(imported(capture, tmp_path, scene))
    edits = CameraEdits(Smoothing(2, 1, 0), frozenset({1}))
    quality, name = edit_camera(one, capture, edits, scene), one.root.name
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "shot.blend"))
    one, scene = Imported(bpy.data.objects[name]), bpy.context.scene
    assert CameraEdits.read(one.camera) == edits
    found = SolveQuality.read(one.camera)
    for field, value in vars(quality).items():
        assert np.array_equal(getattr(found, field), value, equal_nan=True), field
    assert remove_markers(scene, one.root) == 3


def test_importing_again_as_an_update_keeps_the_edits(tmp_path, scene):
    capture = shaken(12)
    one = root_of(imported(capture, tmp_path, scene, start_frame=1))
    edits = CameraEdits(Smoothing(location=3.0), frozenset({5}))
    quality = edit_camera(one, capture, edits, scene)
    keys = keys_of(one.camera)
    import_capture(one.folder, scene, ImportOptions(existing="update"))
    assert len([ob for ob in scene.objects if ob.type == "CAMERA"]) == 1
    assert CameraEdits.read(one.camera) == edits
    assert same_keys(keys_of(one.camera), keys)
    assert SolveQuality.read(one.camera).error_px == pytest.approx(quality.error_px, rel=1e-4)


def test_a_scene_that_is_not_set_up_gets_no_markers(tmp_path, scene):
    imported(flagged(), tmp_path, scene, set_scene=False)
    assert not scene.timeline_markers


def test_many_bad_frames_do_not_make_many_markers():
    frames = np.arange(300) + 1
    assert flag_runs(frames, np.full(300, 3)) == [(1, "No Camera (300 frames)")]
    runs = flag_runs(frames, np.arange(300) % 2 * 3)
    assert 1 <= len(runs) <= MOST_MARKERS
    assert flag_runs(frames, np.zeros(300, int)) == []


def quality_of(mean_px, flags=None):
    mean_px = np.array(mean_px, float)
    flags = np.zeros(len(mean_px), int) if flags is None else np.array(flags)
    frames = np.arange(len(mean_px)) + 1
    return SolveQuality(frames, flags, mean_px, mean_px, float(np.nanmean(mean_px)), 0.0, 10, 0.0)


def test_the_graph_is_red_where_the_error_is_above_half_a_pixel():
    pixels = picture(quality_of([0.2, 0.8, np.nan, 0.2], [0, 0, 3, 0]), frozenset({3}), (40, 32))
    good, bad, none, off = (pixels[4, column] for column in (5, 15, 25, 35))
    assert bad[0] > bad[2]
    assert good[2] > good[0]
    assert none.tolist() == pixels[-1, 5].tolist()  # nothing is drawn where nothing was measured
    assert np.ptp(off[:3]) == 0
    assert off[0] > none[0]
    heights = [(pixels[2:, column] != pixels[-1, 5]).any(axis=1).sum() for column in (5, 15)]
    assert heights == [pytest.approx(0.2 * 30, abs=2), pytest.approx(0.8 * 30, abs=2)]
    assert pixels[0, 25].tolist() != pixels[0, 5].tolist()  # the strip tells of the missing camera


def test_the_graph_shows_where_the_artist_is():
    quality = quality_of([0.2, 0.8, 0.3, 0.2])
    plain = picture(quality, frozenset(), (40, 32))
    marked = with_current(plain, quality, 3)
    assert (marked[:, 25] == 240).any()
    assert np.flatnonzero((marked != plain).any(axis=(0, 2))).tolist() == [25, 26]
    assert with_current(plain, quality, 99) is plain


def test_a_few_bad_frames_do_not_press_the_others_flat():
    errors = np.full(100, 0.4)
    errors[50:53] = 40.0
    assert top_px(quality_of(errors), frozenset()) == 1.0
    assert top_px(quality_of(np.full(100, 8.0)), frozenset()) == 10.0
    errors[:60] = 40.0
    assert top_px(quality_of(errors), frozenset(range(60))) == 1.0


@pytest.mark.parametrize("frames", [1, 2, 300, 3000])
def test_a_graph_of_any_length_is_whole(frames):
    pixels = picture(quality_of(np.full(frames, 0.4)), frozenset(), (384, 96))
    assert (pixels[8] == pixels[8, 0]).all()


def test_tracks_behind_the_camera_count_as_wrong(tmp_path, scene):
    capture = small(2)
    one = root_of(imported(capture, tmp_path, scene))
    one.camera.rotation_quaternion = (0, 0, 0, 1)
    behind = capture.tracks.points_world - 2 * (capture.tracks.points_world - capture.world_from_camera[0, :3, 3])
    wrong = replace(capture, tracks=replace(capture.tracks, points_world=behind))
    assert measure(one.camera, one.root, wrong).error_px > 50
    assert scene_framing(scene)[:2] == (96, 64)
    assert project(behind[:1], capture.plate_intrinsics[0], capture.world_from_camera[0])[1][0] < 0
