"""Laws of the alignment loss: nothing to complain of at the truth, and each term as the facts sheet has it."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from backend.align.losses import LossSettings, alignment_loss, ego_flow, smoothness_term
from backend.align.predictions import PairFlows

from .synthetic import room_pairs


def disturbed(state, amount=0.02, seed=3):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(state.depth.shape, generator=generator, dtype=torch.float64)
    poses = state.world_from_camera.clone()
    poses[:, :3, 3] += amount * torch.randn(poses[:, :3, 3].shape, generator=generator, dtype=torch.float64)
    return replace(state, depth=state.depth * torch.exp(amount * noise), world_from_camera=poses)


def test_the_truth_has_no_points_term_and_no_flow_term_where_nothing_moves():
    truth = room_pairs()
    loss = alignment_loss(truth.state, truth.predictions, truth.flows, truth.dynamic)
    assert loss.points < 1e-12
    assert loss.flow < 1e-6  # not 0: the original's 1e-6 in the denominators is kept
    unmasked = alignment_loss(truth.state, truth.predictions, truth.flows)
    assert unmasked.flow > 0.01  # the board moves


def test_the_points_term_is_the_sum_that_the_facts_sheet_writes():
    """Pixel by pixel in NumPy, from nothing but the formula."""
    truth = room_pairs(frame_count=3, width=8, height=4)
    state, p = disturbed(truth.state), truth.predictions
    h, w = 4, 8
    expected = 0.0
    for points, confidence, column in ((p.points_i, p.confidence_i, 0), (p.points_j, p.confidence_j, 1)):
        total = 0.0
        for e, pair in enumerate(p.edges.tolist()):
            t = pair[column]
            for y in range(h):
                for x in range(w):
                    d, f = state.depth[t, y, x].item(), state.focal_px[t].item()
                    camera = np.array([d * (x - w / 2) / f, d * (y - h / 2) / f, d, 1.0])
                    world = (state.world_from_camera[t].numpy() @ camera)[:3]
                    rigid = state.pair_rotation[e].numpy() @ points[e, y, x].numpy() + state.pair_translation[e].numpy()
                    distance = np.linalg.norm(world - state.pair_scale[e].item() * rigid)
                    total += math.log(confidence[e, y, x].item()) * distance
        expected += total / (len(p.edges) * h * w)
    assert alignment_loss(state, p).points.item() == pytest.approx(expected, rel=1e-12)


def test_smoothness_of_a_known_turn_and_step():
    """A turn by a about one axis: ||R - I||_F = sqrt(8) |sin(a/2)|; a step of length 5 weighs translation_weight."""
    angle = 0.3
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[1, :2, :2] = torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    poses[1, :3, 3] = torch.tensor([3.0, 0.0, 4.0])
    expected = math.sqrt(8) * math.sin(angle / 2) + 0.1 * 5
    assert smoothness_term(poses, 0.1).item() == pytest.approx(expected)


def test_ego_flow_of_a_sideways_step():
    """A camera that steps b to the right sees a wall at depth d move by -f b / d."""
    poses = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.5
    focal = torch.tensor([40.0], dtype=torch.float64)
    flow = ego_flow(torch.full((1, 6, 8), 4.0, dtype=torch.float64), poses[:1], poses[1:], focal, focal)
    torch.testing.assert_close(flow[0, 0], torch.full((6, 8), -5.0, dtype=torch.float64), atol=2e-5, rtol=0)
    torch.testing.assert_close(flow[0, 1], torch.zeros(6, 8, dtype=torch.float64), atol=2e-5, rtol=0)


def test_a_flow_term_above_its_threshold_is_nothing_and_outliers_are_left_out():
    truth = room_pairs(board=False)

    def term(pixels_off, settings=LossSettings()):  # noqa: B008
        flows = replace(truth.flows, flow=truth.flows.flow + pixels_off)
        return alignment_loss(truth.state, truth.predictions, flows, settings=settings).flow.item()

    # Smooth L1 of an error of 5 px is 4.5, twice for two directions; of 40 px 39.5; of 60 px 59.5, an outlier.
    assert term(5.0) == pytest.approx(9.0, abs=1e-3)
    assert term(5.0, LossSettings(flow_threshold_px=8)) == 0
    assert term(40.0) == 0
    assert term(40.0, LossSettings(flow_threshold_px=100)) == pytest.approx(79.0, abs=1e-3)
    assert term(60.0, LossSettings(flow_threshold_px=1000)) == 0


def test_flow_per_pair_differs_only_where_pairs_keep_different_numbers_of_pixels():
    truth = room_pairs()
    state, per_pair = disturbed(truth.state), LossSettings(flow_per_pair=True)
    same = torch.zeros_like(truth.dynamic)
    settings = LossSettings(flow_outlier=1e9, flow_threshold_px=1e9)
    a = alignment_loss(state, truth.predictions, truth.flows, same, settings=settings)
    b = alignment_loss(state, truth.predictions, truth.flows, same, settings=replace(per_pair, flow_outlier=1e9))
    assert a.flow.item() == pytest.approx(b.flow.item(), rel=1e-12)
    a = alignment_loss(state, truth.predictions, truth.flows, truth.dynamic)
    b = alignment_loss(state, truth.predictions, truth.flows, truth.dynamic, settings=per_pair)
    assert a.flow.item() != pytest.approx(b.flow.item(), rel=1e-6)


def test_the_depth_term_ignores_the_scale_of_a_frame():
    truth = room_pairs()
    settings = LossSettings(depth_weight=1.0)
    scaled = replace(truth.state, depth=truth.state.depth * 3)
    loss = alignment_loss(scaled, truth.predictions, initial_depth=truth.state.depth, settings=settings)
    assert loss.depth.item() == pytest.approx(0, abs=1e-12)
    loss = alignment_loss(
        disturbed(truth.state, 0.1), truth.predictions, initial_depth=truth.state.depth, settings=settings
    )
    assert loss.depth.item() == pytest.approx(0.01, rel=0.1)  # the variance of the disturbance
    with pytest.raises(ValueError, match="initial_depth"):
        alignment_loss(truth.state, truth.predictions, settings=settings)


@pytest.mark.slow
def test_gradients_are_those_of_the_value():
    truth = room_pairs(frame_count=3, width=8, height=4)
    state = disturbed(truth.state)
    tensors = [getattr(state, f.name).clone().requires_grad_() for f in fields(state)]

    def total(*values):
        new = type(state)(*values)
        settings = LossSettings(flow_weight=1.0, depth_weight=1.0)
        return alignment_loss(
            new, truth.predictions, truth.flows, truth.dynamic, truth.state.depth, settings=settings
        ).total

    assert torch.autograd.gradcheck(total, tensors, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_a_missing_way_back_is_refused():
    truth = room_pairs()
    half = len(truth.flows.edges) // 2
    one_way = PairFlows(truth.flows.edges[:half], truth.flows.flow[:half], truth.flows.valid[:half])
    with pytest.raises(ValueError, match="no flow from frame"):
        alignment_loss(truth.state, truth.predictions, one_way)
