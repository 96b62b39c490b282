"""Clips too long for one linear system: spans of them, one after the other, reach nearly the same."""

from dataclasses import replace

import pytest
import torch

from backend.align.graph import make_pairs
from backend.align.sampled import sample, sample_pixels
from backend.align.solve import solve, with_knowns
from backend.align.spans import solve_whole
from backend.align.start import start
from backend.align.unknowns import NOTHING_KNOWN
from backend.geometry.trajectory import absolute_trajectory_error
from tests.pair_oracle import FlowOracle, PairOracle
from tests.worlds import fast_pan

FRAMES, SIZE = 18, (48, 32)


@pytest.fixture(scope="module")
def problem():
    """A clip, what is said of its pairs at some pixels, and a first solve from the point maps alone."""
    world = fast_pan(FRAMES, *SIZE)
    pairs = make_pairs("swinstride-2-noncyclic", FRAMES)
    still = replace(FlowOracle(world).predict(pairs))
    moving = torch.from_numpy(world.dynamic)
    sampled = sample(PairOracle(world).predict(pairs), still, sample_pixels(SIZE, 150)).still(moving)
    rough = with_knowns(start(sampled, FRAMES), NOTHING_KNOWN)
    return world, sampled, solve(sampled.without_flow(), rough).state


def error(world, state) -> float:
    return absolute_trajectory_error(
        torch.linalg.inv(state.camera_from_world).numpy(), world.world_from_camera
    ).ate_rmse


def test_few_unknowns_are_solved_at_once(problem):
    _, sampled, first = problem
    whole, same = solve(sampled, first), solve_whole(sampled, first)
    assert torch.equal(whole.state.camera_from_world, same.state.camera_from_world)


def test_spans_come_near_one_solve_and_better_the_start(problem):
    world, sampled, first = problem
    whole = error(world, solve(sampled, first).state)
    spans = error(world, solve_whole(sampled, first, most=10, span=10).state)
    assert spans < 0.5 * error(world, first)
    assert spans < 5 * whole  # whose lens is solved as well


def test_the_lens_and_the_first_camera_stay_and_progress_is_told(problem):
    _, sampled, first = problem
    told = []
    solved = solve_whole(sampled, first, progress=told.append, most=10, span=10)
    assert torch.equal(solved.state.log_focal, first.log_focal)
    torch.testing.assert_close(solved.state.camera_from_world[0], first.camera_from_world[0])
    assert told == sorted(told)
    assert told[-1] <= 1
