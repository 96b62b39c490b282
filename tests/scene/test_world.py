"""Floor, origin, axes and scale move the root and nothing else: the plate is matched after every one of them."""

import bpy
import numpy as np
import pytest
from mathutils import Euler, Matrix

from blender_addon.scene import world
from blender_addon.scene.camera import camera_agreement, plate_framing
from blender_addon.scene.conventions import blender_lens
from blender_addon.scene.imported import imported_in
from blender_addon.wire.errors import UserError
from tests.scene.captures import imported
from tests.worlds import as_capture, room

#: Points of the room in the capture's world, whose y points down: three of the floor, and two 1.5 units apart on it.
FLOOR = np.array([(-1.0, 1.2, 1.0), (1.5, 1.2, 0.5), (0.2, 1.2, 3.0)])
NEAR, FAR = np.array([0.3, 1.2, 2.0]), np.array([0.3, 1.2, 3.5])


@pytest.fixture(scope="module")
def capture():
    return as_capture(room(3, 96, 64))


@pytest.fixture
def shot(tmp_path, scene, capture):
    """An import as an artist may have it: not levelled, moved, turned and scaled by hand, with a prop in it."""
    imported(capture, tmp_path, scene, up_axis="none")
    (found,) = imported_in(scene)
    found.root.matrix_basis = Matrix.LocRotScale((3, -2, 1), Euler((-1.3, -0.2, 0.5)), (2.5,) * 3)
    return found


def layer():
    return bpy.context.view_layer


def at(shot, points):
    """Where (..., 3) points of the capture are in the world now."""
    matrix = world.world_matrix(shot.root, layer())
    return np.asarray(points) @ matrix[:3, :3].T + matrix[:3, 3]


def plate_error(shot, capture):
    lens = blender_lens(capture.plate_intrinsics, capture.clip.plate_size, 36.0)
    return camera_agreement(shot.camera, plate_framing(capture, lens), capture, np.arange(1, 4))


def place_of(ob):
    return [tuple(getattr(ob, name)) for name in ("location", "rotation_euler", "scale")]


MOVES = {
    "floor": lambda shot: world.set_floor(shot, at(shot, FLOOR), layer()),
    "origin": lambda shot: world.set_origin(shot, at(shot, NEAR), layer(), keep_height=False),
    "along": lambda shot: world.set_origin(shot, at(shot, FAR), layer(), keep_height=True),
    "axis": lambda shot: world.set_axis(shot, *at(shot, (NEAR, FAR)), "X", layer()),
    "scale": lambda shot: world.set_scale(shot, *at(shot, (NEAR, FAR)), 6.0, layer()),
    "height": lambda shot: world.set_camera_height(shot, 1.7, layer(), by_scale=True),
    "lift": lambda shot: world.set_camera_height(shot, 1.7, layer(), by_scale=False),
    "auto": lambda shot: world.auto_orient(shot, layer()),
    "reset": lambda shot: world.reset(shot, layer()),
}


@pytest.mark.parametrize("move", MOVES)
def test_the_plate_is_matched_after_every_move(shot, capture, move):
    others = [ob for ob in shot.collection.objects if ob is not shot.root]
    before = [ob.matrix_basis.copy() for ob in others]
    world.set_origin(shot, (0, 0, -9), layer(), keep_height=False)  # the camera is above z = 0
    MOVES[move](shot)
    assert plate_error(shot, capture) < 0.01
    assert [ob.matrix_basis for ob in others] == before


def test_the_floor_is_level_at_zero_below_the_camera(shot):
    MOVES["floor"](shot)
    assert at(shot, FLOOR)[:, 2] == pytest.approx(0, abs=1e-5)
    assert shot.camera.matrix_world.translation.z == pytest.approx(1.2 * 2.5, abs=1e-4)
    assert at(shot, (0.0, 1.2 - 1, 0.0))[2] > 0  # a unit above the floor in the capture


@pytest.mark.parametrize("order", [("floor", "origin", "axis", "scale"), ("scale", "origin", "floor", "axis")])
def test_moves_in_any_order_keep_what_was_set(shot, order):
    for move in order:
        MOVES[move](shot)
    near, far = at(shot, (NEAR, FAR))
    assert near == pytest.approx((0, 0, 0), abs=1e-4)
    assert far == pytest.approx((6.0, 0, 0), abs=1e-4)  # 6 long, along x, on the floor
    assert at(shot, FLOOR)[:, 2] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("axis", ["X", "Y"])
def test_a_new_floor_keeps_the_chosen_heading(shot, axis):
    world.set_axis(shot, *at(shot, (NEAR, FAR)), axis, layer())
    MOVES["floor"](shot)
    heading = np.subtract(*at(shot, (FAR, NEAR)))[:2]
    assert heading / np.linalg.norm(heading) == pytest.approx((1, 0) if axis == "X" else (0, 1), abs=1e-5)


