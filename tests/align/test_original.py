"""The original's method recovers synthetic truth, keeps its quirks, and flags what the original hides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.align.losses import AlignmentState, LossSettings, camera_points
from backend.align.original import OriginalSettings, align_as_original, clean_confidence
from backend.align.original_motion import MOTION_THRESHOLD, motion_error, solve_pairs
from backend.align.original_start import spanning_tree_start
from backend.align.original_views import frame_confidence, pose_from_points, weiszfeld_focal
from backend.align.predictions import PairFlows, PairPredictions
from backend.geometry.rigid import rotation_angles_deg, similarity_between
from backend.run import Run
from backend.wire import Cancelled, UserError

from .synthetic import room_pairs


def part(predictions, kept):
    return PairPredictions(
        predictions.edges[kept],
        predictions.points_i[kept],
        predictions.points_j[kept],
        predictions.confidence_i[kept],
        predictions.confidence_j[kept],
    )


def camera_errors(poses, truth):
    """RMS distance of the positions after alignment, and the largest angle between the rotations in degrees."""
    poses, truth = poses.double().numpy(), truth.double().numpy()
    to_truth = similarity_between(poses[:, :3, 3], truth[:, :3, 3])
    moved = to_truth.apply_to_poses(poses)
    turns = np.swapaxes(moved[:, :3, :3], 1, 2) @ truth[:, :3, :3]
    return np.sqrt(((moved - truth)[:, :3, 3] ** 2).sum(1).mean()), rotation_angles_deg(turns).max()


def test_weiszfeld_finds_the_focal_length_and_is_not_moved_by_some_wrong_points():
    truth = room_pairs(focal_px=37.0)
    points = truth.predictions.points_i.clone()
    torch.testing.assert_close(weiszfeld_focal(points), torch.full((len(points),), 37.0, dtype=torch.float64))
    points[:, :4] *= torch.tensor([3.0, 3.0, 1.0])  # an eighth of the picture is wrong
    points[:, 5, 5, 2] = 0.0  # not finite after division
    torch.testing.assert_close(
        weiszfeld_focal(points), torch.full((len(points),), 37.0, dtype=torch.float64), rtol=0.02, atol=0
    )


def test_pnp_finds_the_camera_that_sees_points_at_their_pixels():
    truth = room_pairs(board=False)
    e = 2
    i, j = truth.predictions.edges[e].tolist()
    everywhere = torch.ones(32, 48, dtype=torch.bool)
    pose = pose_from_points(truth.predictions.points_j[e], 44.0, everywhere, 100)
    relative = torch.linalg.inv(truth.state.world_from_camera[i]) @ truth.state.world_from_camera[j]
    relative[:3, 3] /= truth.state.pair_scale[e]
    torch.testing.assert_close(pose, relative.float(), atol=1e-4, rtol=0)


def test_pnp_says_so_when_it_finds_none():
    points = torch.randn(8, 8, 3)
    assert pose_from_points(points, 44.0, torch.zeros(8, 8, dtype=torch.bool), 10) is None
    assert pose_from_points(points, float("nan"), torch.ones(8, 8, dtype=torch.bool), 10) is None


def test_pairs_are_solved_up_to_their_own_scale_and_only_the_board_moves():
    truth = room_pairs(frame_count=6)
    pairs = solve_pairs(truth.predictions)
    assert not pairs.failed.any()
    relative = torch.linalg.inv(pairs.world_from_i) @ pairs.world_from_j
    cameras = truth.state.world_from_camera
    expected = torch.linalg.inv(cameras[pairs.edges[:, 0]]) @ cameras[pairs.edges[:, 1]]
    turns = relative[:, :3, :3].mT @ expected[:, :3, :3]
    assert rotation_angles_deg(turns.numpy()).max() < 0.2
    error = motion_error(truth.predictions, truth.flows, pairs=pairs)
    found = error > MOTION_THRESHOLD
    assert (found & truth.dynamic).sum() > 0.9 * truth.dynamic.sum()
    assert (found & ~truth.dynamic).sum() < 0.05 * truth.dynamic.sum()


def test_the_motion_error_of_a_frame_is_the_one_that_was_recorded():
    """Frame 0 of the recorded clip, all of whose pairs are in the subset."""
    place = Path(__file__).parent.parent / "fixtures" / "monst3r" / "ga"
    with np.load(place / "pairs.npz") as p, np.load(place / "scene.npz") as s, np.load(place / "flow.npz") as f:
        arrays = (torch.from_numpy(p[name]) for name in ("pred_i", "pred_j", "conf_i", "conf_j"))
        predictions = PairPredictions(torch.from_numpy(s["edges"]).long(), *arrays)
        flow = torch.from_numpy(f["flow"])
    flows = PairFlows(predictions.edges, flow, torch.ones(len(flow), *flow.shape[2:], dtype=torch.bool))
    recorded = np.load(place / "motion_error_frame_0.npy")
    error = motion_error(predictions, flows)[0].numpy()
    np.testing.assert_allclose(error, recorded, atol=1e-4)
    assert ((error > MOTION_THRESHOLD) == (recorded > MOTION_THRESHOLD)).all()


def test_motion_needs_pairs_both_ways():
    truth = room_pairs()
    with pytest.raises(ValueError, match="both ways"):
        solve_pairs(part(truth.predictions, slice(0, len(truth.predictions.edges) // 2)))


@pytest.mark.parametrize("graph", ["swinstride-5-noncyclic", "complete", "swin-2-noncyclic"])
def test_the_start_is_the_truth_when_pairs_are_exact(graph):
    truth = room_pairs(graph=graph, board=False)
    start = spanning_tree_start(truth.predictions)
    assert start.guessed == ()
    # A pair's pose may come from PnP, whose RANSAC is single precision.
    distance, angle = camera_errors(start.state.world_from_camera, truth.state.world_from_camera)
    assert distance < 2e-3
    assert angle < 0.1
    np.testing.assert_allclose(start.own_focal_px, 44.0, rtol=1e-6)
    ratio = (start.state.depth / truth.state.depth).median()
    torch.testing.assert_close(start.state.depth / ratio, truth.state.depth, rtol=5e-3, atol=0)


def test_the_mean_log_scale_of_the_pairs_is_that_of_one_half():
    start = spanning_tree_start(room_pairs().predictions)
    assert start.state.pair_scale.log().mean().exp().item() == pytest.approx(0.5)


def test_frames_that_nothing_connects_are_refused():
    truth = room_pairs(frame_count=4, graph="complete")
    i, j = truth.predictions.edges.unbind(1)
    apart = (i < 2) == (j < 2)
    with pytest.raises(UserError, match="not connected"):
        spanning_tree_start(part(truth.predictions, apart))


def test_cameras_that_are_only_guessed_are_named():
    """A star around frame 0, stronger outwards: no registration starts at the others, and no pixel is sure enough
    (3) for PnP. The original leaves such cameras at the identity and says nothing."""
    outwards = part(room_pairs(frame_count=4, graph="oneref-0").predictions, [1, 2, 3])
    sure = torch.full((6, 32, 48), 2.5, dtype=torch.float64)
    sure[3:] = 2.0
    star = PairPredictions(
        torch.cat([outwards.edges, outwards.edges.flip(1)]),
        torch.cat([outwards.points_i, outwards.points_j]),
        torch.cat([outwards.points_j, outwards.points_i]),
        sure,
        sure,
    )
    start = spanning_tree_start(star)
    assert start.guessed == (1, 2, 3)
    torch.testing.assert_close(start.state.world_from_camera, torch.eye(4, dtype=torch.float64).repeat(4, 1, 1))


def test_adam_lowers_the_loss_on_its_schedule_and_the_root_stays_at_the_origin():
    truth = room_pairs()
    noise = 1 + 0.02 * torch.randn(truth.predictions.points_i.shape[:3], generator=torch.Generator().manual_seed(1))
    noisy = replace(
        truth.predictions,
        points_i=truth.predictions.points_i * noise[..., None],
        points_j=truth.predictions.points_j * noise.flip(0)[..., None],
    ).to(torch.float32)
    result = align_as_original(noisy, truth.flows, OriginalSettings(iterations=20))
    assert result.loss_curve[-1, 0] < 0.95 * result.loss_curve[0, 0]
    np.testing.assert_allclose(result.loss_curve[:, 2], 0.01 - 0.009 * np.arange(20) / 20)
    assert (result.loss_curve[:2, 1] == 0).all()  # flow from 10 % on
    assert (result.loss_curve[2:, 1] > 0).all()
    root = (result.start.state.world_from_camera[:, :3, 3] == 0).all(1)
    assert root.sum() == 1
    assert (result.state.world_from_camera[root, :3, 3] == 0).all()
    assert (result.state.focal_px == result.state.focal_px[0]).all()


def test_without_flow_there_is_no_mask_and_lenses_may_differ():
    truth = room_pairs(board=False)
    settings = OriginalSettings(iterations=3, shared_focal=False, loss=LossSettings(smooth_weight=0.0))
    result = align_as_original(truth.predictions.to(torch.float16), settings=settings)
    assert result.state.depth.dtype == torch.float32
    assert not result.dynamic.any()
    assert result.state.focal_px.unique().numel() > 1
    assert (result.loss_curve[:, 1] == 0).all()


def test_alignment_stops_when_it_is_cancelled():
    with pytest.raises(Cancelled):
        align_as_original(room_pairs().predictions, run=Run(is_cancelled=lambda: True))


def test_cleaning_takes_what_hangs_before_a_surer_surface_and_nothing_else():
    truth = room_pairs(frame_count=3, board=False)
    depth, confidence = truth.state.depth.clone(), torch.full((3, 32, 48), 5.0, dtype=torch.float64)
    depth[1, 10:14, 20:24] *= 0.5
    state = AlignmentState(**{**vars(truth.state), "depth": depth})
    assert (clean_confidence(state, confidence) == confidence).sum() > 0.9 * confidence.numel()
    confidence[1, 10:14, 20:24] = 2.0
    cleaned = clean_confidence(state, confidence)
    assert (cleaned[1, 10:14, 20:24] == 0).all()
    assert camera_points(depth, truth.state.focal_px).isfinite().all()


def test_a_frames_confidence_is_the_largest_that_any_pair_gives():
    p = room_pairs(frame_count=3).predictions
    best = frame_confidence(p, 3)
    for t in range(3):
        given = torch.cat([p.confidence_i[p.edges[:, 0] == t], p.confidence_j[p.edges[:, 1] == t]])
        assert torch.equal(best[t], given.amax(0))
