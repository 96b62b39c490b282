"""Plate, masks, depth and confidence appear at the frame they belong to, read back from rendered composites."""

from dataclasses import replace
from fractions import Fraction

import bpy
import cv2
import imageio.v3 as iio
import numpy as np
import pytest

from blender_addon.scene.images import use_relative_paths
from blender_addon.scene.report import ImportReport
from blender_addon.wire.capture import PlateMap
from tests.footage import HEIGHT, WIDTH, index_of, pictures, write_video
from tests.scene.captures import camera_of, imported, player_of, small, with_frames_skipped

PLATE = (WIDTH, HEIGHT)


@pytest.fixture
def footage(tmp_path):
    return write_video(tmp_path / "room.mp4", pictures(16), options={"crf": "0", "g": "4"})


def elements():
    return next(t for t in bpy.data.node_groups if t.name.endswith("Elements"))


def composited(scene, frame, output, tmp_path, floats=False):
    """(H, W, 3) what an output of the elements group holds at a scene frame: 8-bit sRGB, or linear floats."""
    tree = scene.compositing_node_group if hasattr(scene, "compositing_node_group") else scene.node_tree
    group = next(n for n in tree.nodes if n.bl_idname == "CompositorNodeGroup")
    result = next(n for n in tree.nodes if n.bl_idname in ("NodeGroupOutput", "CompositorNodeComposite"))
    tree.links.new(group.outputs[output], result.inputs[0])
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.view_settings.view_transform = "Standard"
    scene.render.image_settings.file_format = "OPEN_EXR" if floats else "PNG"
    scene.render.image_settings.color_depth = "32" if floats else "8"
    for ob in scene.objects:
        ob.hide_render = ob.type != "CAMERA"
    scene.frame_set(frame)
    scene.render.filepath = str(tmp_path / ("composite.exr" if floats else "composite.png"))
    bpy.ops.render.render(write_still=True)
    if not floats:
        return iio.imread(scene.render.filepath)[..., :3]
    image = bpy.data.images.load(scene.render.filepath)
    pixels = np.array(image.pixels, np.float32).reshape(image.size[1], image.size[0], -1)[::-1, :, :3]
    bpy.data.images.remove(image)
    return pixels


@pytest.mark.slow
def test_the_plate_plays_in_step_with_the_points(tmp_path, scene, footage):
    capture = with_frames_skipped(small(4, PLATE, source=str(footage)), (5, 6, 7, 8))
    collection = imported(capture, tmp_path, scene, images=True, start_frame=101)
    assert not any("plate" in note.lower() for note in ImportReport.read(collection).notes)
    assert [index_of(composited(scene, f, "Plate", tmp_path)) for f in (101, 104)] == [5, 8]


def test_the_plate_stands_behind_the_camera(tmp_path, scene, footage):
    capture = small(3, PLATE, source=str(footage))
    data = camera_of(imported(capture, tmp_path, scene, images=True)).data
    assert data.show_background_images
    plate = data.background_images[0]
    assert (plate.source, plate.clip.frame_duration, plate.display_depth) == ("MOVIE_CLIP", 16, "BACK")
    assert plate.show_background_image
    # Masks, depth and confidence lie ready, switched off.
    others = [b.image.name for b in data.background_images[1:] if not b.show_background_image]
    assert others == ["room Mask", "room Depth", "room Confidence"]


def test_a_numbered_image_sequence_is_a_plate(tmp_path, scene):
    (tmp_path / "plates").mkdir()
    for i, picture in enumerate(pictures(6)):
        iio.imwrite(tmp_path / "plates" / f"plate.{1001 + i}.png", picture)
    names = tuple(f"plate.{1001 + i}.png" for i in (2, 3, 4))
    capture = small(3, PLATE, source=str(tmp_path / "plates"), kind="images", image_names=names)
    imported(with_frames_skipped(capture, (2, 3, 4)), tmp_path, scene, images=True)
    assert index_of(composited(scene, 3, "Plate", tmp_path)) == 4


