"""Our solver on scenes with known truth: movers, outliers, lenses, known cameras, lost frames, many frames."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from backend.mast3r.report import ODD_LENS
from backend.mast3r.solving import lens_disagreement
from backend.matching.matches import Matches
from backend.sparse.problem import PairMatches, SparseProblem
from backend.sparse.solve import Knowns, solve_sparse
from tests import worlds
from tests.sparse import scenes
from tests.sparse.scenes import EXACT, FOCAL_PX, Errors, arc, film, near_pairs, off, problem_of


@cache
def arc_world():
    return film(arc(6, turn=0.35))


@cache
def arc_problem(**errors) -> SparseProblem:
    return problem_of(arc_world(), near_pairs(6), Errors(**errors))


def off_truth(solution, world) -> scenes.Off:
    return off(solution.world_from_camera, solution.focal_px, world.world_from_camera, world.intrinsics[:, 0])


def test_exact_predictions_and_matches_are_met_to_their_rounding():
    solution = solve_sparse(problem_of(arc_world(), near_pairs(6), EXACT), "shared")
    found = off_truth(solution, arc_world())
    assert solution.registered.all()
    assert found.ate_m < 2e-3
    assert abs(found.scale - 1) < 2e-3
    assert found.rotation_deg < 0.05


@pytest.mark.parametrize(("lens", "ate_m"), [("each", 0.02), ("shared", 0.01), ("locked", 0.01)])
def test_each_kind_of_lens(lens, ate_m):
    knowns = Knowns(focal_px=np.full(6, FOCAL_PX)) if lens == "locked" else Knowns()
    solution = solve_sparse(arc_problem(), lens, knowns)
    found = off_truth(solution, arc_world())
    assert found.ate_m < ate_m
    assert found.rotation_deg < 0.25
    assert found.focal < (1e-12 if lens == "locked" else 0.01)
    assert np.ptp(solution.focal_px) < (1e-9 if lens != "each" else 5)
    assert abs(found.scale - 1) < 0.04  # a decoding's scale is off by 4 %
    assert abs(np.mean(solution.log_size)) < 0.02


def test_a_third_of_the_matches_wrong():
    problem = arc_problem(outliers=0.3)
    found = off_truth(solve_sparse(problem, "shared"), arc_world())
    assert found.ate_m < 0.012
    assert found.rotation_deg < 0.25


def test_a_large_mover_is_kept_out_by_masks():
    mover = worlds.Mover(np.stack([np.linspace(-1.2, 1.2, 6), np.full(6, 0.3), np.full(6, 2.4)], 1), (0.45, 0.6))
    world = film(arc(6, turn=0.35), mover=mover)
    assert world.dynamic.mean() > 0.1
    problems = [problem_of(world, near_pairs(6), masked=masked) for masked in (True, False)]
    masked, unmasked = (solve_sparse(problem, "shared") for problem in problems)
    assert off_truth(masked, world).ate_m < 0.012
    assert off_truth(unmasked, world).ate_m > 3 * off_truth(masked, world).ate_m
    seen = [np.array([view.focal_px for view in problem.views]) for problem in problems]
    # Without masks the cameras are wrong, and the lens gives it away.
    assert lens_disagreement(seen[0], masked.focal_px) < 0.03 < ODD_LENS < lens_disagreement(seen[1], unmasked.focal_px)


def test_matches_without_confidence_say_nothing():
    problem = arc_problem()
    junk = torch.randint(0, 90, (2, 500, 2), generator=torch.Generator().manual_seed(1))
    pairs = []
    for pair in problem.pairs:
        m = pair.matches
        more = Matches(
            torch.cat([m.xy_1, junk[0]]), torch.cat([m.xy_2, junk[1]]), torch.cat([m.confidence, torch.zeros(500)])
        )
        pairs.append(replace(pair, matches=more))
    ours, theirs = (solve_sparse(p, "shared").world_from_camera for p in (problem, replace(problem, pairs=pairs)))
    assert np.array_equal(ours, theirs)


def test_a_pure_rotation():
    world = film(worlds.hand_held(6, motion="rotation"))
    solution = solve_sparse(problem_of(world, near_pairs(6)), "shared")
    assert solution.registered.all()
    centres = solution.world_from_camera[:, :3, 3]
    assert np.linalg.norm(centres - centres.mean(0), axis=1).max() < 0.02  # of a room 6 m wide
    assert off_truth(solution, world).rotation_deg < 0.2
    assert np.isfinite(solution.anchor_depth).all()


def test_frames_that_are_nearly_the_same():
    world = film(np.repeat(worlds.look(0.1, 0, 0, [0, 0, 0])[None], 3, 0))
    solution = solve_sparse(problem_of(world, [(0, 1), (0, 2), (1, 2)]), "each")
    centres = solution.world_from_camera[:, :3, 3]
    assert solution.registered.all()
    assert np.abs(centres).max() < 0.02
    assert off_truth(solution, world).rotation_deg < 0.2


def test_a_zoom_is_followed_by_a_lens_each():
    focal = np.linspace(100, 140, 6)
    world = film(arc(6, turn=0.35), focal)
    found = off_truth(solve_sparse(problem_of(world, near_pairs(6)), "each"), world)
    assert found.focal < 0.01
    assert found.ate_m < 0.03


def test_known_poses_are_kept_exactly_and_give_the_scale():
    true = arc_world().world_from_camera.copy()
    true[:, :3, 3] *= 10  # decimetres
    known = np.full_like(true, np.nan)
    known[[0, 2, 5]] = true[[0, 2, 5]]
    solution = solve_sparse(arc_problem(), "shared", Knowns(world_from_camera=known))
    assert np.array_equal(solution.world_from_camera[[0, 2, 5]], true[[0, 2, 5]])
    off_by = np.linalg.norm(solution.world_from_camera[:, :3, 3] - true[:, :3, 3], axis=1)
    assert off_by.max() < 0.2  # of 10 units a metre
    assert np.exp(np.median(solution.log_size)) == pytest.approx(10, rel=0.03)


def test_all_poses_known():
    true = arc_world().world_from_camera
    solution = solve_sparse(arc_problem(), "shared", Knowns(world_from_camera=true))
    assert np.array_equal(solution.world_from_camera, true)
    assert solution.focal_px[0] == pytest.approx(FOCAL_PX, rel=0.01)


def test_some_lenses_known():
    given = np.array([FOCAL_PX, np.nan, np.nan, FOCAL_PX, np.nan, np.nan])
    solution = solve_sparse(arc_problem(), "shared", Knowns(focal_px=given))
    assert solution.focal_px[[0, 3]] == pytest.approx(FOCAL_PX, abs=1e-9)
    assert np.ptp(solution.focal_px[[1, 2, 4, 5]]) < 1e-9
    with pytest.raises(ValueError, match="focal length"):
        solve_sparse(arc_problem(), "locked", Knowns(focal_px=given))


def test_a_principal_point_can_be_solved_for():
    world = arc_world()
    solution = solve_sparse(arc_problem(), "shared", free_principal_point=True)
    assert not np.array_equal(solution.principal_point[0], [64, 48])
    assert np.abs(solution.principal_point - [64, 48]).max() < 3
    assert np.ptp(solution.principal_point, axis=0).max() == 0
    assert off_truth(solution, world).ate_m < 0.03


def test_a_frame_without_matches_is_flagged():
    problem = arc_problem()
    alone = replace(problem, pairs=[p for p in problem.pairs if 3 not in (p.i, p.j)])
    solution = solve_sparse(alone, "shared")
    assert solution.registered.tolist() == [True, True, True, False, True, True]
    for values in (solution.world_from_camera, solution.focal_px, solution.anchor_depth):
        assert np.isnan(values[3]).all()
    assert np.isfinite(solution.world_from_camera[solution.registered]).all()


def test_a_frame_with_only_wrong_matches_is_flagged():
    problem, rng = arc_problem(), np.random.default_rng(3)

    def nonsense(pair: PairMatches) -> PairMatches:
        count = len(pair.matches)
        a, b = (torch.from_numpy(rng.integers(0, [scenes.WIDTH, scenes.HEIGHT], (count, 2))) for _ in range(2))
        return replace(pair, matches=Matches(a, b, pair.matches.confidence))

    pairs = [nonsense(p) if 3 in (p.i, p.j) else p for p in problem.pairs]
    solution = solve_sparse(replace(problem, pairs=pairs), "shared")
    assert solution.registered.tolist() == [True, True, True, False, True, True]
    assert off_truth(solution, arc_world()).ate_m < 0.015


def test_of_two_parts_the_larger_is_placed():
    problem = arc_problem()
    parts = [p for p in problem.pairs if (p.i < 4) == (p.j < 4)]
    solution = solve_sparse(replace(problem, pairs=parts), "shared")
    assert solution.registered.tolist() == [True] * 4 + [False] * 2


def test_the_same_twice():
    first, second = (solve_sparse(arc_problem(), "each") for _ in range(2))
    assert np.array_equal(first.world_from_camera, second.world_from_camera)


def test_it_can_be_stopped():
    def stop(fraction: float) -> None:
        if fraction > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        solve_sparse(arc_problem(), "each", progress=stop)


@pytest.mark.slow
def test_sixty_frames_in_bounded_time_and_memory():
    world = film(arc(60, turn=0.35))
    problem = problem_of(world, near_pairs(60, (1, 2, 4, 8, 16)), Errors(tries=600), decodings=2)
    held, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    solution = solve_sparse(problem, "shared")
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held < 600_000  # kB
    found = off_truth(solution, world)
    assert solution.registered.all()
    assert found.ate_m < 0.01
    assert found.rotation_deg < 0.2
