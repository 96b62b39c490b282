"""ST maps carry a plate's lens distortion exactly, both ways."""

from dataclasses import replace

import bpy
import cv2
import numpy as np
import pytest

from blender_addon.scene.distortion import PlateLens, write_st_maps
from blender_addon.scene.imported import Imported
from blender_addon.scene.lens_nodes import lens_group
from blender_addon.wire.capture import PlateMap, write_capture
from blender_addon.wire.errors import UserError
from tests.scene.captures import camera_of, imported, small

SIZE = (192, 108)
FOCAL = 150.0


def lens(k1, k2=0.0):
    return PlateLens(SIZE, (FOCAL, FOCAL), (96.0, 54.0), k1, k2)


def shot(k1, k2=0.0, **lens_settings):
    """A capture of a distorted plate, whose lens was stated for the job."""
    settings = {"lens": {"focal_mm": FOCAL / SIZE[0] * 36, "sensor_width_mm": 36.0} | lens_settings}
    return replace(small(2, SIZE, k1=k1, k2=k2), settings=settings)


def read(path):
    """(H, W, 3) linear values of a picture, top row first, as Blender reads them."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    pixels = np.array(image.pixels, np.float32).reshape(image.size[1], image.size[0], -1)
    bpy.data.images.remove(image)
    return pixels[::-1, :, :3]


def pixels_of(st):
    return np.stack([st[..., 0] * SIZE[0], (1 - st[..., 1]) * SIZE[1]], axis=-1)


def centres():
    return np.stack(np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5), axis=-1)


@pytest.mark.parametrize(("k1", "k2"), [(-0.2, 0.05), (0.15, 0.0), (-0.08, -0.02), (0.1, 0.1)])
def test_the_files_agree_with_opencv_both_ways(tmp_path, k1, k2):
    undistort, redistort = map(read, write_st_maps(shot(k1, k2), tmp_path))
    matrix = np.array([[FOCAL, 0, 96], [0, FOCAL, 54], [0, 0, 1.0]])
    terms = np.array([k1, k2, 0, 0])
    rays = np.c_[(centres().reshape(-1, 2) - (96, 54)) / FOCAL, np.ones(SIZE[0] * SIZE[1])]
    bent = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, terms)[0].reshape(*SIZE[::-1], 2)
    assert np.abs(pixels_of(undistort) - bent).max() < 1e-4
    # What the second file says is bent back onto the pixel that it was asked for.
    rays = np.c_[(pixels_of(redistort).reshape(-1, 2) - (96, 54)) / FOCAL, np.ones(SIZE[0] * SIZE[1])]
    again = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), matrix, terms)[0].reshape(*SIZE[::-1], 2)
    assert np.abs(again - centres()).max() < 1e-3
    assert (undistort[..., 2] == 1).all()  # there is a source, which Blender's Map UV asks for
    assert (redistort[..., 2] == 1).all()


def test_a_picture_that_is_bent_and_made_straight_is_what_it_was():
    x, y = np.moveaxis(centres(), -1, 0)
    picture = (0.5 + 0.25 * np.sin(x / 7) + 0.25 * np.cos(y / 9)).astype(np.float32)
    undistort, redistort = (pixels_of(st).astype(np.float32) - 0.5 for st in lens(-0.1).st_maps())
    bent = cv2.remap(picture, redistort, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    straight = cv2.remap(bent, undistort, None, cv2.INTER_CUBIC)
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(straight - picture)[inside].max() < 0.005
    assert np.abs(bent - picture)[inside].max() > 0.1


def test_a_plate_pixel_that_the_lens_cannot_show_has_no_source():
    folding = lens(-1.0)  # shows nothing beyond a normalised radius of 0.385, 57.7 px from the middle
    found = folding.undistort(np.array([[96.0 + 57, 54], [96 + 59, 54], [96, 54]]))
    assert np.isfinite(found[0]).all()
    assert folding.distort(found[0]) == pytest.approx((153, 54), abs=1e-6)
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [96, 54]
    assert (folding.st_maps()[1][54, -1] == -1).all()


def test_the_lens_stated_for_the_job_is_what_was_removed():
    assert PlateLens.of(shot(-0.1)).focal_px == pytest.approx((FOCAL, FOCAL))
    own = PlateLens.of(replace(shot(-0.1), settings={}, plate_map=PlateMap(48 / 192, 32 / 108)))
    assert own.focal_px[0] == pytest.approx(0.9 * 192)  # the room's own cameras


def composited(scene, picture, group, output, tmp_path):
    """(H, W) what an output of a compositor group makes of a grey picture."""
    cv2.imwrite(str(tmp_path / "in.png"), np.repeat((picture * 255).round().astype(np.uint8)[..., None], 3, axis=2))
    image = bpy.data.images.load(str(tmp_path / "in.png"))
    image.colorspace_settings.name = "Non-Color"
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Test", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group, result = tree, tree.nodes.new("NodeGroupOutput")
    else:
        scene.use_nodes, tree = True, scene.node_tree
        tree.nodes.clear()
        result = tree.nodes.new("CompositorNodeComposite")
    source, node = tree.nodes.new("CompositorNodeImage"), tree.nodes.new("CompositorNodeGroup")
    source.image, node.node_tree = image, group
    tree.links.new(source.outputs["Image"], node.inputs["Image"])
    tree.links.new(node.outputs[output], result.inputs[0])
    scene.render.engine, scene.cycles.samples, scene.view_settings.view_transform = "CYCLES", 1, "Raw"
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.filepath = str(tmp_path / "out.exr")
    for ob in scene.objects:
        ob.hide_render = ob.type != "CAMERA"
    bpy.ops.render.render(write_still=True)
    return read(tmp_path / "out.exr")[..., 0]


@pytest.mark.slow
@pytest.mark.parametrize("output", ["Undistorted", "Distorted"])
def test_the_node_group_moves_every_dot_where_the_lens_says(tmp_path, scene, output):
    capture = shot(-0.25, 0.08)
    one = Imported(camera_of(imported(capture, tmp_path, scene)).parent)
    group = lens_group(one, *write_st_maps(capture, tmp_path / "maps"))
    assert lens_group(one, *write_st_maps(capture, tmp_path / "maps")) == group  # not twice
    flat = np.stack(np.meshgrid([40.0, 96, 150], [30.0, 54, 80]), axis=-1).reshape(-1, 2)
    bent = PlateLens.of(capture).distort(flat)
    before, after = (bent, flat) if output == "Undistorted" else (flat, bent)
    assert np.abs(bent - flat).max() > 0.5
    x, y = np.moveaxis(centres(), -1, 0)
    dots = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8) for u, v in before)
    found = composited(scene, dots, group, output, tmp_path)
    for u, v in after:
        weight = found * (np.hypot(x - u, y - v) < 9)
        assert np.hypot((x * weight).sum() / weight.sum() - u, (y * weight).sum() / weight.sum() - v) < 0.25


def test_blender_undistorts_the_plate_about_the_point_that_the_job_did(tmp_path, scene):
    cv2.imwrite(str(tmp_path / "plate.0001.png"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    cv2.imwrite(str(tmp_path / "plate.0002.png"), np.zeros((SIZE[1], SIZE[0], 3), np.uint8))
    capture = shot(-0.2, 0.05)
    refined = capture.plate_map.intrinsics_to_grid(np.tile([152.0, 152, 99, 50], (2, 1)))
    names = ("plate.0001.png", "plate.0002.png")
    clip = replace(capture.clip, source=str(tmp_path), kind="images", image_names=names)
    camera = camera_of(imported(replace(capture, clip=clip, intrinsics=refined), tmp_path, scene))
    background = camera.data.background_images[0]
    lens = background.clip.tracking.camera
    assert background.clip_user.use_render_undistorted
    assert (lens.distortion_model, lens.pixel_aspect) == ("BROWN", 1)
    assert (lens.brown_k1, lens.brown_k2) == pytest.approx((-0.2, 0.05))
    assert lens.focal_length_pixels == pytest.approx(FOCAL)
    assert tuple(lens.principal_point_pixels) == pytest.approx((96, 54), abs=1e-3)


def test_a_straight_plate_has_no_maps_and_a_file_is_no_folder(tmp_path):
    with pytest.raises(UserError, match="no lens distortion"):
        write_st_maps(small(2, SIZE), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_st_maps(shot(-0.1), tmp_path / "file" / "maps")


def test_maps_in_a_captures_own_folder_do_not_damage_it(tmp_path):
    from blender_addon.wire.capture import read_capture

    folder = write_capture(shot(-0.1), tmp_path / "capture")
    write_st_maps(read_capture(folder), folder)
    assert read_capture(folder).clip.k1 == -0.1
    assert sorted(p.suffix for p in folder.iterdir() if p.name.startswith("st_")) == [".exr", ".exr"]
    assert not [p for p in folder.iterdir() if "partial" in p.name]
