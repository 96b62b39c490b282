"""The operators on an import as scripts and artists call them: update, relink, remove, relative paths, many at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import bpy
import pytest

from backend.wire import write_capture
from blender_addon.scene.imported import PLAYER, imported_in
from blender_addon.scene.nodes import get_input, set_input
from blender_addon.scene.report import ImportReport
from tests.scene.captures import small
from tests.scene.test_update import census, of_another_engine

from .conftest import pump_until


@pytest.fixture
def capture(tmp_path, scene) -> Path:
    """A capture in a folder of its own, imported."""
    path = write_capture(small(3), tmp_path / "kinora" / "room")
    assert bpy.ops.kinora.import_capture(directory=str(path), point_size=3) == {"FINISHED"}
    return path


def the_import(scene):
    (found,) = imported_in(scene)
    return found


def test_update_reads_the_folder_again_with_the_options_of_then(scene, capture):
    root = the_import(scene).root
    root.location.x = 5
    write_capture(of_another_engine(5), capture, replace=True)
    assert bpy.ops.kinora.update_capture() == {"FINISHED"}
    found = the_import(scene)
    assert found.root == root
    assert root.location.x == 5
    assert scene.frame_end == 5
    assert ImportReport.read(root).engine == "monst3r"
    assert get_input(found.objects(PLAYER)[0].modifiers[0], "Point Size") == 3


def test_update_takes_another_folder(scene, capture, tmp_path):
    other = write_capture(of_another_engine(5), tmp_path / "other")
    assert bpy.ops.kinora.update_capture(directory=str(other)) == {"FINISHED"}
    assert the_import(scene).folder == other


def test_update_means_the_import_of_the_active_object(scene, capture):
    bpy.ops.kinora.import_capture(directory=str(capture))
    one, two = imported_in(scene)
    bpy.context.view_layer.objects.active = None
    with pytest.raises(RuntimeError, match="Select an object of the capture that is meant"):
        bpy.ops.kinora.update_capture()
    bpy.context.view_layer.objects.active = two.camera
    (player,) = one.objects(PLAYER)
    before = player.data
    assert bpy.ops.kinora.update_capture() == {"FINISHED"}
    assert player.data == before
    assert len(imported_in(scene)) == 2


def test_importing_again_updates_only_where_it_is_asked_for(scene, capture):
    bpy.ops.kinora.import_capture(directory=str(capture), existing="update")
    assert len(imported_in(scene)) == 1
    bpy.ops.kinora.import_capture(directory=str(capture))
    assert len(imported_in(scene)) == 2


def test_the_panel_asks_for_an_update(scene):
    assert scene.kinora.import_options.existing == "update"
    assert bpy.ops.kinora.import_capture.get_rna_type().properties["existing"].default == "new"


def test_an_import_whose_collection_was_deleted_is_updated_where_the_artist_keeps_it(scene, capture):
    mine = bpy.data.collections.new("Mine")
    scene.collection.children.link(mine)
    for ob in list(scene.objects):
        mine.objects.link(ob)
    bpy.data.collections.remove(the_import(scene).collection)
    for update in (
        bpy.ops.kinora.update_capture,
        lambda: bpy.ops.kinora.import_capture(directory=str(capture), existing="update"),
    ):
        assert update() == {"FINISHED"}
        assert the_import(scene).collection == mine
        assert not [key for key in mine.keys() if key.startswith("kinora_")]  # noqa: SIM118
    bpy.ops.kinora.remove_import()
    assert "Mine" in bpy.data.collections


def test_one_undo_takes_an_update_back(scene, capture):
    (player,) = the_import(scene).objects(PLAYER)
    set_input(player.modifiers[0], "Density", 0.5)
    write_capture(of_another_engine(5), capture, replace=True)
    bpy.ops.ed.undo_push(message="Before")
    bpy.ops.kinora.update_capture()
    bpy.ops.ed.undo_push(message="Update")
    assert bpy.context.scene.frame_end == 5
    bpy.ops.ed.undo()
    scene = bpy.context.scene
    assert scene.frame_end == 3
    found = the_import(scene)
    (player,) = found.objects(PLAYER)
    assert ImportReport.read(found.root).engine != "monst3r"
    assert get_input(player.modifiers[0], "Density") == 0.5
    assert len(get_input(player.modifiers[0], "Frames").objects) == 3
    bpy.ops.ed.redo()
    assert ImportReport.read(the_import(bpy.context.scene).root).engine == "monst3r"


def test_a_capture_that_is_gone_is_told_and_found_again(scene, capture, tmp_path):
    moved = tmp_path / "moved"
    shutil.move(capture, moved)
    with pytest.raises(RuntimeError, match=r"is not at .*use Relink Capture"):
        bpy.ops.kinora.update_capture()
    with pytest.raises(RuntimeError, match="choose the folder it was moved to"):
        bpy.ops.kinora.relink_capture()
    assert bpy.ops.kinora.relink_capture(directory=str(moved)) == {"FINISHED"}
    assert the_import(scene).capture().folder == moved
    assert bpy.ops.kinora.update_capture() == {"FINISHED"}


def test_another_capture_is_no_relink(scene, capture, tmp_path):
    other = write_capture(of_another_engine(3), tmp_path / "other")
    with pytest.raises(RuntimeError, match="use Update to take it over"):
        bpy.ops.kinora.relink_capture(directory=str(other))


def test_remove_leaves_no_trace(scene, tmp_path):
    path = write_capture(small(3), tmp_path / "room")
    before = census()
    bpy.ops.kinora.import_capture(directory=str(path), set_scene=False)
    assert bpy.ops.kinora.remove_import() == {"FINISHED"}
    assert census() == before
    with pytest.raises(RuntimeError, match="Import a capture first"):
        bpy.ops.kinora.remove_import()


def test_relative_paths_need_a_saved_file(scene, capture, tmp_path):
    with pytest.raises(RuntimeError, match="Save the file first"):
        bpy.ops.kinora.use_relative_paths()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "shot.blend"))
    assert bpy.ops.kinora.use_relative_paths() == {"FINISHED"}
    assert the_import(bpy.context.scene).root["kinora_folder"] == "//kinora/room"


def test_a_folder_of_captures(scene, tmp_path):
    for name in "ab":
        write_capture(small(2, source=f"/footage/{name}.mp4"), tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert bpy.ops.kinora.import_captures(directory=str(tmp_path), side_by_side=True) == {"FINISHED"}
    one, two = imported_in(scene)
    assert (one.name, two.name) == ("a", "b")
    assert two.root.location.x > one.root.location.x + 1
    with pytest.raises(RuntimeError, match="No folder was chosen"):
        bpy.ops.kinora.import_captures()
    with pytest.raises(RuntimeError, match="There is no capture"):
        bpy.ops.kinora.import_captures(directory=str(tmp_path / "notes"))


def test_a_second_job_of_the_clip_updates_the_import(server, session, scene, tmp_path):
    """Reconstructed again, a clip comes into the import that the artist has worked on."""
    clip = tmp_path / "street.mp4"
    for i in range(2):
        clip.write_text("work" + "\n" * (i + 1), encoding="utf-8")  # another content, another job
        scene.kinora.clip_path = str(clip)
        assert bpy.ops.kinora.reconstruct() == {"FINISHED"}
        job = session.jobs[-1]
        pump_until(session, lambda job=job: not job.active)
        assert (job.state, job.message) == ("DONE", "")
        the_import(scene).root.location.y = 4
    found = the_import(scene)
    assert found.root.location.y == 4
    assert found.folder == job.folder
    assert len([c for c in scene.collection.children if "kinora_role" in c]) == 1
