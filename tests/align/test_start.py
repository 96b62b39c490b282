"""The closed-form start: similarities between point sets, focal lengths, and cameras along the tree of pairs."""

import numpy as np
import pytest
import torch

from backend.align.sampled import sample, sample_pixels
from backend.align.start import focal_from_points, similarities, start
from backend.geometry.rigid import rotation_angles_deg, similarity_between

from .synthetic import room_pairs


def sampled_room(pixels=100, **options):
    truth = room_pairs(**options)
    return truth, sample(truth.predictions, truth.flows, sample_pixels((48, 32), pixels))


def some_points(batch=2, count=80, seed=0):
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, count, 3, generator=generator, dtype=torch.float64)
    points[..., 2] += 4
    turn = torch.linalg.matrix_exp(
        torch.tensor([[0, -0.2, 0.1], [0.2, 0, -0.3], [-0.1, 0.3, 0]], dtype=torch.float64)
    ).expand(batch, 3, 3)
    scale = torch.tensor([1.7, 0.6], dtype=torch.float64)
    shift = torch.tensor([[0.4, -0.2, 0.8], [0, 0, 1.0]], dtype=torch.float64)
    target = scale[:, None, None] * points @ turn.mT + shift[:, None]
    return points, target, scale, turn, shift


def test_exact_points_give_their_similarity():
    source, target, *truth = some_points()
    *found, residual = similarities(source, target, torch.ones(2, 80))
    for got, expected in zip(found, truth):
        torch.testing.assert_close(got, expected.clone())
    assert (residual < 1e-9).all()


def test_a_third_of_wild_points_does_not_bend_a_similarity():
    source, target, *truth = some_points()
    target[:, ::3] += torch.randn(2, 27, 3, generator=torch.Generator().manual_seed(1)) * 2
    *found, residual = similarities(source, target, torch.ones(2, 80))
    for got, expected in zip(found, truth):
        torch.testing.assert_close(got, expected.clone(), atol=0.02, rtol=0.02)
    assert (residual > 0.05).all()  # and the residual tells that there were some


def test_points_without_weight_do_not_count_at_all():
    source, target, *truth = some_points()
    weight = torch.ones(2, 80)
    weight[:, :40] = 0
    target[:, :40] = 1e3
    *found, residual = similarities(source, target, weight)
    for got, expected in zip(found, truth):
        torch.testing.assert_close(got, expected.clone())
    assert (residual < 1e-9).all()


def test_points_that_fix_no_similarity_have_an_infinite_residual():
    source, target, *_ = some_points()
    assert similarities(source, target, torch.zeros(2, 80))[3].isinf().all()
    same = torch.ones_like(source)
    assert not (similarities(same, target, torch.ones(2, 80))[3] < 0.05).any()


def test_a_mirrored_cloud_is_not_taken_for_a_turned_one():
    source, target, *_ = some_points()
    target[..., 0] *= -1
    _, rotation, _, residual = similarities(source, target, torch.ones(2, 80))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(2, dtype=torch.float64))
    assert (residual > 0.05).all()


def test_the_focal_length_comes_from_the_points_and_some_wrong_ones_do_not_move_it():
    _, sampled = sampled_room(focal_px=37.0)
    torch.testing.assert_close(focal_from_points(sampled), torch.full((len(sampled.edges),), 37.0))
    sampled.points_i[:, ::8] *= torch.tensor([3.0, 3.0, 1.0])  # an eighth of the picture is wrong
    sampled.points_i[:, 31, 2] = -1.0  # and something lies behind the camera
    torch.testing.assert_close(focal_from_points(sampled), torch.full((len(sampled.edges),), 37.0), rtol=1e-3, atol=0)


def test_nothing_in_front_gives_no_focal_length():
    _, sampled = sampled_room()
    sampled.points_i[0, :, 2] = -1.0
    sampled.weight_i[1] = 0.0
    focal = focal_from_points(sampled)
    assert focal[:2].isnan().all()
    assert focal[2:].isfinite().all()


@pytest.mark.parametrize("graph", ["swinstride-5-noncyclic", "complete", "swin-2-noncyclic"])
def test_exact_pairs_give_exact_cameras_scales_and_depths(graph):
    truth, sampled = sampled_room(frame_count=6, graph=graph, board=False)
    state = start(sampled, 6)
    cameras = np.linalg.inv(state.camera_from_world.numpy())
    expected = truth.state.world_from_camera.numpy()
    to_truth = similarity_between(cameras[:, :3, 3], expected[:, :3, 3])
    moved = to_truth.apply_to_poses(cameras)
    np.testing.assert_allclose(moved[:, :3, 3], expected[:, :3, 3], atol=1e-4)
    assert rotation_angles_deg(np.swapaxes(moved[:, :3, :3], 1, 2) @ expected[:, :3, :3]).max() < 0.02
    x, y = sampled.uv.long().T
    torch.testing.assert_close(
        to_truth.scale * state.log_depth.double().exp(), truth.state.depth[:, y, x], rtol=1e-4, atol=0
    )
    torch.testing.assert_close(to_truth.scale * state.log_scale.exp(), truth.state.pair_scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(state.log_focal.exp(), torch.full((6,), 44.0, dtype=torch.float64), rtol=1e-5, atol=0)


def test_the_tree_goes_around_pairs_that_do_not_fit():
    truth, sampled = sampled_room(frame_count=6, graph="complete", board=False)
    bad = (sampled.edges == torch.tensor([4, 1])).all(1) | (sampled.edges == torch.tensor([1, 4])).all(1)
    sampled.points_j[bad] = torch.randn(2, len(sampled.uv), 3, generator=torch.Generator().manual_seed(0))
    cameras = np.linalg.inv(start(sampled, 6).camera_from_world.numpy())
    expected = truth.state.world_from_camera.numpy()
    moved = similarity_between(cameras[:, :3, 3], expected[:, :3, 3]).apply_to_poses(cameras)
    np.testing.assert_allclose(moved[:, :3, 3], expected[:, :3, 3], atol=1e-4)


def test_a_frame_without_pairs_has_no_camera_and_the_others_have_theirs():
    _, sampled = sampled_room(frame_count=5, graph="complete", board=False)
    state = start(sampled.where((sampled.edges != 2).all(1)), 5)
    placed = torch.isfinite(state.camera_from_world).all(-1).all(-1)
    assert placed.tolist() == [True, True, False, True, True]
    assert state.log_focal.isfinite().all()


def test_of_two_islands_only_the_larger_is_placed():
    _, sampled = sampled_room(frame_count=6, graph="complete", board=False)
    i, j = sampled.edges.T
    state = start(sampled.where((i < 2) == (j < 2)), 6)
    placed = torch.isfinite(state.camera_from_world).all(-1).all(-1)
    assert placed.tolist() == [False, False, True, True, True, True]


def test_lenses_may_differ_from_frame_to_frame():
    _, sampled = sampled_room(frame_count=4, graph="complete", board=False)
    sampled.points_i[sampled.edges[:, 0] == 1] *= torch.tensor([0.5, 0.5, 1.0])
    focal = start(sampled, 4).log_focal.exp()
    torch.testing.assert_close(focal, torch.tensor([44.0, 88, 44, 44], dtype=torch.float64), rtol=1e-4, atol=0)