def test_the_camera_height_of_the_current_frame_scales_about_the_floor(shot, scene):
    MOVES["floor"](shot)
    scene.frame_set(3)
    MOVES["height"](shot)
    assert shot.camera.matrix_world.translation.z == pytest.approx(1.7, abs=1e-4)
    assert at(shot, FLOOR)[:, 2] == pytest.approx(0, abs=1e-5)


def test_the_camera_height_can_move_instead(shot):
    size = world.size_of(world.world_matrix(shot.root, layer()))
    MOVES["lift"](shot)
    assert shot.camera.matrix_world.translation.z == pytest.approx(1.7, abs=1e-4)
    assert world.size_of(world.world_matrix(shot.root, layer())) == pytest.approx(size, rel=1e-6)


def test_nothing_is_clipped_by_a_new_scale(shot):
    near, far = shot.camera.data.clip_start, shot.camera.data.clip_end
    factor = world.set_scale(shot, *at(shot, (NEAR, FAR)), 600.0, layer())
    assert factor == pytest.approx(600 / (1.5 * 2.5), rel=1e-5)
    assert (shot.camera.data.clip_start, shot.camera.data.clip_end) == pytest.approx((near * factor, far * factor))


def test_auto_orient_keeps_the_scale_and_reset_brings_back_the_import(shot, capture):
    MOVES["auto"](shot)
    assert world.size_of(world.world_matrix(shot.root, layer())) == pytest.approx(2.5, rel=1e-5)
    assert at(shot, FLOOR)[:, 2] == pytest.approx(0, abs=0.08)
    MOVES["reset"](shot)
    assert at(shot, (1.0, 2.0, 3.0)) == pytest.approx((1, 3, -2), abs=1e-6)  # y down became z up, and nothing else


@pytest.mark.parametrize("move", ["floor", "axis", "scale", "auto"])
def test_a_parent_of_the_root_does_not_matter(shot, scene, capture, move):
    parent = bpy.data.objects.new("Set", None)
    scene.collection.objects.link(parent)
    parent.matrix_basis = Matrix.LocRotScale((1, 2, 3), Euler((0.4, 0.1, -0.3)), (0.5,) * 3)
    shot.root.parent = parent
    MOVES[move](shot)
    if move in {"floor", "auto"}:
        assert at(shot, FLOOR)[:, 2] == pytest.approx(0, abs=0.08 if move == "auto" else 1e-4)
    if move == "scale":
        assert np.linalg.norm(np.subtract(*at(shot, (NEAR, FAR)))) == pytest.approx(6, abs=1e-4)
    assert plate_error(shot, capture) < 0.01


def test_what_is_parented_to_the_import_follows(shot, scene):
    prop = bpy.data.objects.new("Chair", None)
    scene.collection.objects.link(prop)
    prop.parent = shot.root
    prop.location = NEAR
    for move in ("floor", "origin", "axis", "scale"):
        MOVES[move](shot)
    assert tuple(prop.matrix_world.translation) == pytest.approx((0, 0, 0), abs=1e-4)
    assert tuple(prop.matrix_world.to_scale()) == pytest.approx((4, 4, 4), rel=1e-4)


def test_what_cannot_be_done_is_said_and_changes_nothing(shot, scene):
    shot.root.location.z = -20
    before = place_of(shot.root)
    with pytest.raises(UserError, match="one line"):
        world.set_floor(shot, at(shot, [NEAR, FAR, 2 * FAR - NEAR]), layer())
    with pytest.raises(UserError, match="at one place"):
        world.set_scale(shot, (1, 1, 1), (1, 1, 1), 2.0, layer())
    with pytest.raises(UserError, match="no direction"):
        world.set_axis(shot, (1, 1, 1), (1, 1, 5), "X", layer())
    with pytest.raises(UserError, match="not above the floor"):
        world.set_camera_height(shot, 1.7, layer(), by_scale=True)
    shot.root.constraints.new("LIMIT_LOCATION")
    with pytest.raises(UserError, match="constraint"):
        MOVES["floor"](shot)
    shot.root.constraints.clear()
    shot.root.keyframe_insert("location", frame=1)
    with pytest.raises(UserError, match="animated"):
        MOVES["floor"](shot)
    assert place_of(shot.root) == before


def test_a_stretched_parent_that_would_shear_the_capture_is_refused(shot, scene):
    parent = bpy.data.objects.new("Stretched", None)
    scene.collection.objects.link(parent)
    parent.scale = (1, 3, 1)
    shot.root.parent = parent
    layer().update()
    before = place_of(shot.root)
    with pytest.raises(UserError, match="stretched"):
        MOVES["floor"](shot)
    assert place_of(shot.root) == before