def test_a_plate_that_is_not_here_is_replaced_by_the_captures_frames_and_said(tmp_path, scene):
    capture = small(3, PLATE, source="/elsewhere/room.mp4")
    collection = imported(capture, tmp_path, scene, images=True)
    notes = " / ".join(ImportReport.read(collection).notes)
    assert "The plate /elsewhere/room.mp4 was not found" in notes
    assert "The capture's own frames stand in for the plate" in notes
    background = camera_of(collection).data.background_images[0]
    assert (background.source, background.image.name) == ("IMAGE", "room Frames")
    assert background.show_background_image


def test_the_users_own_path_to_the_footage_wins(tmp_path, scene, footage):
    capture = small(3, PLATE, source="/elsewhere/room.mp4")
    imported(capture, tmp_path, scene, plate_path=str(footage))
    assert [c.name for c in bpy.data.movieclips] == ["room Plate"]


@pytest.mark.parametrize("kind", ["text", "size"])
def test_a_plate_of_another_kind_is_refused_and_said(tmp_path, scene, kind):
    path = tmp_path / "other.mp4"
    if kind == "text":
        path.write_text("not a film")
    else:
        write_video(path, pictures(3, 128, 96))
    collection = imported(small(3, PLATE, source=str(path)), tmp_path, scene)
    assert any("other.mp4" in note for note in ImportReport.read(collection).notes)
    assert not bpy.data.movieclips


def test_missing_pictures_are_said_and_the_rest_imported(tmp_path, scene):
    collection = imported(small(2), tmp_path, scene)
    assert sum("not loaded" in note for note in ImportReport.read(collection).notes) == 4
    assert player_of(collection)


@pytest.mark.slow
def test_masks_are_seen_at_their_frame(tmp_path, scene):
    capture = small(3, PLATE)
    mask = np.zeros((3, HEIGHT, WIDTH), bool)
    for i in range(3):
        mask[i, :, 40 * i : 40 * (i + 1)] = True
    imported(replace(capture, plate_masks=mask), tmp_path, scene, images=True, start_frame=5)
    for i in (1, 2):
        assert np.array_equal(composited(scene, 5 + i, "Mask", tmp_path)[..., 0] > 128, mask[i])


def test_depth_and_confidence_come_in_their_own_units(tmp_path, scene):
    capture = small(2, (48, 32))
    confidence = np.random.default_rng(0).random(capture.depth.shape).astype(np.float16)
    imported(replace(capture, confidence=confidence), tmp_path, scene, images=True)
    depth = composited(scene, 2, "Depth", tmp_path, floats=True)[..., 0]
    assert np.abs(depth - capture.depth[1]).max() < capture.depth.max() / 65535
    seen = composited(scene, 2, "Confidence", tmp_path, floats=True)[..., 0]
    assert np.abs(seen - confidence[1]).max() < 1 / 255


