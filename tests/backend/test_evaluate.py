"""Laws of comparing a capture with the truth of its clip."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.evaluate import compare, evaluate, main_evaluate
from backend.geometry.rigid import Similarity
from backend.truth import Truth, read_truth, write_truth
from backend.wire import UserError, write_capture
from tests.worlds import as_capture, room

WORLD = room(frames=6, width=96, height=64)
TRUTH = Truth.from_plates(WORLD.world_from_camera, WORLD.intrinsics, WORLD.depth, WORLD.dynamic, step=2)
PERFECT = as_capture(WORLD)


def test_a_perfect_capture_has_no_error():
    found = compare(PERFECT, WORLD.dynamic, TRUTH)
    assert found.ate_relative == pytest.approx(0, abs=1e-9)
    assert found.rotation_deg == pytest.approx(0, abs=1e-5)
    assert (found.focal_error, found.depth_delta_125, found.mask_iou, found.leaked) == (0, 1, 1, 0)
    assert found.depth_abs_rel == pytest.approx(0, abs=1e-6)
    assert found.measured == 1
    assert found.scale_source == "metric"


def test_another_world_and_scale_is_no_error_unless_the_capture_claims_to_be_metric():
    other = Similarity(0.2, Rotation.from_rotvec([0.3, -2, 0.5]).as_matrix(), np.ones(3))
    moved = replace(
        PERFECT, metric=False, world_from_camera=other.apply_to_poses(WORLD.world_from_camera), depth=0.2 * WORLD.depth
    )
    found = compare(moved, WORLD.dynamic, TRUTH)
    assert found.scale_source == "camera path"
    assert found.ate_relative == pytest.approx(0, abs=1e-9)
    assert found.depth_abs_rel == pytest.approx(0, abs=1e-6)
    assert compare(replace(moved, metric=True), WORLD.dynamic, TRUTH).depth_abs_rel == pytest.approx(0.8, abs=1e-6)


def test_depth_error_is_the_mean_relative_error_over_static_measured_pixels():
    depth, confidence = 1.1 * WORLD.depth, PERFECT.confidence.copy()
    depth[WORLD.dynamic] = 77
    depth[:, :, :10], confidence[:, :, :10] = 99, 0.1
    found = compare(replace(PERFECT, depth=depth, confidence=confidence), WORLD.dynamic, TRUTH)
    assert found.depth_abs_rel == pytest.approx(0.1, abs=1e-5)
    assert found.measured == pytest.approx(86 / 96, abs=0.02)
    wrong = np.where(np.arange(96) < 48, 1.3, 1.0) * WORLD.depth
    assert compare(replace(PERFECT, depth=wrong), WORLD.dynamic, TRUTH).depth_delta_125 == pytest.approx(0.5, abs=0.05)


def test_a_locked_off_camera_takes_its_scale_from_the_median_depth_and_says_so():
    world = room(frames=3, motion="locked")
    truth = Truth.from_plates(world.world_from_camera, world.intrinsics, world.depth, world.dynamic, step=2)
    found = compare(replace(as_capture(world), metric=False, depth=3 * world.depth), world.dynamic, truth)
    assert found.scale_source == "median depth"
    assert found.depth_abs_rel == pytest.approx(0, abs=1e-6)
    assert np.isnan(found.ate_relative)


def test_masks_are_compared_over_all_pixels_of_the_plate():
    nothing, all_ = np.zeros_like(WORLD.dynamic), np.ones_like(WORLD.dynamic)
    assert compare(PERFECT, nothing, TRUTH).mask_iou == 0
    assert compare(PERFECT, nothing, TRUTH).leaked == 1
    share = WORLD.dynamic.mean()
    found = compare(PERFECT, all_, TRUTH)
    assert (found.mask_iou, found.mask_precision, found.mask_recall) == pytest.approx((share, share, 1))
    shifted = np.roll(WORLD.dynamic, 1, axis=2)
    assert share < compare(PERFECT, shifted, TRUTH).mask_iou < 1


def test_a_wrong_lens_and_missing_cameras_are_counted():
    cameras = WORLD.world_from_camera.copy()
    cameras[2] = np.nan
    intrinsics = WORLD.intrinsics * (1.1, 1.1, 1, 1)
    found = compare(replace(PERFECT, world_from_camera=cameras, intrinsics=intrinsics), WORLD.dynamic, TRUTH)
    assert found.focal_error == pytest.approx(0.1)
    assert (found.cameras, found.frames) == (5, 6)


def test_only_the_frames_that_the_capture_used_are_compared():
    odd = slice(1, None, 2)
    part = replace(WORLD, **{name: v[odd] for name, v in vars(WORLD).items() if isinstance(v, np.ndarray)})
    capture = as_capture(part)
    capture = replace(capture, clip=replace(capture.clip, frame_indices=(1, 3, 5)))
    found = compare(capture, part.dynamic, TRUTH)
    assert found.frames == 3
    assert found.depth_abs_rel == pytest.approx(0, abs=1e-6)


def test_a_truth_of_another_clip_is_refused():
    with pytest.raises(UserError, match="same clip"):
        compare(as_capture(room(frames=8)), np.zeros((8, 64, 96), bool), TRUTH)
    with pytest.raises(UserError, match="same clip"):
        compare(as_capture(WORLD, plate_size=(192, 128)), np.zeros((6, 128, 192), bool), TRUTH)


def test_truth_comes_back_from_its_file_to_a_thousandth(tmp_path):
    write_truth(TRUTH, tmp_path / "truth.npz")
    found = read_truth(tmp_path / "truth.npz")
    np.testing.assert_array_equal(found.masks, TRUTH.masks)
    np.testing.assert_array_equal(found.world_from_camera, TRUTH.world_from_camera)
    np.testing.assert_array_equal(found.intrinsics, TRUTH.intrinsics)
    np.testing.assert_allclose(found.depth, TRUTH.depth, rtol=1e-3)


def test_depth_without_a_surface_stays_without_one(tmp_path):
    depth = TRUTH.depth.copy()
    depth[:, 3:5, 7] = 0
    write_truth(replace(TRUTH, depth=depth), tmp_path / "truth.npz")
    found = read_truth(tmp_path / "truth.npz").depth
    np.testing.assert_array_equal(found == 0, depth == 0)


@pytest.mark.parametrize("content", [None, b"no archive", b""], ids=["missing", "text", "empty"])
def test_what_is_no_truth_is_refused_in_one_sentence(tmp_path, content):
    path = tmp_path / "truth.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="ground truth"):
        read_truth(path)


def test_a_capture_folder_and_a_truth_file_give_a_table(tmp_path):
    def masks(capture, folder):
        for i, mask in enumerate(WORLD.dynamic):
            cv2.imwrite(str(folder / f"dynamic_mask_{i:04d}.png"), np.uint8(255) * mask)

    folder = write_capture(PERFECT, tmp_path / "capture", [masks])
    write_truth(TRUTH, tmp_path / "truth.npz")
    assert evaluate(folder, tmp_path / "truth.npz").mask_iou == 1
    assert "Motion mask IoU" in main_evaluate(folder, tmp_path / "truth.npz")
    (folder / "dynamic_mask_0003.png").unlink()
    with pytest.raises(UserError, match=r"dynamic_mask_0003|damaged"):
        evaluate(folder, tmp_path / "truth.npz")
