"""The original's alignment on a room with known cameras: what it finds, and what its settings do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.geometry.camera import unproject
from backend.matching.matches import Matches
from backend.run import Run
from backend.sparse.original import OriginalResult, OriginalSettings, align_as_original
from backend.sparse.original_losses import robust, tables
from backend.sparse.original_results import dense_views, sparse_points
from backend.sparse.problem import PairMatches, SparseProblem, WeakView
from backend.wire import Cancelled, UserError

from .scenes import EXACT, FOCAL_PX, arc, film, near_pairs, off, problem_of

FRAMES = 4
QUICK = OriginalSettings(coarse_steps=60, fine_steps=40, least_confidence=0.0)
WORLD = film(arc(FRAMES, turn=0.3), width=64, height=48, focal_px=FOCAL_PX / 2)


@pytest.fixture(scope="module")
def problem() -> SparseProblem:
    return problem_of(WORLD, near_pairs(FRAMES, (1, 2)), replace(EXACT, match_px=0.3))


@pytest.fixture(scope="module")
def aligned(problem) -> OriginalResult:
    return align_as_original(problem, QUICK)


def test_cameras_lens_and_depth_are_found(problem, aligned):
    placed = aligned.placed
    found = off(placed.world_from_camera.numpy(), placed.focal_px.numpy(), WORLD.world_from_camera, FOCAL_PX / 2)
    assert found.ate_m < 0.04  # of 2.4 m
    assert found.rotation_deg < 0.5
    assert found.focal < 0.02
    assert aligned.losses[0] > 5 * aligned.losses[59]
    dense = dense_views(placed, problem)
    assert np.median(np.abs(dense.depth.numpy() * found.scale / WORLD.depth - 1)) < 0.02


def test_the_smallest_frame_keeps_its_size(problem):
    """The gauge: nothing is smaller than predicted."""
    result = align_as_original(problem, replace(QUICK, fine_steps=0))
    sizes = [(d / v.core_depth.flatten()).median() for d, v in zip(result.placed.anchor_depth, problem.views)]
    assert float(min(sizes)) == pytest.approx(1, abs=1e-4)


def test_the_coarse_stage_leaves_lenses_and_relief(problem):
    result = align_as_original(problem, replace(QUICK, fine_steps=0)).placed
    torch.testing.assert_close(result.focal_px, result.first_focal_px)
    torch.testing.assert_close(result.centre_px, torch.tensor([[32.0, 24.0]]).expand(FRAMES, 2))
    for depth, view in zip(result.anchor_depth, problem.views):
        ratio = depth / view.core_depth.flatten()
        torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-4, atol=0)


def test_what_is_not_free_stays(problem):
    held = align_as_original(problem, replace(QUICK, fine_steps=20, free_centre=False, free_depth=False)).placed
    free = align_as_original(problem, replace(QUICK, fine_steps=20)).placed
    middle = torch.tensor([[32.0, 24.0]]).expand(FRAMES, 2)
    torch.testing.assert_close(held.centre_px, middle)
    assert not torch.allclose(free.centre_px, middle)
    core = problem.views[0].core_depth.flatten()

    def relief(depth: torch.Tensor) -> torch.Tensor:
        """Differences of depth over predicted ones: one number where the relief is as predicted, however scaled."""
        return (depth[1:] - depth[:-1])[core.diff().abs() > 0.1] / core.diff()[core.diff().abs() > 0.1]

    assert relief(held.anchor_depth[0]).std() < 1e-3
    assert relief(free.anchor_depth[0]).std() > 3e-3


def test_a_shared_lens_is_one_lens(problem):
    placed = align_as_original(problem, replace(QUICK, fine_steps=20, shared_lens=True)).placed
    assert placed.focal_px.unique().numel() == 1
    assert placed.centre_px.unique(dim=0).shape == (1, 2)


def test_lenses_start_where_they_are_told(problem):
    lens = torch.tensor([[80.0, 0, 30], [0, 80, 26], [0, 0, 1]]).expand(FRAMES, 3, 3)
    placed = align_as_original(problem, QUICK, first_intrinsics=lens, stop_after=1).placed
    torch.testing.assert_close(placed.focal_px, torch.full((FRAMES,), 80.0))
    torch.testing.assert_close(placed.centre_px[0], torch.tensor([30.0, 26.0]))


def test_weak_pairs_hold_frames_by_their_pointmaps(problem):
    """The last frame has no sure match: its pair's pointmaps alone say where it is."""
    last = FRAMES - 1
    pairs = [p if last not in (p.i, p.j) else PairMatches(p.i, p.j, _unsure(p.matches)) for p in problem.pairs]
    weak = [view for p in pairs for view in _exact_weak_views(p.i, p.j)]
    settings = replace(QUICK, least_confidence=0.01, fine_steps=0, coarse_steps=100)
    meetings, held = tables(replace(problem, pairs=pairs, weak=weak), 0.01)
    assert last not in meetings.spots.frame
    assert set(held.target_frame.tolist()) == {1, 2, 3}  # of the pairs (1, 3) and (2, 3), in either direction
    placed = align_as_original(replace(problem, pairs=pairs, weak=weak), settings).placed
    found = off(placed.world_from_camera.numpy(), placed.focal_px.numpy(), WORLD.world_from_camera, FOCAL_PX / 2)
    assert found.ate_m < 0.1
    lost = align_as_original(replace(problem, pairs=pairs), settings).placed
    assert off(lost.world_from_camera.numpy(), lost.focal_px.numpy(), WORLD.world_from_camera, 1).ate_m > 0.3


