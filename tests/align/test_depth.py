"""Depth of every pixel from all pairs at once, and points that hang in front of what other frames see."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.align.depth import cleaned, fuse, fuse_frame
from backend.align.normal import Noise
from backend.align.predictions import PairFlows, PairPredictions
from tests.pair_oracle import EXACT, Errors

from .by_oracle import predicted, still_room, true_cameras

FRAMES = 6
NOISE = Noise(depth=0.02, place=0.5, flow=0.25, share=0.05)


@pytest.fixture(scope="module")
def world():
    return still_room(FRAMES)


@pytest.fixture(scope="module")
def pairs(world) -> tuple[PairPredictions, PairFlows]:
    """Depth that is off by 5 % from pair to pair, in the world's own scale and cameras."""
    return predicted(world, Errors(scale=0, focal=0, rotation_deg=0, translation=0, smooth_depth=0.05))


def nothing_moves(world) -> torch.Tensor:
    return torch.zeros(world.depth.shape, dtype=torch.bool)


def fused(world, predictions, flows, log_scale=None, frames=range(FRAMES), dynamic=None):
    log_scale = torch.zeros(len(predictions.edges)) if log_scale is None else log_scale
    dynamic = nothing_moves(world) if dynamic is None else dynamic
    return fuse(frames, predictions, flows, dynamic, true_cameras(world), log_scale, NOISE)


def error(depth, world, frames=slice(None)) -> float:
    return float(np.abs(depth.numpy() / world.depth[frames] - 1).mean())


def test_exact_pairs_give_exact_depth(world):
    predictions, flows = predicted(world, EXACT)
    scale = torch.linspace(-1, 1, len(predictions.edges))
    sized = (-scale).exp()[:, None, None, None]
    smaller = replace(
        predictions, points_i=predictions.points_i.float() * sized, points_j=predictions.points_j.float() * sized
    )
    depth, confidence = fused(world, smaller, flows, scale)
    np.testing.assert_allclose(depth, world.depth, rtol=2e-3)
    assert confidence.min() > 5.9  # all pairs agree, so all of the network's confidence of 6 stays


def test_all_pairs_together_are_better_than_any_and_flow_makes_them_better_still(world, pairs):
    predictions, flows = pairs
    single = (
        np.abs(predictions.points_i.float()[..., 2].numpy() / world.depth[predictions.edges[:, 0]] - 1)
        .mean((1, 2))
        .min()
    )
    together = error(fused(world, predictions, None)[0], world)
    with_flow = error(fused(world, predictions, flows)[0], world)
    assert together < 0.75 * single
    assert with_flow < 0.85 * together


def test_flow_of_what_moves_does_not_count(world, pairs):
    predictions, flows = pairs
    dynamic = nothing_moves(world)
    dynamic[:, 10:20, 10:30] = True
    wrong = flows.flow.clone()
    wrong[:, :, 10:20, 10:30] += 8
    spoiled = replace(flows, flow=wrong)
    without, _ = fused(world, predictions, None)
    kept, _ = fused(world, predictions, spoiled, dynamic=dynamic)
    torch.testing.assert_close(kept[dynamic], without[dynamic])


def test_pairs_without_a_scale_do_not_count_and_nothing_is_zero(world, pairs):
    predictions, flows = pairs
    without_2 = torch.zeros(len(predictions.edges))
    without_2[(predictions.edges == 2).any(1)] = torch.nan
    depth, confidence = fused(world, predictions, flows, without_2)
    assert (depth[2] == 0).all()
    assert (confidence[2] == 0).all()
    others = [0, 1, 3, 4, 5]
    assert (depth[others] > 0).all()
    assert error(depth[others], world, others) < 0.02


