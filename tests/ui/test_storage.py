"""The operators and the panel of storages, as a script and an artist use them."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.imported import LINKED, PROJECTED, imported_in
from blender_addon.scene.nodes import find_modifier, get_input
from blender_addon.scene.stored import problems, storages
from tests.scene.captures import imported, shown, small


@pytest.fixture
def one(scene, capture_folder):
    bpy.ops.kinora.import_capture(directory=str(capture_folder), storage="frames")
    return imported_in(scene)[0]


def kinds(scene) -> list[str]:
    return [stored.kind for stored in storages(imported_in(scene)[0])]


def test_scripts_add_convert_and_remove_with_undo(scene, one, tmp_path):
    bpy.ops.ed.undo_push(message="Imported")
    bpy.ops.kinora.add_storage(kind="linked", directory=str(tmp_path))
    assert kinds(scene) == ["embedded", "linked"]
    bpy.ops.kinora.remove_storage(kind="embedded")
    assert kinds(scene) == ["linked"]
    bpy.ops.kinora.convert_storage(source="linked", kind="projected", directory=str(tmp_path))
    assert kinds(scene) == ["projected"]
    bpy.ops.kinora.projected_use(use="holdout")
    assert imported_in(scene)[0].objects(PROJECTED)[0].is_holdout
    bpy.ops.ed.undo_push(message="Done")
    bpy.ops.ed.undo()
    assert kinds(bpy.context.scene) == ["embedded"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["room_linked", "room_projected"]


def test_what_cannot_be_done_is_a_sentence(scene, one):
    with pytest.raises(RuntimeError, match="Embedded points already"):
        bpy.ops.kinora.add_storage(kind="embedded")
    with pytest.raises(RuntimeError, match="Add Depth-Projected points first"):
        bpy.ops.kinora.projected_use(use="mesh")
    one.root["kinora_folder"] = "/nowhere"
    with pytest.raises(RuntimeError, match="Relink Capture"):
        bpy.ops.kinora.convert_storage(source="embedded", kind="linked")
    assert kinds(scene) == ["embedded"]


def test_a_saved_file_finds_its_folder_wherever_it_was_saved(scene, one, tmp_path):
    bpy.ops.kinora.convert_storage(kind="linked", directory=str(tmp_path / "files"))
    ob = one.objects(LINKED)[0]
    folder = str(tmp_path / "files" / "room_linked")
    assert get_input(find_modifier(ob), "Folder") == folder
    for name, expected in (("a.blend", "//files/room_linked"), ("deep/er/b.blend", "//../../files/room_linked")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / name))
        assert get_input(find_modifier(ob), "Folder") == expected
    (tmp_path / "copies").mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "copies" / "c.blend"), copy=True)
    assert get_input(find_modifier(ob), "Folder") == "//../../files/room_linked"
    points = len(shown(ob)["position"])
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "copies" / "c.blend"))
    one = imported_in(bpy.context.scene)[0]
    assert get_input(find_modifier(one.objects(LINKED)[0]), "Folder") == "//../files/room_linked"
    assert len(shown(one.objects(LINKED)[0])["position"]) == points > 0


def test_missing_files_are_told(scene, one, tmp_path):
    bpy.ops.kinora.convert_storage(kind="linked", directory=str(tmp_path))
    scene.frame_set(2)
    ob = one.objects(LINKED)[0]
    assert len(shown(ob)["position"])
    assert problems(storages(one)[0]) == []
    (tmp_path / "room_linked" / "frame_0002.ply").unlink()
    scene.frame_set(3)
    assert len(shown(ob)["position"]) == 0
    assert "frame_0002" in problems(storages(one)[0])[0]
    (tmp_path / "room_linked").rename(tmp_path / "elsewhere")
    assert str(tmp_path / "room_linked") in problems(storages(one)[0])[0]


def test_frames_without_points_are_no_problem(scene, tmp_path):
    capture = small()
    capture.depth[1] = 0
    poses = capture.world_from_camera.copy()
    poses[2] = np.nan
    imported(replace(capture, world_from_camera=poses), tmp_path, scene, storage="frames")
    bpy.ops.kinora.convert_storage(kind="linked")
    one = imported_in(scene)[0]
    for frame, points in ((1, 1536), (2, 0), (3, 0), (4, 1536)):
        scene.frame_set(frame)
        assert len(shown(one.objects(LINKED)[0])["position"]) == points
        assert problems(storages(one)[0]) == []


def test_the_plate_is_projected_on_what_is_selected(scene, one):
    assert not bpy.ops.kinora.project_plate.poll()
    bpy.ops.mesh.primitive_cube_add()
    cube = bpy.context.object
    bpy.ops.kinora.project_plate(hold=False)
    assert cube.active_material.name == "room Plate"
    bpy.ops.kinora.project_plate()
    assert cube.active_material.name == "room Plate 1"
    assert [m.name for m in cube.data.materials] == ["room Plate 1"]
