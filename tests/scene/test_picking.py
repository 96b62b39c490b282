"""What is picked is the point of the capture that is seen under the mouse, in front of what it hides."""

import bpy
import numpy as np
import pytest

from blender_addon.scene.camera import plate_framing, projection_matrix
from blender_addon.scene.conventions import blender_lens
from blender_addon.scene.imported import imported_in
from blender_addon.scene.picking import pick, shown_points
from tests.scene.captures import imported, small

SIZE = (96, 64)  # pixels of the view, as many as of the plate


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_a_pixel_of_the_camera_view_gives_the_point_that_was_measured_there(tmp_path, scene, storage):
    capture = small(3, SIZE)
    imported(capture, tmp_path, scene, storage=storage, up_axis="none")
    (found,) = imported_in(scene)
    found.root.scale = (3, 3, 3)
    scene.frame_set(2)
    points = shown_points(found, bpy.context.evaluated_depsgraph_get())
    lens = blender_lens(capture.plate_intrinsics, SIZE, 36.0)
    view = projection_matrix(found.camera, scene, plate_framing(capture, lens))
    row, column = 20, 30  # of the 48 x 32 grid: the middle of plate pixels 61, 41
    seen = pick(points, view, SIZE, (61, 64 - 41), 2)
    centre = capture.world_from_camera[1, :3, 3]
    x, z, minus_y = (seen / 3) - (centre[0], centre[2], -centre[1])
    in_camera = capture.world_from_camera[1, :3, :3].T @ (x, -minus_y, z)
    assert in_camera[2] == pytest.approx(capture.depth[1, row, column], rel=0.02)


def test_of_two_surfaces_the_nearer_is_picked_and_of_its_points_the_closest():
    view = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1.002, -0.2002], [0, 0, 1, 0]])  # looks along z, from 0.1 on
    near = np.array([(0.02, 0, 1), (0.01, 0, 1.01), (0.04, 0, 1)])
    points = np.concatenate([[(0, 0, 5), (0, 0, -1)], near])
    assert pick(points, view, (200, 200), (100, 100), 10) == pytest.approx((0.01, 0, 1.01))
    assert pick(points, view, (200, 200), (150, 100), 10) is None


def test_a_hidden_object_is_not_picked(tmp_path, scene):
    imported(small(3), tmp_path, scene, storage="frames")
    (found,) = imported_in(scene)
    assert len(shown_points(found, bpy.context.evaluated_depsgraph_get())) == 48 * 32
    found.objects("player")[0].hide_viewport = True
    assert len(shown_points(found, bpy.context.evaluated_depsgraph_get())) == 0