def test_where_no_pair_says_anything_there_is_nothing(world, pairs):
    predictions, flows = pairs
    predictions = replace(
        predictions,
        points_i=predictions.points_i.clone(),
        points_j=predictions.points_j.clone(),
        confidence_i=predictions.confidence_i.clone(),
        confidence_j=predictions.confidence_j.clone(),
    )
    predictions.points_i[:, :4, :, 2] = -1.0  # behind the camera
    predictions.points_j[:, :4] = torch.nan
    predictions.confidence_i[:, 4:8] = 1.0  # not sure of anything
    predictions.confidence_j[:, 4:8] = torch.nan
    depth, confidence = fused(world, predictions, flows)
    assert (depth[:, :8] == 0).all()
    assert (confidence[:, :8] == 0).all()
    assert (depth[:, 8:] > 0).all()
    assert depth.isfinite().all()


def test_one_pair_that_is_far_off_neither_moves_depth_nor_adds_confidence(world):
    predictions, _ = predicted(world, EXACT)
    wrong = replace(predictions, points_i=predictions.points_i.clone())
    mine = torch.nonzero(predictions.edges[:, 0] == 2)[:, 0]
    wrong.points_i[mine[0]] *= 1.5
    cameras, still = true_cameras(world), torch.ones(32, 48, dtype=torch.bool)
    scales = torch.zeros(len(predictions.edges))
    depth, confidence = fuse_frame(2, wrong, None, still, cameras, scales, NOISE)
    np.testing.assert_allclose(depth, world.depth[2], rtol=0.01)
    views = int((predictions.edges == 2).sum())
    np.testing.assert_allclose(confidence, 1 + 5 * (views - 1) / views, rtol=0.02)


def test_some_frames_alone_are_the_same_as_with_all_others(world, pairs):
    depth, confidence = fused(world, *pairs)
    some = fused(world, *pairs, frames=[4, 1])
    torch.testing.assert_close(some[0], depth[[4, 1]])
    torch.testing.assert_close(some[1], confidence[[4, 1]])


EDGES = torch.tensor([(i, j) for i in range(FRAMES) for j in range(FRAMES) if i != j])


def floating(world):
    """True depth, and a patch of frame 3 at half of it, of which that frame is less sure."""
    depth = torch.from_numpy(world.depth.copy())
    confidence = torch.full(depth.shape, 5.0)
    patch = torch.zeros(depth.shape, dtype=torch.bool)
    patch[3, 12:16, 20:26] = True
    depth[patch] *= 0.5
    confidence[patch] = 2.0
    return depth, confidence, patch


def test_a_point_that_hangs_in_front_loses_its_confidence_and_no_other_does(world):
    depth, confidence, patch = floating(world)
    kept = cleaned(depth, confidence, nothing_moves(world), true_cameras(world), EDGES)
    assert (kept[patch] == 1).all()
    torch.testing.assert_close(kept[~patch], confidence[~patch])
    assert (confidence[patch] == 2).all()  # what is given stays as it is


def test_what_moves_may_hang_in_front_and_so_may_what_is_surer(world):
    depth, confidence, patch = floating(world)
    moving = patch.clone()
    torch.testing.assert_close(cleaned(depth, confidence, moving, true_cameras(world), EDGES), confidence)
    confidence[patch] = 9.0
    torch.testing.assert_close(cleaned(depth, confidence, nothing_moves(world), true_cameras(world), EDGES), confidence)


def test_frames_without_a_camera_and_frames_that_share_no_pair_are_not_asked(world):
    depth, confidence, _ = floating(world)
    cameras = true_cameras(world)
    apart = EDGES[(EDGES != 3).all(1)]
    torch.testing.assert_close(cleaned(depth, confidence, nothing_moves(world), cameras, apart), confidence)
    cameras.camera_from_world[3] = torch.nan
    torch.testing.assert_close(cleaned(depth, confidence, nothing_moves(world), cameras, EDGES), confidence)


def test_progress_may_stop_both(world, pairs):
    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    cameras, still = true_cameras(world), nothing_moves(world)
    with pytest.raises(Stop):
        fuse(range(FRAMES), *pairs, still, cameras, torch.zeros(len(pairs[0].edges)), NOISE, stop)
    depth, confidence, _ = floating(world)
    with pytest.raises(Stop):
        cleaned(depth, confidence, still, cameras, EDGES, stop)
