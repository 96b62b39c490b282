"""The mask round trip inside Blender: copied, turned to splines, rendered again, and used to split the points."""

from dataclasses import replace

import bpy
import cv2
import numpy as np
import pytest

from backend.clip import open_clip
from backend.run import Run
from backend.wire import ClipSettings
from blender_addon.scene.belongings import pictures as pictures_of
from blender_addon.scene.grey import read_grey, write_grey
from blender_addon.scene.imported import imported_in
from blender_addon.scene.mask_editing import (
    EDITED_NAME,
    copy_masks,
    free_folder,
    mask_files,
    masks_to_splines,
    plate_mask,
    undistorted_mask,
)
from blender_addon.scene.mask_render import render_masks
from blender_addon.scene.mask_use import grid_mask, read_masks, use_masks
from blender_addon.wire.capture import PlateMap
from blender_addon.wire.errors import UserError
from tests.footage import HEIGHT, WIDTH, pictures, write_video
from tests.scene.captures import camera_of, imported, player_of, shown, small, with_frames_skipped

PLATE = (WIDTH, HEIGHT)
SHAPE = np.array([(20, 20), (70, 12), (60, 50), (80, 80), (30, 70)])


def blob(frame):
    """A shape with a hole, a bay and slanted sides, that walks; it reaches out of the picture in the last frames."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.fillPoly(mask, [SHAPE + np.array((30 * frame, 0))], 1)
    cv2.circle(mask, (45 + 30 * frame, 40), 9, 0, -1)
    return mask.astype(bool)


def shot(tmp_path, scene, frames=4, **clip):
    masks = np.stack([blob(i) for i in range(frames)])
    capture = replace(small(frames, PLATE, **clip), plate_masks=masks)
    imported(capture, tmp_path, scene, images=True, start_frame=101)
    return imported_in(scene)[0]


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_the_copy_holds_the_masks_and_the_capture_stays_as_it_is(tmp_path, scene):
    found = shot(tmp_path, scene)
    before = files_of(found.folder)
    folder = free_folder(found)
    assert folder == tmp_path / "capture_masks"
    image = copy_masks(found, folder)
    for i in range(4):
        assert np.array_equal(cv2.imread(str(folder / EDITED_NAME.format(i)), 0), blob(i) * np.uint8(255))
    assert (image.source, image.colorspace_settings.name) == ("SEQUENCE", "Non-Color")
    assert files_of(found.folder) == before
    assert free_folder(found) == tmp_path / "capture_masks_002"
    with pytest.raises(UserError, match="exists already"):
        copy_masks(found, folder)


@pytest.mark.parametrize("size", [PLATE, (HEIGHT, WIDTH), (97, 97)])
def test_splines_of_a_mask_render_to_the_same_mask(tmp_path, scene, size):
    masks = np.stack([cv2.resize(blob(i).astype(np.uint8), size, interpolation=0) > 0 for i in range(3)])
    capture = replace(small(3, size), plate_masks=masks)
    imported(with_frames_skipped(capture, (0, 2, 4)), tmp_path, scene, images=True, start_frame=11)
    (found,) = imported_in(scene)
    mask = masks_to_splines(found, [0, 1, 2], tolerance_px=0, smallest_px=0)
    assert [layer.name for layer in mask.layers] == ["Frame 11", "Frame 13", "Frame 15"]
    scenes, trees = list(bpy.data.scenes), list(bpy.data.node_groups)
    render_masks(found, mask, tmp_path / "masks")
    for i in range(3):
        assert np.array_equal(read_grey(tmp_path / "masks" / EDITED_NAME.format(i)) == 1, masks[i]), i
    assert (list(bpy.data.scenes), list(bpy.data.node_groups)) == (scenes, trees)


def test_fewer_corners_change_the_edge_only(tmp_path, scene):
    found = shot(tmp_path, scene)
    exact = masks_to_splines(found, [1], tolerance_px=0, smallest_px=0)
    mask = masks_to_splines(found, [1], tolerance_px=1.5, smallest_px=20)
    corners = [sum(len(s.points) for s in m.layers[0].splines) for m in (exact, mask)]
    assert corners[1] < corners[0] / 3
    render_masks(found, mask, tmp_path / "masks")
    for i in range(4):  # of a single frame, the mask is on in all of them
        seen = read_grey(tmp_path / "masks" / EDITED_NAME.format(i)) > 0.5
        off = (seen != blob(1)).astype(np.uint8)
        assert not cv2.erode(off, np.ones((4, 4), np.uint8)).any()
        assert off.mean() < 0.02


@pytest.mark.parametrize("blend", ["MERGE_SUBTRACT", "MERGE_ADD", "DARKEN"])
def test_layers_are_put_together_as_blender_does(tmp_path, scene, blend):
    """A second layer, subtracted, inverted, or where both are."""
    found = shot(tmp_path, scene, frames=2)
    mask = masks_to_splines(found, [0], tolerance_px=0, smallest_px=0)
    other = masks_to_splines(found, [1], tolerance_px=0, smallest_px=0)
    layer = mask.layers.new(name="Other")
    layer.use_fill_holes, layer.blend, layer.invert = True, blend, blend == "MERGE_ADD"
    if hasattr(layer, "fill_solver"):
        layer.fill_solver = "SWEEP_LINE"  # the one of 5.2 fills holes
    for spline in other.layers[0].splines:
        copy = layer.splines.new()
        copy.use_cyclic = True
        copy.points.add(len(spline.points) - len(copy.points))
        for a, b in zip(copy.points, spline.points):
            a.handle_type = "VECTOR"
            a.co, a.handle_left, a.handle_right = b.co, b.co, b.co
    render_masks(found, mask, tmp_path / "masks")
    seen = read_grey(tmp_path / "masks" / EDITED_NAME.format(0)) > 0.5
    a, b = blob(0), blob(1)
    expected = {"MERGE_SUBTRACT": a & ~b, "MERGE_ADD": a | ~b, "DARKEN": a & b}[blend]
    assert np.array_equal(seen, expected)


def test_a_frame_without_movers_has_no_splines(tmp_path, scene):
    capture = replace(small(2, PLATE), plate_masks=np.stack([np.zeros((HEIGHT, WIDTH), bool), blob(0)]))
    imported(capture, tmp_path, scene, images=True)
    (found,) = imported_in(scene)
    with pytest.raises(UserError, match="Nothing moves"):
        masks_to_splines(found, [0], tolerance_px=1, smallest_px=0)
    assert not bpy.data.masks


def test_masks_on_the_grid_are_what_most_of_a_pixel_is():
    rng = np.random.default_rng(0)
    mask = rng.random((60, 90)) > 0.5
    whole = grid_mask(mask, PlateMap(1 / 3, 1 / 3), (30, 20))
    assert np.array_equal(whole, mask.reshape(20, 3, 30, 3).mean((1, 3)) > 0.5)
    # A crop of half a pixel and a scale that fits no pixels, against sampling each pixel finely.
    plate_map, size = PlateMap(0.4, 0.35, 2.5, 1.2), (28, 18)
    fine = np.stack(np.meshgrid((np.arange(size[0] * 40) + 0.5) / 40, (np.arange(size[1] * 40) + 0.5) / 40), axis=-1)
    x, y = np.floor(plate_map.to_plate(fine)).astype(int).transpose(2, 0, 1)
    inside = (x < 90) & (y < 60)
    share = np.where(inside, mask[np.minimum(y, 59), np.minimum(x, 89)], False)
    share = share.reshape(size[1], 40, size[0], 40).mean((1, 3))
    sure = np.abs(share - 0.5) > 0.03
    assert np.array_equal(grid_mask(mask, plate_map, size)[sure], (share > 0.5)[sure])


def test_a_capture_read_through_its_own_masks_is_itself(tmp_path, scene):
    found = shot(tmp_path, scene)
    copy_masks(found, tmp_path / "masks")
    dynamic = read_masks(tmp_path / "masks", found.capture())
    expected = np.stack([grid_mask(blob(i), found.capture().plate_map, (48, 32)) for i in range(4)])
    assert np.array_equal(dynamic, expected)


@pytest.mark.parametrize("storage", ["frames", "split"])
def test_edited_masks_split_the_points_anew_and_keep_what_the_artist_set(tmp_path, scene, storage):
    capture = replace(small(3, PLATE), plate_masks=np.stack([blob(i) for i in range(3)]))
    collection = imported(capture, tmp_path, scene, images=True, storage=storage)
    (found,) = imported_in(scene)
    found.root.location, found.root.scale = (1, 2, 3), (2, 2, 2)
    camera_of(collection).data.dof.use_dof = True
    folder = tmp_path / "masks"
    copy_masks(found, folder)
    right = np.zeros((HEIGHT, WIDTH), np.uint8)
    right[:, WIDTH // 2 :] = 255
    for i in range(3):
        write_grey(folder / EDITED_NAME.format(i), right)
    wanted = np.zeros((3, 32, 48), bool)
    wanted[:, :, 24:] = True
    assert use_masks(found, folder, scene) == (wanted != capture.dynamic).sum()
    scene.frame_set(2)
    (found,) = imported_in(scene)
    seen = shown(player_of(found.collection))
    moving = seen["dynamic"]
    if storage == "split":
        assert len(moving) == 32 * 24
        assert moving.all()
    else:
        assert len(moving) == 32 * 48
        assert moving.sum() == 32 * 24
    assert tuple(found.root.location) == (1, 2, 3)
    assert found.camera.data.dof.use_dof
    assert np.array_equal(found.capture().dynamic, capture.dynamic)  # the capture itself is never written
    mask = pictures_of(found.root)["Mask"]
    assert mask.filepath == str(folder / EDITED_NAME.format(0))
    copy_masks(found, tmp_path / "again")  # the next edit begins with them
    assert np.array_equal(np.round(read_grey(tmp_path / "again" / EDITED_NAME.format(1)) * 255), right)


def test_edited_masks_are_what_a_reconstruction_reads(tmp_path, scene):
    """The backend's known masks of the same folder, frame by frame, with frames of the clip skipped."""
    footage = write_video(tmp_path / "room.mp4", pictures(8), options={"crf": "0", "g": "4"})
    masks = np.stack([blob(i) for i in range(3)])
    capture = with_frames_skipped(replace(small(3, PLATE, source=str(footage)), plate_masks=masks), (1, 3, 5))
    imported(capture, tmp_path, scene, images=True)
    (found,) = imported_in(scene)
    render_masks(found, masks_to_splines(found, [0, 1, 2], 0, 0), tmp_path / "masks")
    (tmp_path / "work").mkdir()
    run = Run(work_dir=tmp_path / "work")
    clip = open_clip(footage, ClipSettings(first_frame=1, last_frame=5, frame_step=2), run, masks=tmp_path / "masks")
    assert clip.info.frame_indices == (1, 3, 5)
    assert np.array_equal(clip.known_masks, masks)
    for i in range(3, 8):
        write_grey(tmp_path / "masks" / EDITED_NAME.format(i), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert [p.name for p in mask_files(tmp_path / "masks", found.capture())] == [
        EDITED_NAME.format(i) for i in (1, 3, 5)
    ]


def test_masks_that_do_not_fit_are_said_and_nothing_changes(tmp_path, scene):
    found = shot(tmp_path, scene)
    folder = tmp_path / "masks"
    folder.mkdir()
    objects = {ob.name for ob in bpy.data.objects}
    for i in range(3):
        write_grey(folder / EDITED_NAME.format(i), np.zeros((HEIGHT, WIDTH), np.uint8))
    with pytest.raises(UserError, match=r"3 masks .* for 4 frames"):
        use_masks(found, folder, scene)
    write_grey(folder / EDITED_NAME.format(3), np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="8x8 but the plate is 160x96"):
        use_masks(found, folder, scene)
    write_grey(folder / EDITED_NAME.format(3), np.full((HEIGHT, WIDTH), 100, np.uint8))
    with pytest.raises(UserError, match="grey, not white"):
        use_masks(found, folder, scene)
    assert {ob.name for ob in bpy.data.objects} == objects


def test_masks_of_a_distorted_plate_are_as_it_was_shot_and_come_back(tmp_path, scene):
    """The artist edits on the plate as shot; on the undistorted picture it is the capture's own mask again."""
    found = shot(tmp_path, scene, k1=-0.4)
    capture = found.capture()
    shot_mask = plate_mask(capture, 0)
    fx, fy, cx, cy = capture.plate_intrinsics[0]
    lens = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])  # OpenCV counts from pixels' centres
    straight = cv2.undistort(shot_mask.astype(np.uint8) * 255, lens, np.array([-0.4, 0, 0, 0]))
    assert ((straight > 127) != blob(0)).mean() < 0.01
    assert (shot_mask != blob(0)).mean() > 0.01
    assert (undistorted_mask(capture, shot_mask) != blob(0)).mean() < 0.01
