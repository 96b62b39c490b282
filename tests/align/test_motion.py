"""What moves by itself: found where flow breaks the camera's motion, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.align.graph import make_pairs
from backend.align.motion import Cameras, ego_flow, look_up, motion_scores, static_noise, unexplained
from tests.pair_oracle import EXACT, Errors, FlowOracle
from tests.worlds import hand_held_room, large_mover, locked_off

from .by_oracle import GRAPH, overlap, still_room, true_cameras

FRAMES = 8


NOISY = Errors()


def flows_of(world, errors=NOISY):
    return FlowOracle(world, errors).predict(make_pairs(GRAPH, len(world.depth)))


def scores_of(world, flows=None, **options) -> torch.Tensor:
    """With the world's own cameras and depth."""
    depth = torch.from_numpy(world.depth.copy())
    return motion_scores(flows or flows_of(world), depth, true_cameras(world), **options)


@pytest.fixture(scope="module")
def room():
    return hand_held_room(FRAMES, 48, 32)


@pytest.fixture(scope="module")
def flows(room):
    return flows_of(room)


def test_the_flow_of_a_static_world_is_its_cameras(room):
    world = still_room(4)
    flows = flows_of(world, EXACT)
    explained, _, z = ego_flow(torch.from_numpy(world.depth), true_cameras(world), flows.edges)
    off = (explained - flows.flow.float().movedim(1, -1)).norm(dim=-1)
    assert off.max() < 0.02  # of half precision
    assert (z > 0).all()


def test_the_derivative_by_depth_is_that_of_the_flow():
    world = still_room(4)
    cameras, depth = true_cameras(world), torch.from_numpy(world.depth)
    edges = torch.tensor([[0, 3], [3, 1]])
    ahead, behind = (ego_flow(depth * np.exp(step), cameras, edges)[0] for step in (0.01, -0.01))
    torch.testing.assert_close(ego_flow(depth, cameras, edges)[1], (ahead - behind) / 0.02, atol=2e-3, rtol=1e-2)


def test_the_distance_is_in_standard_deviations_of_flow_and_depth():
    """A miss along the epipolar line may be the depth's, one across it may not."""
    miss = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 1, 2, 2)
    by_depth = torch.tensor([10.0, 0.0]).expand(1, 1, 2, 2)
    found = unexplained(miss, torch.zeros_like(miss), by_depth, torch.tensor([0.5]), 0.2)
    covariance = 0.5**2 * torch.eye(2) + 0.2**2 * torch.outer(by_depth[0, 0, 0], by_depth[0, 0, 0])
    expected = [(m @ torch.linalg.inv(covariance) @ m).sqrt() for m in miss[0, 0]]
    torch.testing.assert_close(found[0, 0], torch.stack(expected))
    assert found[0, 0, 1] == pytest.approx(2.0)


def test_the_mover_is_found(room, flows):
    scores = scores_of(room, flows)
    assert overlap(scores > 1, room.dynamic) > 0.85
    for n in range(FRAMES):  # in each frame
        assert overlap(scores[n] > 1, room.dynamic[n]) > 0.7
    assert scores.min() >= 0
    assert scores.max() <= 2


def test_in_a_static_world_nothing_is():
    assert (scores_of(still_room(FRAMES)) > 1).float().mean() < 0.001


def test_before_a_camera_that_stands_still_movers_are_found_too():
    world = locked_off(6, 48, 32)
    assert overlap(scores_of(world) > 1, world.dynamic) > 0.85


def test_a_mover_over_more_than_half_of_the_picture_is_the_mover():
    """Here the median of all flow is the mover's own."""
    world = large_mover(6, 48, 32)
    assert world.dynamic.mean() > 0.4
    crop = slice(None), slice(6, 32), slice(4, 44)
    assert world.dynamic[crop].mean() > 0.55
    flows = flows_of(world)
    hidden = torch.ones_like(flows.valid)
    hidden[crop] = False
    scores = scores_of(world, replace(flows, valid=flows.valid & ~hidden))
    assert overlap((scores > 1).numpy()[crop], world.dynamic[crop]) > 0.85


