"""Depth-projected points and mesh: where they stand, what of them is torn, and what the mesh is used for."""

from dataclasses import replace

import bpy
import imageio.v3 as iio
import numpy as np
import pytest
from mathutils import Vector

from blender_addon.scene.imported import PLAYER, PROJECTED, imported_in
from blender_addon.scene.nodes import find_modifier, get_input, set_input
from blender_addon.scene.points import unproject
from blender_addon.scene.projected import DEPTH_NAME
from blender_addon.scene.projection import set_use
from blender_addon.scene.projector import project_plate
from blender_addon.scene.steps import finish
from blender_addon.scene.storage import convert_storage
from blender_addon.scene.stored import EMBEDDED, storages
from tests.scene.captures import imported, shown, small, with_frames_skipped
from tests.worlds import as_capture, room


def projected(capture, folder, scene, **options):
    """The import of a capture as depth-projected points, and their object."""
    imported(capture, folder, scene, storage="frames", **options)
    one = imported_in(scene)[0]
    finish(convert_storage(one, EMBEDDED, PROJECTED))
    return one, one.objects(PROJECTED)[0]


def zooming(capture):
    """The same capture through a lens that zooms, with an off-centre principal point and oblong pixels."""
    lenses = capture.intrinsics * (1.0, 1.02, 1.0, 1.0) + (0.0, 0.0, 1.5, -2.0)
    lenses[:, :2] *= np.linspace(1.0, 1.3, len(lenses))[:, None]
    return replace(capture, intrinsics=lenses)


def truth(capture, frame, root):
    """(N, 3) world points of a frame by NumPy, in the order of the grid: columns first, each from below."""
    everything = np.ones(capture.depth.shape[1:], bool)
    points = unproject(capture, frame, everything).astype(float).reshape(*everything.shape, 3)
    points = points[::-1].transpose(1, 0, 2).reshape(-1, 3)
    world = np.array(root.matrix_world)
    return points @ world[:3, :3].T + world[:3, 3]


@pytest.mark.parametrize("follow", [True, False])
def test_points_stand_where_numpy_puts_them(tmp_path, scene, follow):
    capture = zooming(small())
    one, ob = projected(capture, tmp_path, scene)
    set_input(find_modifier(ob), "Follow Camera", follow)
    one.root.scale, one.root.location = (3, 3, 3), (1, 2, 3)
    for frame in range(4):
        scene.frame_set(frame + 1)
        expected = truth(capture, frame, one.root)
        error = np.linalg.norm(shown(ob)["position"] - expected, axis=1)
        assert (error / np.linalg.norm(expected - one.camera.matrix_world.translation, axis=1)).max() < 2e-6


def test_pictures_hold_every_number_of_the_capture(tmp_path, scene):
    capture = small()
    capture.depth[1, 5:9] = 0
    capture = replace(capture, objects=capture.dynamic * np.uint8(3))
    one, ob = projected(capture, tmp_path, scene)
    picture = bpy.data.images.load(str(storages(one)[0].files / DEPTH_NAME.format(1)))
    picture.colorspace_settings.name = "Non-Color"
    pixels = np.empty((32, 48, 4), np.float32)
    picture.pixels.foreach_get(pixels.ravel())
    pixels = pixels[::-1]
    assert np.array_equal(pixels[..., 0], capture.depth[1])
    assert np.array_equal(pixels[..., 1], capture.confidence[1].astype(np.float32))
    assert np.array_equal(pixels[..., 2], capture.objects[1])
    scene.frame_set(2)
    seen = shown(ob)
    assert len(seen["position"]) == (capture.depth[1] > 0).sum()
    order = (capture.depth[1] > 0)[::-1].T.ravel()
    assert np.array_equal(seen["Color"][:, :3], capture.rgb[1][::-1].transpose(1, 0, 2).reshape(-1, 3)[order])
    assert np.array_equal(seen["dynamic"], capture.dynamic[1][::-1].T.ravel()[order])
    set_input(find_modifier(ob), "Object", 3)
    bpy.context.view_layer.update()
    assert len(shown(ob)["position"]) == (capture.objects[1][capture.depth[1] > 0] == 3).sum()


def test_frames_without_a_camera_or_a_time_are_handled(tmp_path, scene):
    capture = with_frames_skipped(small(), (0, 2, 4, 6))
    poses = capture.world_from_camera.copy()
    poses[2] = np.nan
    _, ob = projected(replace(capture, world_from_camera=poses), tmp_path, scene)
    counts = []
    for frame in range(1, 8):
        scene.frame_set(frame)
        counts.append(len(shown(ob)["position"]))
    assert counts == [1536, 1536, 1536, 1536, 0, 0, 1536]


def test_retimed_points_stand_where_their_camera_stood_when_asked_to(tmp_path, scene):
    capture = small()
    one, ob = projected(capture, tmp_path, scene)
    set_input(find_modifier(ob), "Speed", -1.0)
    set_input(find_modifier(ob), "Follow Camera", False)
    scene.frame_set(1)
    assert np.abs(shown(ob)["position"] - truth(capture, 3, one.root)).max() < 1e-5


