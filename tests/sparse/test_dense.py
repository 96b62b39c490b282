"""Depth of every pixel from solved anchors, against the truth, and points that hang in front."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.align.cleaning import without_floaters
from backend.sparse.canonical import BLOCK
from backend.sparse.dense import cleaned_confidence, dense_depth
from backend.sparse.solve import solve_sparse
from tests.sparse.scenes import arc, film, near_pairs, off, problem_of


@pytest.fixture(scope="module")
def solved():
    world = film(arc(6, turn=0.35))
    problem = problem_of(world, near_pairs(6))
    solution = solve_sparse(problem, "shared")
    return world, problem, solution, np.stack(list(dense_depth(problem.views, solution)))


def test_depth_is_nearer_the_truth_than_predicted_and_than_in_blocks(solved):
    world, problem, solution, depth = solved
    scale = off(solution.world_from_camera, solution.focal_px, world.world_from_camera, 110).scale

    def missed(values: np.ndarray) -> float:
        return float(np.abs(values * scale / world.depth - 1).mean())

    size = np.exp(solution.log_size)[:, None, None]
    predicted = np.stack([view.points[..., 2].numpy() for view in problem.views]) * size
    ratio = np.stack([view.depth_ratio.numpy() for view in problem.views])
    blocks = np.kron(solution.anchor_depth, np.ones((BLOCK, BLOCK))) * ratio
    assert missed(depth) < 0.006
    assert missed(depth) < missed(blocks)
    assert missed(depth) < 0.6 * missed(predicted)


def test_at_an_anchor_it_is_the_anchors_depth(solved):
    _, _, solution, depth = solved
    assert depth[:, 4::8, 4::8] == pytest.approx(solution.anchor_depth, rel=1e-5)


def test_a_floating_patch_loses_its_confidence_and_little_else_does(solved):
    _, problem, solution, depth = solved
    depth, confidence = depth.astype(np.float64), np.stack([v.confidence.numpy() for v in problem.views])
    depth[2, 40:56, 50:70] *= 0.6
    confidence[2, 40:56, 50:70] = 1.01
    pairs = near_pairs(6)
    cleaned = cleaned_confidence(depth, confidence, solution, pairs)
    lost = cleaned == 0
    assert lost[2, 41:55, 51:69].mean() > 0.95
    lost[2, 40:56, 50:70] = False
    assert lost.mean() < 0.05
    assert np.array_equal(cleaned[cleaned > 0], confidence[cleaned > 0])


def test_with_the_originals_limit_it_is_the_originals_cleaning(solved):
    _, problem, solution, depth = solved
    depth, confidence = depth.astype(np.float64), np.stack([v.confidence.double().numpy() for v in problem.views])
    x, y = np.meshgrid(np.arange(depth.shape[2]), np.arange(depth.shape[1]))
    ray = np.stack([(x - 64) / solution.focal_px[0], (y - 48) / solution.focal_px[0], np.ones(x.shape)], -1)
    pose = solution.world_from_camera
    points = np.einsum("nab,nhwb->nhwa", pose[:, :3, :3], ray * depth[..., None]) + pose[:, None, None, :3, 3]
    arrays = (points, depth, pose, solution.focal_px, solution.principal_point, confidence)
    theirs = without_floaters(*(torch.from_numpy(np.asarray(a)) for a in arrays)).numpy()
    everything = [(i, j) for i in range(6) for j in range(i + 1, 6)]
    ours = cleaned_confidence(depth, confidence, solution, everything, in_front=0.999)
    assert ((ours == 0) != (theirs == 0)).mean() < 1e-4


def test_a_frame_that_is_not_registered_has_no_depth(solved):
    _, problem, _, _ = solved
    pairs = [p for p in problem.pairs if p.j != 5]
    solution = solve_sparse(type(problem)(problem.views, pairs, problem.size), "shared")
    depth = list(dense_depth(problem.views, solution))
    assert np.isnan(depth[5]).all()
    assert np.isfinite(depth[0]).all()