@pytest.mark.parametrize("crazy", [1e4, -300.0])
def test_one_crazy_pixel_in_each_pair_hides_nothing(room, flows, crazy):
    spoiled = flows.flow.clone()
    spoiled[:, :, 3, 5] = crazy
    scores = scores_of(room, replace(flows, flow=spoiled))
    assert overlap(scores > 1, room.dynamic) > 0.85


def test_flow_that_is_not_valid_says_nothing(room, flows):
    spoiled, valid = flows.flow.clone(), flows.valid.clone()
    spoiled[:, :, :, :10] = 99.0
    valid[:, :, :10] = False
    scores = scores_of(room, replace(flows, flow=spoiled, valid=valid))
    assert (scores[:, :, :10] == 0).all()
    assert overlap((scores > 1)[:, :, 10:], room.dynamic[:, :, 10:]) > 0.85


def test_a_pixel_without_depth_and_a_frame_without_a_camera_say_nothing(room, flows):
    cameras, depth = true_cameras(room), torch.from_numpy(room.depth.copy())
    cameras.camera_from_world[3] = torch.nan
    depth[5, :8] = 0
    near_alone = flows.rows(torch.nonzero((flows.edges[:, 0] - flows.edges[:, 1]).abs() > 10)[:, 0])
    assert len(near_alone.edges) == 0
    assert (motion_scores(near_alone, depth, cameras) == 0).all()  # and without pairs nothing moves
    scores = motion_scores(flows, depth, cameras)
    assert scores.isfinite().all()
    others = [0, 1, 2, 4, 6, 7]
    assert overlap((scores > 1)[others], room.dynamic[others]) > 0.8
    assert (scores[3] > 1).float().mean() < room.dynamic[3].mean() + 0.05  # what its neighbours tell, no more


def test_noise_of_flow_widens_what_is_allowed():
    """Flow five times as noisy: still next to nothing false in a static world."""
    noisy = flows_of(still_room(6), Errors(flow_px=1.5))
    assert (scores_of(still_room(6), noisy) > 1).float().mean() < 0.01


def test_the_noise_of_a_pair_is_that_of_its_static_part():
    generator = torch.Generator().manual_seed(0)
    flow = 0.7 * torch.randn(1, 200, 200, 2, generator=generator)
    nothing = torch.zeros_like(flow)
    everywhere = torch.ones(1, 200, 200, dtype=torch.bool)
    assert static_noise(flow, nothing, nothing, everywhere, 0.01).item() == pytest.approx(0.7, rel=0.05)
    flow[:, :90] += 30  # 45 % of the picture moves
    assert static_noise(flow, nothing, nothing, everywhere, 0.01).item() < 1.6 * 0.7
    assert static_noise(flow, nothing, nothing, everywhere, 5.0).item() == 5.0
    assert static_noise(flow, nothing, nothing, ~everywhere, 0.5).item() == 0.5


def test_looking_up_along_the_flow():
    x = torch.arange(48.0).expand(1, 32, 48)
    flow = torch.zeros(1, 32, 48, 2)
    flow[..., 0] = 2.5
    torch.testing.assert_close(look_up(x, flow)[:, :, :45], x[:, :, :45] + 2.5)
    assert (look_up(x, flow)[:, :, 46:] == 47).all()  # the border, beyond it


def test_parts_of_pairs_make_no_difference_and_progress_may_stop(room, flows):
    told = []
    together = scores_of(room, flows, chunk=1000, progress=told.append)
    torch.testing.assert_close(scores_of(room, flows, chunk=3), together, atol=1e-5, rtol=1e-5)
    assert told == sorted(told)

    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        scores_of(room, flows, progress=stop)


def test_relative_motion_of_cameras():
    poses = torch.linalg.inv(torch.from_numpy(still_room(3).world_from_camera))
    rotation, shift = Cameras(poses, torch.ones(3)).between(torch.tensor([0]), torch.tensor([2]))
    expected = (poses[2] @ torch.linalg.inv(poses[0])).float()
    torch.testing.assert_close(rotation[0], expected[:3, :3])
    torch.testing.assert_close(shift[0], expected[:3, 3])
