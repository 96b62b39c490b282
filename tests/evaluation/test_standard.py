"""A capture against plain truth: perfect ones have no error, known errors come out, what was not given is NaN."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.__main__ import main
from backend.evaluate import main_evaluate
from backend.evaluation.files import Pictures
from backend.evaluation.standard import Given, given_by, given_in, sampled_depth, standard_figures
from backend.export.trajectory import continuous_quaternions
from backend.geometry.rigid import Similarity
from backend.truth import Truth, write_truth
from backend.wire import UserError, write_capture
from tests.worlds import as_capture, room

WORLD = room(frames=6, width=96, height=64)
PERFECT = as_capture(WORLD)
GIVEN = Given(
    poses=WORLD.world_from_camera,
    depth=Pictures(lambda k: WORLD.depth[k], 6),
    masks=Pictures(lambda k: WORLD.dynamic[k], 6),
)
ALIGNED = ["median scale", "scale, least absolute", "scale and shift, least squares", "scale and shift, least absolute"]


def test_a_perfect_capture_has_no_error():
    found = standard_figures(PERFECT, WORLD.dynamic, GIVEN)
    assert (found.path.ate, found.path.rpe, found.path.rpe_deg) == pytest.approx((0, 0, 0), abs=1e-5)
    assert list(found.depth) == [*ALIGNED, "none"]
    for error in found.depth.values():
        assert error.abs_rel == pytest.approx(0, abs=1e-6)
        assert error.delta_125 == 1
    assert (found.seen, found.mask_iou, found.mask_frames) == (1, 1, 1)


def test_another_world_and_scale_is_no_error_but_without_alignment():
    other = Similarity(0.2, Rotation.from_rotvec([0.3, -2, 0.5]).as_matrix(), np.ones(3))
    cameras = other.apply_to_poses(WORLD.world_from_camera)
    moved = replace(PERFECT, metric=False, world_from_camera=cameras, depth=0.2 * WORLD.depth)
    found = standard_figures(moved, WORLD.dynamic, GIVEN)
    assert found.path.ate == pytest.approx(0, abs=1e-9)
    assert list(found.depth) == ALIGNED  # a capture of no known scale has no figure without alignment
    assert found.depth["median scale"].abs_rel == pytest.approx(0, abs=1e-6)
    claims = standard_figures(replace(moved, metric=True), WORLD.dynamic, GIVEN)
    assert claims.depth["none"].abs_rel == pytest.approx(0.8, abs=1e-6)


def test_only_true_depth_below_the_limit_that_was_found_counts():
    depth = WORLD.depth.copy()
    depth[WORLD.depth >= 4] *= 3
    depth[:, :8] = 0  # not found
    found = standard_figures(replace(PERFECT, depth=depth), None, replace(GIVEN, masks=None), max_depth=4)
    assert found.depth["none"].abs_rel == pytest.approx(0, abs=1e-6)
    near = WORLD.depth < 4
    assert found.seen == pytest.approx(near[:, 8:].sum() / near.sum())


def test_a_plate_larger_than_the_grid_and_truth_of_another_size_are_brought_together():
    """The capture has half of the plate's resolution, the truth the plate's; planes come out exactly between pixels."""
    capture = as_capture(WORLD, plate_size=(192, 128))
    large = room(frames=6, width=192, height=128)
    masks = large.dynamic
    given = replace(GIVEN, depth=Pictures(lambda k: large.depth[k], 6), masks=Pictures(lambda k: masks[k], 6))
    found = standard_figures(capture, masks, given)
    assert found.depth["none"].abs_rel < 0.01
    assert found.depth["none"].delta_125 > 0.98
    assert found.mask_iou == 1
    half = standard_figures(capture, masks, replace(given, masks=Pictures(lambda k: masks[k, ::2, ::2], 6)))
    assert half.mask_iou > 0.8


def test_depth_is_not_mixed_with_unknown_depth():
    depth = np.full((12, 12), 3.0)
    depth[5, 5] = 0
    y, x = np.mgrid[0.25:12:0.25, 0.25:12:0.25]
    found = sampled_depth(depth, np.stack([x, y], axis=-1))
    assert set(np.unique(found.round(5))) == {0.0, 3.0}
    assert 0 < (found == 0).mean() < 3 / 144
    assert sampled_depth(depth, np.array([[[-0.1, 3.0], [3.0, 12.1]]])).tolist() == [[0, 0]]


def test_masks_by_pixel_and_by_frame():
    masks = WORLD.dynamic.copy()
    masks[3] = False
    found = standard_figures(PERFECT, masks, GIVEN)
    assert found.mask_frames == pytest.approx(5 / 6)
    assert found.mask_iou == pytest.approx(masks.sum() / WORLD.dynamic.sum())
    still = standard_figures(PERFECT, masks & False, replace(GIVEN, masks=Pictures(lambda k: masks[3], 6)))
    assert still.mask_iou == 1
    assert np.isnan(still.mask_frames)


def test_what_was_not_given_is_nan():
    found = standard_figures(PERFECT, None, Given(poses=WORLD.world_from_camera))
    assert found.path.ate == pytest.approx(0, abs=1e-9)
    assert all(np.isnan(error.abs_rel) for error in found.depth.values())
    assert np.isnan([found.seen, found.mask_iou, found.mask_frames]).all()
    assert np.isnan(standard_figures(PERFECT, None, replace(GIVEN, poses=None, masks=None)).path.ate)


def test_a_capture_with_distortion_has_no_pixels_to_compare():
    bent = replace(PERFECT, clip=replace(PERFECT.clip, k1=0.1))
    with pytest.raises(UserError, match="distortion"):
        standard_figures(bent, WORLD.dynamic, GIVEN)
    assert standard_figures(bent, None, Given(poses=WORLD.world_from_camera)).path.compared == 6


@pytest.fixture
def on_disk(tmp_path):
    """A capture's folder and a folder of plain truth."""

    def masks(capture, folder):
        for i, mask in enumerate(WORLD.dynamic):
            cv2.imwrite(str(folder / f"dynamic_mask_{i:04d}.png"), np.uint8(255) * mask)

    truth = tmp_path / "truth"
    (truth / "masks").mkdir(parents=True)
    masks(None, truth / "masks")
    poses = WORLD.world_from_camera
    rows = np.column_stack([np.arange(6), poses[:, :3, 3], continuous_quaternions(poses[:, :3, :3])])
    np.savetxt(truth / "poses.txt", rows)
    np.save(truth / "depth.npy", WORLD.depth)
    return write_capture(PERFECT, tmp_path / "capture", [masks]), truth


