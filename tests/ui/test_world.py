"""The World operators from a script: by points, by what is selected, by numbers; and Undo brings the root back."""

from types import SimpleNamespace

import bmesh
import bpy
import numpy as np
import pytest

from blender_addon.scene.imported import imported_in
from blender_addon.ui.world import KINORA_PT_world

from .test_panels import Recorder, in_sidebar

FLOOR = ((0.0, 0.0, 1.0), (1.0, 0.0, 1.5), (0.0, 1.0, 1.0))


@pytest.fixture
def root(scene, capture_folder):
    bpy.ops.kinora.import_capture(directory=str(capture_folder))
    return imported_in(scene)[0].root


def matrix(root):
    bpy.context.view_layer.update()
    return np.array(root.matrix_world)


def empties(places):
    made = []
    bpy.ops.object.select_all(action="DESELECT")
    for place in places:
        ob = bpy.data.objects.new("Mark", None)
        bpy.context.scene.collection.objects.link(ob)
        ob.location = place
        ob.select_set(True)
        made.append(ob)
    bpy.context.view_layer.objects.active = made[-1]
    bpy.context.view_layer.update()
    return made


def test_three_given_points_are_the_floor_and_so_are_three_empties_and_vertices(root):
    before = matrix(root)
    assert bpy.ops.kinora.set_floor(points=FLOOR) == {"FINISHED"}
    by_points = matrix(root)
    assert not np.allclose(by_points, before)
    change = by_points @ np.linalg.inv(before)
    assert [(change @ (*p, 1))[2] for p in FLOOR] == pytest.approx([0, 0, 0], abs=1e-5)

    bpy.ops.kinora.reset_world()
    assert np.allclose(matrix(root), before, atol=1e-6)
    empties(FLOOR)
    assert bpy.ops.kinora.set_floor() == {"FINISHED"}
    assert np.allclose(matrix(root), by_points, atol=1e-5)

    bpy.ops.kinora.reset_world()
    mesh = bpy.data.meshes.new("Floor")
    mesh.from_pydata([*FLOOR, (5, 5, 5)], [], [])
    ob = bpy.data.objects.new("Floor", mesh)
    bpy.context.scene.collection.objects.link(ob)
    bpy.context.view_layer.objects.active = ob
    bpy.ops.object.mode_set(mode="EDIT")
    edit = bmesh.from_edit_mesh(mesh)
    for vertex in edit.verts:
        vertex.select = vertex.co.x < 4
    assert bpy.ops.kinora.set_floor() == {"FINISHED"}
    assert bpy.context.mode == "OBJECT"
    assert np.allclose(matrix(root), by_points, atol=1e-5)


def test_undo_brings_the_root_back(root):
    bpy.ops.ed.undo_push(message="Before")
    name, before = root.name, matrix(root)
    bpy.ops.kinora.set_scale("EXEC_DEFAULT", True, points=((0, 0, 0), (1, 0, 0)), length=4)
    root = bpy.data.objects[name]
    assert np.allclose(matrix(root)[:3, :3], 4 * before[:3, :3], atol=1e-5)
    bpy.ops.ed.undo()
    assert np.allclose(matrix(bpy.data.objects[name]), before)


def test_origin_by_point_cursor_and_active_object(root, scene):
    before = matrix(root)
    scene.cursor.location = (1, 2, 3)
    bpy.ops.kinora.set_origin()
    assert matrix(root)[:3, 3] == pytest.approx(before[:3, 3] - (1, 2, 3), abs=1e-6)
    bpy.ops.kinora.set_origin(point=(-1, -2, -3), keep_height=True)
    assert matrix(root)[:3, 3] == pytest.approx(before[:3, 3] - (0, 0, 3), abs=1e-6)
    empties([(0, 0, -3)])
    bpy.ops.kinora.set_origin(source="ACTIVE")
    assert matrix(root)[:3, 3] == pytest.approx(before[:3, 3], abs=1e-6)


def test_axis_scale_and_camera_height_by_number(root, scene):
    marks = empties([(0, 0, 0), (0, 0, 2)])
    for mark in marks:
        mark.parent = root
    bpy.context.view_layer.update()
    bpy.ops.kinora.set_axis(axis="X")
    bpy.ops.kinora.set_scale(length=5)
    a, b = (np.array(m.matrix_world.translation) for m in marks)
    assert np.linalg.norm(b - a) == pytest.approx(5, abs=1e-4)
    assert (b - a)[1] == pytest.approx(0, abs=1e-4)
    assert (b - a)[0] > 0
    bpy.ops.kinora.set_camera_height(height=2.5, method="MOVE")
    assert scene.camera.matrix_world.translation.z == pytest.approx(2.5, abs=1e-4)
    size = matrix(root)[:3, 0]
    bpy.ops.kinora.set_camera_height(height=5)
    assert scene.camera.matrix_world.translation.z == pytest.approx(5, abs=1e-4)
    assert matrix(root)[:3, 0] == pytest.approx(2 * size, abs=1e-4)


def test_what_is_missing_is_said(root):
    bpy.ops.object.select_all(action="DESELECT")
    with pytest.raises(RuntimeError, match="No points are selected for the floor"):
        bpy.ops.kinora.set_floor()
    with pytest.raises(RuntimeError, match="No points are selected for a length"):
        bpy.ops.kinora.set_scale(length=2)
    empties([(0, 0, 0), (1, 0, 0)])
    with pytest.raises(RuntimeError, match="2 points are selected for the floor"):
        bpy.ops.kinora.set_floor()


def test_one_object_and_the_cursor_make_a_length(root, scene):
    before = matrix(root)
    scene.cursor.location = (0, 0, 2)
    empties([(0, 3, 2)])
    bpy.ops.kinora.set_scale(length=6)
    assert matrix(root)[:3, :3] == pytest.approx(2 * before[:3, :3], abs=1e-5)


def test_auto_orient_says_when_the_capture_is_gone(root):
    root["kinora_folder"] = "/nowhere"
    with pytest.raises(RuntimeError, match="Relink Capture"):
        bpy.ops.kinora.auto_orient()


def test_the_panel_offers_picking_and_what_is_selected(root):
    seen = []
    with in_sidebar():
        KINORA_PT_world.draw_import(
            SimpleNamespace(layout=Recorder(seen)), bpy.context, imported_in(bpy.context.scene)[0]
        )
    for text in ("[Auto Orient]", "[Set Floor]", "[Set Origin]", "[Set Axis]", "[Set Scale]", "[Set Camera Height]"):
        assert text in seen


def test_without_an_import_nothing_can_be_pressed(scene):
    with pytest.raises(RuntimeError, match="Import a capture first"):
        bpy.ops.kinora.set_floor(points=FLOOR)
