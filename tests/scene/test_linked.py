"""Linked points: what the files hold, what Blender's own nodes make of them, and where they look for them."""

from dataclasses import replace

import bpy
import numpy as np
import pytest

from blender_addon.scene.imported import LINKED, imported_in
from blender_addon.scene.linked import FILE_NAME, write_frames
from blender_addon.scene.nodes import find_modifier, set_input
from blender_addon.scene.points import measured, pixel_attributes, unproject
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import convert_storage
from blender_addon.scene.stored import EMBEDDED, storages
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported, shown, small, with_frames_skipped


def with_motion(capture):
    """The same capture, whose mover has a number and a velocity."""
    velocity = np.where(capture.dynamic[..., None], (1.5, 0.0, -0.25), 0).astype(np.float16)
    return replace(capture, objects=capture.dynamic * np.uint8(2), velocity=velocity)


def linked(capture, folder, scene):
    imported(capture, folder, scene, storage="frames")
    one = imported_in(scene)[0]
    finish(convert_storage(one, EMBEDDED, LINKED))
    return one.objects(LINKED)[0]


def cloud(ob):
    """The evaluated point cloud of an object; keep what is returned first as long as the second is used."""
    geometry = ob.evaluated_get(bpy.context.evaluated_depsgraph_get()).evaluated_geometry()
    return geometry, geometry.pointcloud


def read_ply(path) -> np.ndarray:
    """The vertices of a binary PLY file, by a reader that only knows the format."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    kinds = {"float": "<f4", "uchar": "u1"}
    lines = [line.split() for line in header.decode().splitlines()]
    fields = [(name, kinds[kind]) for word, kind, name in (line for line in lines if line[0] == "property")]
    return np.frombuffer(body, fields)


def test_the_files_hold_exactly_what_the_capture_holds(tmp_path):
    capture = with_motion(small())
    write_frames(replace(capture, folder=tmp_path), tmp_path / "files")
    for frame in range(4):
        vertices = read_ply(tmp_path / "files" / FILE_NAME.format(frame))
        keep = measured(capture, frame)
        truth = pixel_attributes(capture, frame, keep)
        assert np.array_equal(np.stack([vertices[a] for a in "xyz"], 1), unproject(capture, frame, keep))
        assert np.array_equal(np.stack([vertices[c] for c in ("red", "green", "blue")], 1), truth["Color"])
        assert np.array_equal(vertices["confidence"], truth["confidence"].astype(np.float32))
        assert np.array_equal(vertices["dynamic"], truth["dynamic"])
        assert np.array_equal(vertices["object"], truth["object"])
        assert np.array_equal(np.stack([vertices[f"velocity_{a}"] for a in "xyz"], 1), truth["velocity"])


def test_blender_reads_them_as_if_they_were_embedded(tmp_path, scene):
    """All 256 values of a colour, and the types that filters, materials and motion blur ask for."""
    capture = with_motion(small())
    capture.rgb[1].reshape(-1, 3)[:256] = np.arange(256)[:, None]
    ob = linked(capture, tmp_path, scene)
    scene.frame_set(2)
    truth = pixel_attributes(capture, 1, measured(capture, 1))
    seen = shown(ob)
    assert np.array_equal(seen["Color"][:, :3], truth["Color"])
    assert np.array_equal(seen["confidence"], truth["confidence"].astype(np.float32))
    _, points = cloud(ob)
    kinds = {a.name: a.data_type for a in points.attributes}
    assert kinds | {"Color": "FLOAT_COLOR", "dynamic": "BOOLEAN", "object": "INT", "velocity": "FLOAT_VECTOR"} == kinds
    assert not {"Col", "velocity_x"} & kinds.keys()
    velocity = np.empty((len(truth["Color"]), 3), np.float32)
    points.attributes["velocity"].data.foreach_get("vector", velocity.ravel())
    assert np.array_equal(velocity, truth["velocity"])
    set_input(find_modifier(ob), "Object", 2)
    bpy.context.view_layer.update()
    assert len(shown(ob)["position"]) == (capture.objects[1] == 2).sum() > 0


def test_a_capture_without_motion_gets_no_attributes_of_it(tmp_path, scene):
    ob = linked(small(), tmp_path, scene)
    scene.frame_set(2)
    _, points = cloud(ob)
    assert {a.name for a in points.attributes} == {"position", "radius", "Color", "confidence", "dynamic"}


def test_skipped_frames_hold_the_one_before_and_loops_return(tmp_path, scene):
    capture = with_frames_skipped(small(), (0, 3, 4, 9))
    capture.confidence[:] = np.arange(4)[:, None, None]
    ob = linked(capture, tmp_path, scene)
    frames = []
    set_input(find_modifier(ob), "Outside", "Loop")
    for frame in range(1, 15):
        scene.frame_set(frame)
        frames.append(int(shown(ob)["confidence"][0]))
    length = 12  # the last frame stays as long as the average one
    assert frames[:length] == [0, 0, 0, 1, 2, 2, 2, 2, 2, 3, 3, 3]
    assert frames[length:] == [0, 0]


@pytest.mark.parametrize("name", ["shot {1}", "umlaut ä"])
def test_the_project_moves_with_its_files(tmp_path, scene, name):
    project = tmp_path / name
    project.mkdir()
    bpy.ops.wm.save_as_mainfile(filepath=str(project / "shot.blend"))
    ob = linked(small(), tmp_path, bpy.context.scene)
    assert storages(imported_in(bpy.context.scene)[0])[0].files == project / "capture_linked"
    bpy.ops.wm.save_mainfile()
    moved = project.rename(tmp_path / f"{name} moved")
    bpy.ops.wm.open_mainfile(filepath=str(moved / "shot.blend"))
    ob = imported_in(bpy.context.scene)[0].objects(LINKED)[0]
    assert len(shown(ob)["position"]) == 48 * 32


def test_a_disk_that_refuses_leaves_nothing(tmp_path, monkeypatch):
    capture = replace(small(), folder=tmp_path)
    calls = []

    def full(path, data):
        calls.append(path)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_frames(capture, tmp_path / "files")
    assert calls
    assert list(tmp_path.iterdir()) == []