def test_the_command_prints_one_table_from_a_folder_or_from_single_files(on_disk, capsys):
    capture, truth = on_disk
    assert main(["evaluate", str(capture), str(truth)]) == 0
    whole = capsys.readouterr().out
    assert "by order" in whole
    assert "nan" not in whole
    parts = [f"--{name}={truth / file}" for name, file in (("poses", "poses.txt"), ("depth", "depth.npy"))]
    assert main(["evaluate", str(capture), *parts, f"--masks={truth / 'masks'}"]) == 0
    assert capsys.readouterr().out == whole
    assert main(["evaluate", str(capture), parts[1], "--max-depth", "4"]) == 0
    out = capsys.readouterr().out
    assert "up to 4" in out
    assert "nan" in out


def test_a_truth_of_ours_gives_both_kinds_of_figures(on_disk):
    capture, truth = on_disk
    exact = Truth.from_plates(WORLD.world_from_camera, WORLD.intrinsics, WORLD.depth, WORLD.dynamic, step=2)
    found = standard_figures(PERFECT, WORLD.dynamic, given_by(exact, PERFECT))
    assert found.depth["none"].abs_rel == pytest.approx(0, abs=1e-6)
    write_truth(exact, truth / "truth.npz")
    table = main_evaluate(capture, truth)
    assert table == main_evaluate(capture, truth / "truth.npz")
    assert "Motion mask IoU" in table
    assert "Camera path ATE, after Sim(3)" in table
    with pytest.raises(UserError, match="one or the other"):
        main_evaluate(capture, truth / "truth.npz", poses=truth / "poses.txt")


def test_no_truth_is_no_evaluation(on_disk, tmp_path):
    capture, _ = on_disk
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no ground truth"):
        main_evaluate(capture, tmp_path / "empty")
    with pytest.raises(UserError, match="no ground truth"):
        main_evaluate(capture, tmp_path / "nowhere")
    with pytest.raises(UserError, match="No ground truth was given"):
        given_in(PERFECT)