def _unsure(matches: Matches) -> Matches:
    return replace(matches, confidence=matches.confidence * 1e-6)


def _exact_weak_views(i: int, j: int) -> list[WeakView]:
    found = []
    for seen, by in ((i, j), (j, i)):
        to_by = np.linalg.inv(WORLD.world_from_camera[by]) @ WORLD.world_from_camera[seen]
        points = unproject(WORLD.depth[seen][None], WORLD.intrinsics[seen][None], to_by[None])[0]
        thin = torch.from_numpy(points[::8, ::8].astype(np.float32))
        found.append(WeakView(seen, by, thin, torch.full(thin.shape[:2], 3.0)))
    return found


def test_no_sure_match_at_all_is_refused(problem):
    with pytest.raises(UserError, match="sure enough"):
        align_as_original(problem, replace(QUICK, least_confidence=1e9))


def test_it_stops_when_told_and_can_be_cancelled(problem):
    assert len(align_as_original(problem, QUICK, stop_after=63).losses) == 63
    with pytest.raises(Cancelled):
        align_as_original(problem, QUICK, run=Run(is_cancelled=lambda: True))


def test_a_loss_that_is_no_number_ends_it(problem):
    broken = replace(problem.views[0], core_depth=problem.views[0].core_depth * float("nan"))
    result = align_as_original(replace(problem, views=[broken, *problem.views[1:]]), QUICK)
    assert len(result.losses) == 0


def test_it_works_in_double_precision_with_weak_pairs(problem):
    views = [replace(v, **{k: t.double() for k, t in vars(v).items() if k != "focal_px"}) for v in problem.views]
    weak = [view for p in problem.pairs for view in _exact_weak_views(p.i, p.j)]
    pairs = [replace(p, matches=_unsure(p.matches)) if p.i == 0 else p for p in problem.pairs]
    result = align_as_original(
        replace(problem, views=views, pairs=pairs, weak=weak), replace(QUICK, least_confidence=0.01), stop_after=3
    )
    assert result.placed.rotation.dtype == torch.float64


def test_points_of_matches_meet(problem, aligned):
    points = sparse_points(aligned.placed, problem)
    first = problem.pairs[0]
    count = len(first.matches)
    apart = torch.linalg.vector_norm(points[first.i][:count] - points[first.j][:count], dim=1)
    assert apart.median() < 0.1


@pytest.mark.parametrize("power", [0.5, 1.1, 1.5])
def test_robust_lengths_begin_at_nothing_with_slope_one(power):
    small = torch.tensor([[0.0, 0], [3e-4, 4e-4]], dtype=torch.float64)
    assert robust(small, power).tolist() == pytest.approx([0, 5e-4], rel=1e-2)


def test_a_problem_is_what_it_says(problem):
    one = problem.pairs[0]
    with pytest.raises(ValueError, match="comes twice"):
        replace(problem, pairs=[one, one])
    with pytest.raises(ValueError, match="no pair"):
        replace(problem, pairs=[PairMatches(1, 0, one.matches)])
    with pytest.raises(ValueError, match="outside"):
        replace(problem, pairs=[PairMatches(0, 1, replace(one.matches, xy_2=one.matches.xy_2 + 64))])
    with pytest.raises(ValueError, match="pixels"):
        replace(problem, size=(48, 64))
