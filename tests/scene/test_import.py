"""An import is whole or leaves nothing, touches nothing of the artist's, and says what it found."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene import ImportOptions, ImportReport, import_capture
from blender_addon.wire.capture import EngineStamp, ShotReport, write_capture
from blender_addon.wire.errors import Cancelled, UserError
from tests.scene.captures import camera_of, imported, player_of, shown, small


def datablocks():
    """Everything in the file, by its identity."""
    return {d.session_uid: d.name_full for d in bpy.data.user_map()}


def scene_settings(scene):
    render = scene.render
    return (
        (scene.frame_start, scene.frame_end, scene.frame_current, scene.camera),
        (render.fps, render.fps_base, render.resolution_x, render.resolution_y),
        (render.pixel_aspect_x, render.pixel_aspect_y, getattr(scene, "compositing_node_group", None)),
    )


STAGES = ("Merging what stands still", "Points", "Pictures", "Checking the camera", "Linking")


@pytest.mark.parametrize("stage", STAGES)
def test_cancelling_at_any_stage_leaves_nothing_behind(stage, tmp_path, scene):
    path = write_capture(small(3), tmp_path / "capture")
    reached = []

    def progress(name, fraction):
        reached.append(name)
        if name == stage:
            raise Cancelled("Cancelled")

    before, settings = datablocks(), scene_settings(scene)
    with pytest.raises(Cancelled):
        import_capture(path, scene, ImportOptions(storage="split"), progress)
    assert reached[-1] == stage
    assert datablocks() == before
    assert scene_settings(scene) == settings


def test_progress_rises_from_zero_to_one(tmp_path, scene):
    path = write_capture(small(4), tmp_path / "capture")
    for storage in ("frames", "split"):
        fractions = []
        import_capture(path, scene, ImportOptions(storage=storage), lambda stage, f, got=fractions: got.append(f))
        assert fractions == sorted(fractions)
        assert fractions[0] == 0
        assert 0.9 < fractions[-1] <= 1


def test_what_is_no_capture_is_refused_in_a_sentence(tmp_path, scene):
    before = datablocks()
    with pytest.raises(UserError, match="is not a capture"):
        import_capture(tmp_path, scene)
    path = write_capture(small(2), tmp_path / "capture")
    (path / "depth.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        import_capture(path, scene)
    assert datablocks() == before


def test_a_capture_without_any_camera_is_refused(tmp_path, scene):
    capture = small(2)
    capture = replace(capture, world_from_camera=np.full((2, 4, 4), np.nan))
    with pytest.raises(UserError, match="no camera"):
        imported(capture, tmp_path, scene)


def test_a_second_import_leaves_the_first_alone(tmp_path, scene):
    path = write_capture(small(3), tmp_path / "capture")
    first = import_capture(path, scene)
    player = player_of(first)
    player.parent.location.x += 2
    scene.frame_set(2)
    before, names = shown(player)["position"], {ob.name for ob in first.objects}
    second = import_capture(path, scene, ImportOptions(start_frame=50))
    scene.frame_set(2)
    assert np.array_equal(shown(player)["position"], before)
    assert {ob.name for ob in first.objects} == names
    assert not names & {ob.name for ob in second.objects}
    scene.frame_set(52)
    assert len(shown(player_of(second))["position"]) == small(3).dynamic[2].sum()


def test_only_the_collection_is_added_when_the_scene_is_not_to_be_set_up(tmp_path, scene):
    settings = scene_settings(scene)
    collection = imported(small(2), tmp_path, scene, set_scene=False)
    assert scene_settings(scene) == settings
    assert list(scene.collection.children) == [collection]


def test_a_render_size_of_another_shape_is_noticed(tmp_path, scene):
    scene.render.resolution_x, scene.render.resolution_y = 1000, 1000
    report = ImportReport.read(imported(small(2, (1920, 1080)), tmp_path, scene, set_scene=False))
    assert report.max_camera_error_px > 1
    assert any("off the plate" in note for note in report.notes)


def test_everything_hangs_on_one_root(tmp_path, scene):
    collection = imported(small(2), tmp_path, scene, storage="split")
    roots = [ob for ob in collection.objects if ob.parent is None]
    assert [ob.type for ob in roots] == ["EMPTY"]
    assert all(ob.parent == roots[0] for ob in collection.objects if ob not in roots)
    assert camera_of(collection).parent == roots[0]


def test_the_clouds_of_the_frames_are_in_no_view_layer(tmp_path, scene):
    collection = imported(small(3), tmp_path, scene)
    assert {ob.type for ob in collection.all_objects} == {"EMPTY", "CAMERA", "POINTCLOUD"}
    assert len(scene.objects) == 3
    assert len(bpy.data.pointclouds) == 3 + 1  # the frames' and the player's own


def test_the_report_is_kept_on_the_collection_and_its_root(tmp_path, scene):
    capture = replace(
        small(2),
        engine=EngineStamp("monst3r", "2.1", "CC BY-NC-SA 4.0", False),
        metric=False,
        shot=ShotReport("rotation", None, "prior", ("The camera only turns: there is no depth to measure",)),
    )
    collection = imported(capture, tmp_path, scene)
    root = camera_of(collection).parent
    report = ImportReport.read(collection)
    assert report == ImportReport.read(root)
    assert (report.engine, report.engine_version, report.metric, report.shot) == ("monst3r", "2.1", False, "rotation")
    assert report.folder == str(tmp_path / "capture")
    assert "The camera only turns: there is no depth to measure" in report.notes
    assert any("not for commercial use" in note for note in report.notes)
    assert root["kinora_max_camera_error_px"] < 0.01


def test_the_name_is_the_clips_unless_given(tmp_path, scene):
    assert imported(small(2), tmp_path, scene).name == "room"
    (tmp_path / "again").mkdir()
    assert imported(small(2), tmp_path / "again", scene, collection_name="Shot 12").name == "Shot 12"


def test_the_artists_scene_is_not_evaluated_for_an_import(tmp_path, scene):
    seen = []

    def handler(changed, depsgraph):
        seen.append(changed.name)

    bpy.app.handlers.frame_change_post.append(handler)
    try:
        imported(small(2), tmp_path, scene)
    finally:
        bpy.app.handlers.frame_change_post.remove(handler)
    assert scene.name not in seen