@pytest.mark.slow
def test_pictures_of_skipped_frames_are_held(tmp_path, scene):
    capture = with_frames_skipped(small(3, PLATE), (0, 2, 5))
    mask = np.zeros((3, HEIGHT, WIDTH), bool)
    for i in range(3):
        mask[i, :, 40 * i : 40 * (i + 1)] = True
    collection = imported(replace(capture, plate_masks=mask), tmp_path, scene, images=True)
    shown = {f: int(composited(scene, f, "Mask", tmp_path)[0, :, 0].argmax()) // 40 for f in (2, 5)}
    assert shown == {2: 0, 5: 1}
    user = camera_of(collection).data.background_images[0].image_user
    files = []
    for frame in range(1, 7):
        scene.frame_set(frame)
        files.append(frame - user.frame_start + 1 + user.frame_offset)
    assert files == [0, 0, 1, 1, 1, 2]


def test_the_lens_distortion_of_the_plate_is_taken_out(tmp_path, scene):
    """The plate is made from a smooth pattern by OpenCV's lens model; undistorted, it is the pattern again."""
    width, height, focal, k1, k2 = 160, 96, 150.0, -0.25, 0.05
    matrix = np.array([[focal, 0, 84.0], [0, focal, 45.0], [0, 0, 1]])

    def pattern(x, y):
        return 128 + 60 * np.sin(x / 6) + 60 * np.sin(y / 5)

    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([x, y], -1).reshape(-1, 1, 2).astype(np.float64)
    straight = cv2.undistortPoints(pixels, matrix, np.array([k1, k2, 0, 0]), P=matrix).reshape(height, width, 2)
    (tmp_path / "plates").mkdir()
    for i in (1, 2):
        distorted = np.repeat(pattern(straight[..., 0], straight[..., 1])[..., None], 3, -1)
        iio.imwrite(tmp_path / "plates" / f"p_{i:04d}.png", np.round(distorted).astype(np.uint8))
    capture = small(
        2,
        (width, height),
        source=str(tmp_path / "plates"),
        kind="images",
        image_names=("p_0001.png", "p_0002.png"),
        k1=k1,
        k2=k2,
    )
    grid = PlateMap(48 / width, 32 / height)
    intrinsics = grid.intrinsics_to_grid(np.tile([focal, focal, 84.0, 45.0], (2, 1)))
    imported(replace(capture, plate_map=grid, intrinsics=intrinsics), tmp_path, scene)
    assert camera_of(scene.collection.children[0]).data.background_images[0].clip_user.use_render_undistorted
    group = elements()
    undistort = group.nodes.new("CompositorNodeMovieDistortion")
    undistort.clip = bpy.data.movieclips[0]
    if hasattr(undistort, "distortion_type"):
        undistort.distortion_type = "UNDISTORT"
    else:
        undistort.inputs["Type"].default_value = "Undistort"
    result = next(n for n in group.nodes if n.bl_idname == "NodeGroupOutput")
    group.links.new(result.inputs["Plate"].links[0].from_socket, undistort.inputs["Image"])
    group.links.new(undistort.outputs[0], result.inputs["Plate"])
    seen = composited(scene, 1, "Plate", tmp_path)[..., 0].astype(float)
    inside = (slice(16, -16), slice(20, -20))  # the undistorted picture has empty corners
    # The node grows the picture and centres it anew, by halves of a pixel; the lens is what this is about.
    shifts = [(dx / 2, dy / 2) for dx in range(-2, 3) for dy in range(-2, 3)]
    assert min(np.abs(seen - pattern(x + dx, y + dy))[inside].mean() for dx, dy in shifts) < 1
    plate = pattern(straight[..., 0], straight[..., 1])
    assert min(np.abs(plate - pattern(x + dx, y + dy))[inside].mean() for dx, dy in shifts) > 5


def test_an_artists_compositor_is_only_added_to(tmp_path, scene):
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Mine", "CompositorNodeTree")
        scene.compositing_node_group = tree
    else:
        scene.use_nodes = True
        tree = scene.node_tree
    blur = tree.nodes.new("CompositorNodeBlur")
    before = {n.name for n in tree.nodes}
    links = len(tree.links)
    imported(small(2), tmp_path, scene, images=True)
    assert {n.name for n in tree.nodes} - before == {"room Elements"}
    assert blur.name in tree.nodes
    assert len(tree.links) == links


def test_paths_can_be_made_relative_to_the_blend(tmp_path, scene, footage):
    imported(small(2, PLATE, source=str(footage)), tmp_path, scene, images=True)
    use_relative_paths(tmp_path / "shot.blend")
    assert bpy.data.movieclips[0].filepath == "//room.mp4"
    assert bpy.data.images["room Mask"].filepath == "//capture/dynamic_mask_0000.png"


def test_fractional_rates_and_the_plates_size_become_the_scenes(tmp_path, scene):
    capture = replace(small(3, (1280, 720)))
    capture = replace(capture, clip=replace(capture.clip, fps=Fraction(24000, 1001)))
    collection = imported(capture, tmp_path, scene, start_frame=1001)
    assert scene.render.fps / scene.render.fps_base == pytest.approx(24000 / 1001, rel=1e-6)
    assert (scene.frame_start, scene.frame_end, scene.frame_current) == (1001, 1003, 1001)
    assert (scene.render.resolution_x, scene.render.resolution_y) == (1280, 720)
    assert scene.camera == camera_of(collection)
