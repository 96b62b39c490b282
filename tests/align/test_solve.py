"""The solver: from a rough state to the truth, what is known kept as it is, and frames that do not fit told apart."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.align.sampled import sample, sample_pixels
from backend.align.solve import good_pairs, placed_frames, solve, with_knowns
from backend.align.start import State, start
from backend.align.unknowns import NOTHING_KNOWN, Knowns, motion
from backend.geometry.rigid import rotation_angles_deg
from backend.geometry.trajectory import align_trajectories

from .synthetic import room_pairs

FRAMES = 6


@pytest.fixture(scope="module")
def room():
    return room_pairs(frame_count=FRAMES, board=False)


@pytest.fixture(scope="module")
def sampled(room):
    return sample(room.predictions, room.flows, sample_pixels((48, 32), 60))


def true_state(room, sampled) -> State:
    x, y = sampled.uv.long().T
    return State(
        torch.linalg.inv(room.state.world_from_camera),
        room.state.pair_scale.log(),
        room.state.focal_px.log(),
        room.state.depth[:, y, x].log().float(),
    )


def disturbed(state: State, size: float = 0.03) -> State:
    generator = torch.Generator().manual_seed(3)

    def off(like: torch.Tensor) -> torch.Tensor:
        return size * torch.randn(like.shape, generator=generator, dtype=torch.float64)

    return State(
        motion(off(torch.zeros(FRAMES, 6))) @ state.camera_from_world,
        state.log_scale + off(state.log_scale),
        (state.log_focal + off(torch.zeros(1))).expand(FRAMES).clone(),
        (state.log_depth + off(state.log_depth)).float(),
    )


def camera_errors(state: State, room, with_scale: bool = True) -> tuple[float, float]:
    """Largest distance of a camera, after alignment, and largest angle in degrees."""
    truth = room.state.world_from_camera.numpy()
    cameras = np.linalg.inv(state.camera_from_world.numpy())
    moved = align_trajectories(cameras, truth, with_scale).apply_to_poses(cameras)
    turn = np.swapaxes(moved[:, :3, :3], 1, 2) @ truth[:, :3, :3]
    return np.linalg.norm((moved - truth)[:, :3, 3], axis=1).max(), rotation_angles_deg(turn).max()


@pytest.mark.parametrize("with_flow", [True, False])
def test_a_disturbed_state_comes_back_to_the_truth(room, sampled, with_flow):
    rough = disturbed(true_state(room, sampled))
    assert camera_errors(rough, room)[0] > 0.02
    solved = solve(sampled if with_flow else sampled.without_flow(), rough)
    distance, angle = camera_errors(solved.state, room)
    assert distance < 1e-3  # of a path of 0.9
    assert angle < 0.03
    torch.testing.assert_close(solved.state.log_focal.exp(), room.state.focal_px, rtol=1e-3, atol=0)
    off = solved.state.log_depth - true_state(room, sampled).log_depth
    assert (off - off.median()).abs().max() < 2e-3
    assert solved.steps < 36


def test_wild_pixels_do_not_bend_the_cameras(room, sampled):
    wild = replace(sampled, points_j=sampled.points_j.clone(), flow=sampled.flow.clone())
    generator = torch.Generator().manual_seed(0)
    hit = torch.rand(wild.weight_j.shape, generator=generator) < 0.15
    wild.points_j[hit] *= 1 + torch.rand(int(hit.sum()), 1, generator=generator)
    hit = torch.rand(wild.weight_j.shape, generator=generator) < 0.15
    wild.flow[hit] += 10 * torch.randn(int(hit.sum()), 2, generator=generator)
    solved = solve(wild, with_knowns(start(wild, FRAMES), NOTHING_KNOWN))
    distance, angle = camera_errors(solved.state, room)
    assert distance < 5e-3
    assert angle < 0.1


def test_flow_makes_the_cameras_more_precise_than_point_maps_alone(room, sampled):
    generator = torch.Generator().manual_seed(0)
    noisy = replace(
        sampled, points_j=sampled.points_j * (1 + 0.03 * torch.randn(sampled.points_j.shape, generator=generator))
    )
    first = with_knowns(start(noisy, FRAMES), NOTHING_KNOWN)
    without, with_it = (solve(s, first).state for s in (noisy.without_flow(), noisy))
    assert camera_errors(with_it, room)[0] < 0.5 * camera_errors(without, room)[0]


def test_the_first_camera_met_most_is_the_origin_and_stays(room, sampled):
    rough = disturbed(true_state(room, sampled))
    solved = solve(sampled, rough)
    kept = (solved.state.camera_from_world == rough.camera_from_world).all(-1).all(-1)
    assert kept.sum() == 1


def test_a_known_focal_length_is_kept_to_the_bit(room, sampled):
    knowns = Knowns(focal_px=torch.linspace(40, 50, FRAMES, dtype=torch.float64))  # even where it is wrong
    solved = solve(sampled, with_knowns(start(sampled, FRAMES), knowns), knowns)
    assert torch.equal(solved.state.log_focal, knowns.focal_px.log())


def test_known_poses_are_kept_to_the_bit_and_give_the_others_place_and_scale(room, sampled):
    given = torch.linalg.inv(room.state.world_from_camera)
    given[:, :3, 3] *= 10  # decimetres: the scale is the user's
    knowns = Knowns(camera_from_world=given.clone())
    knowns.camera_from_world[[1, 4, 5]] = torch.nan
    solved = solve(sampled, with_knowns(start(sampled, FRAMES), knowns), knowns)
    assert torch.equal(solved.state.camera_from_world[[0, 2, 3]], given[[0, 2, 3]])
    torch.testing.assert_close(solved.state.camera_from_world, given, atol=5e-3, rtol=0)
    x, y = sampled.uv.long().T
    torch.testing.assert_close(solved.state.log_depth.exp(), 10 * room.state.depth[:, y, x].float(), rtol=2e-3, atol=0)


def test_one_known_pose_is_the_place_of_the_world(room, sampled):
    given = torch.full((FRAMES, 4, 4), torch.nan, dtype=torch.float64)
    given[4] = motion(torch.tensor([1.0, 2, 3, 0.1, 0.2, 0.3], dtype=torch.float64))
    knowns = Knowns(camera_from_world=given)
    solved = solve(sampled, with_knowns(start(sampled, FRAMES), knowns), knowns)
    assert torch.equal(solved.state.camera_from_world[4], given[4])
    assert camera_errors(solved.state, room)[0] < 1e-3


def test_poses_of_which_none_is_of_these_frames_leave_the_first_as_the_origin(room, sampled):
    knowns = Knowns(camera_from_world=torch.full((FRAMES, 4, 4), torch.nan, dtype=torch.float64))
    first = with_knowns(start(sampled, FRAMES), knowns)
    found, plain = solve(sampled, first, knowns), solve(sampled, first)
    assert torch.equal(found.state.camera_from_world, plain.state.camera_from_world)


def test_a_locked_camera_stands_still_in_every_frame(room, sampled):
    knowns = Knowns(locked=True)
    solved = solve(sampled, with_knowns(start(sampled, FRAMES), knowns), knowns)
    assert torch.equal(solved.state.camera_from_world, torch.eye(4, dtype=torch.float64).expand(FRAMES, 4, 4))


def test_one_lens_for_all_frames_unless_each_has_its_own(room, sampled):
    """Lenses that are wrong from 5 % short to 5 % long: steadiness says how far they may differ."""
    first = with_knowns(start(sampled, FRAMES), NOTHING_KNOWN)
    assert first.log_focal.unique().numel() == 1
    rough = replace(first, log_focal=first.log_focal + torch.linspace(-0.05, 0.05, FRAMES, dtype=torch.float64))
    loose = Knowns(per_frame_focal=True, focal_steadiness=1.0)
    free = solve(sampled, rough, loose).state.log_focal.exp()
    torch.testing.assert_close(free, room.state.focal_px, rtol=2e-3, atol=0)
    stiff = solve(sampled, rough, replace(loose, focal_steadiness=1e-5)).state.log_focal.exp()
    assert stiff.max() - stiff.min() < 1e-2


def test_pairs_that_say_nothing_are_found(room, sampled):
    state = true_state(room, sampled)
    assert good_pairs(sampled, state).all()
    bad = replace(
        sampled,
        points_i=sampled.points_i.clone(),
        points_j=sampled.points_j.clone(),
        weight_i=sampled.weight_i.clone(),
        weight_j=sampled.weight_j.clone(),
    )
    bad.points_j[0] = torch.randn(bad.points_j[0].shape, generator=torch.Generator().manual_seed(0))
    bad.points_j[1, :, 2] *= 2  # right pixels do not help wrong depths
    bad.points_j[1, :, :2] *= 2
    bad.points_j[2, :, 0] += 2.0
    bad.weight_i[3] = 0.0
    bad.weight_j[4] = 0.001
    assert good_pairs(bad, state).tolist() == [False] * 5 + [True] * (len(bad.edges) - 5)


def test_the_frame_that_its_pairs_do_not_agree_on_leaves_alone(room, sampled):
    state = true_state(room, sampled)
    bad = replace(sampled, points_i=sampled.points_i.clone(), points_j=sampled.points_j.clone())
    of_frame = (bad.edges == 2).any(1)
    bad.points_i[of_frame] = torch.randn(bad.points_i[of_frame].shape, generator=torch.Generator().manual_seed(0))
    assert placed_frames(bad, state).tolist() == [True, True, False, True, True, True]


def test_the_solver_tells_how_far_it_is_and_can_be_stopped(room, sampled):
    rough = disturbed(true_state(room, sampled))
    told = []
    solve(sampled, rough, progress=told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] < 1

    class Stop(Exception):
        pass

    def stop(fraction: float) -> None:
        raise Stop

    with pytest.raises(Stop):
        solve(sampled, rough, progress=stop)