def test_the_mesh_is_torn_where_depth_jumps(tmp_path, scene):
    capture = small()
    one, ob = projected(capture, tmp_path, scene)
    set_use(one, ob, "mesh")
    for limit, frame in ((0.05, 0), (0.3, 2)):
        set_input(find_modifier(ob), "Max Step", limit)
        scene.frame_set(frame + 1)
        mesh = ob.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
        depth = capture.depth[frame].astype(float)
        across = np.abs(np.diff(depth, axis=1)) <= limit * np.minimum(depth[:, 1:], depth[:, :-1])
        down = np.abs(np.diff(depth, axis=0)) <= limit * np.minimum(depth[1:], depth[:-1])
        whole = across[1:] & across[:-1] & down[:, 1:] & down[:, :-1]
        assert len(mesh.polygons) == whole.sum()
        assert 0 < whole.sum() < whole.size


def render(scene, folder) -> np.ndarray:
    """(H, W, 4) levels of the scene's frame, each pixel sampled at its centre alone."""
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", 1, "CPU"
    scene.cycles.pixel_filter_type, scene.cycles.filter_width = "GAUSSIAN", 0.01
    scene.view_settings.view_transform, scene.render.dither_intensity = "Standard", 0.0
    scene.cycles.use_denoising = False
    scene.render.film_transparent = True
    scene.render.filepath = str(folder / "render.png")
    bpy.ops.render.render(write_still=True)
    return iio.imread(folder / "render.png").astype(int)


def test_the_camera_projects_the_plate_on_whatever_it_sees(tmp_path, scene):
    """On the mesh itself, and on a sheet that was never part of the capture."""
    capture = zooming(as_capture(room(4, 48, 32)))
    one, ob = projected(capture, tmp_path, scene)
    set_use(one, ob, "projection")
    material = get_input(find_modifier(ob), "Material")
    scene.frame_set(3)
    on_mesh = render(scene, tmp_path)
    ob.hide_render = True
    bpy.ops.mesh.primitive_plane_add(size=50, location=one.camera.matrix_world @ Vector((0, 0, -4)))
    sheet = bpy.context.object
    sheet.rotation_euler = one.camera.matrix_world.to_euler()
    sheet.data.materials.append(material)
    on_sheet = render(scene, tmp_path)
    for picture, least in ((on_sheet, 0.99), (on_mesh, 0.7)):
        off = np.abs(picture[..., :3] - capture.rgb[2].astype(int)).max(axis=-1)
        assert (off <= 3).mean() >= least


def test_a_set_keeps_what_was_projected_on_it(tmp_path, scene):
    """Held at frame 3, a sheet before the camera shows that picture from there at any frame."""
    capture = zooming(as_capture(room(4, 48, 32)))
    imported(capture, tmp_path, scene, images=True, storage="frames")
    one = imported_in(scene)[0]
    scene.frame_set(3)
    bpy.ops.mesh.primitive_plane_add(size=50, location=one.camera.matrix_world @ Vector((0, 0, -4)))
    sheet = bpy.context.object
    sheet.rotation_euler = one.camera.matrix_world.to_euler()
    for ob in one.objects(PLAYER):
        ob.hide_render = True
    project_plate(one, [sheet], 3, hold=True)
    held = one.camera.matrix_world.copy()
    scene.frame_set(1)
    assert held != one.camera.matrix_world
    scene.camera = next(ob for ob in scene.objects if ob.get("kinora_role") == "projector")
    assert np.allclose(scene.camera.matrix_world, held, atol=1e-6)
    picture = render(scene, tmp_path)
    assert (np.abs(picture[..., :3] - capture.rgb[2].astype(int)).max(axis=-1) <= 3).mean() > 0.99

    scene.camera = one.camera
    project_plate(one, [sheet], 1, hold=False)
    for frame in (1, 4):
        scene.frame_set(frame)
        picture = render(scene, tmp_path)
        assert (np.abs(picture[..., :3] - capture.rgb[frame - 1].astype(int)).max(axis=-1) <= 3).mean() > 0.9


def test_the_mesh_cuts_cg_out_and_catches_its_shadow(tmp_path, scene):
    one, ob = projected(as_capture(room(4, 48, 32)), tmp_path, scene)
    set_use(one, ob, "mesh")
    look = get_input(find_modifier(ob), "Material")
    bpy.ops.mesh.primitive_ico_sphere_add(radius=0.4, location=one.camera.matrix_world @ Vector((0.2, 0, -3)))
    bpy.ops.object.light_add(type="POINT", location=one.camera.matrix_world @ Vector((-1.5, 0.3, -1.5)))
    bpy.context.object.data.energy = 500

    set_use(one, ob, "holdout")
    alpha = render(scene, tmp_path)[..., 3]
    assert alpha[14, 36] == 255  # the ball stands before the wall
    assert alpha[3, 5] == 0  # and the room is cut out

    set_use(one, ob, "shadow_catcher")
    assert not ob.is_holdout
    alpha = render(scene, tmp_path)[..., 3]
    assert alpha[14, 36] == 255
    ball = np.hypot(*(np.indices(alpha.shape) - np.array([14, 36])[:, None, None])) < 8
    assert (alpha[~ball] > 100).sum() > 20  # its shadow on the walls, which themselves are not seen
    assert (alpha[~ball] == 0).mean() > 0.5

    set_use(one, ob, "points")
    assert get_input(find_modifier(ob), "Material") is look
    assert not ob.is_shadow_catcher
