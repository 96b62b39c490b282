"""A graph of similarities, the path refined in windows, and loops found, verified and closed."""

from dataclasses import replace

import numpy as np
import pytest

from backend.geometry.rigid import Similarity, rotation_angles_deg, similarity_of
from backend.geometry.trajectory import absolute_trajectory_error
from backend.streaming.loops import LoopFinder, LoopOptions
from backend.streaming.pose_graph import Nodes, Tie, solve_graph
from backend.streaming.poses import PoseOptions, PoseTracker
from backend.streaming.refining import refine_stream
from tests.streaming.walks import Walk, head_path, walk
from tests.worlds import World, film, loop_walk, square_intrinsics

NOISE = (0.01, 0.01, 0.02)


def ring(count: int) -> list[Similarity]:
    """Cameras on a circle, whose unit grows."""
    return [
        Similarity(1 + 0.01 * n, similarity_of(np.array([0, 0, a, 0, 0, 0, 0.0])).rotation, 3 * np.array([c, 0, s]))
        for n, (a, c, s) in enumerate((a, np.cos(a), np.sin(a)) for a in 2 * np.pi * np.arange(count) / count)
    ]


def test_a_graph_finds_the_nodes_that_its_ties_were_made_of():
    true = ring(20)
    rng = np.random.default_rng(0)
    ties = [Tie(n, n + 1, true[n].inverse().compose(true[n + 1]), NOISE) for n in range(19)]
    ties.append(Tie(0, 19, true[0].inverse().compose(true[19]), NOISE))
    start = Nodes.of([true[0], *(s.compose(similarity_of(rng.normal(0, 0.1, 7))) for s in true[1:])])
    alone = Nodes.of([*(start.similarity(n) for n in range(20)), Similarity(2.0)])
    found, missed = solve_graph(alone, ties)
    assert found.similarity(20).scale == pytest.approx(2.0)
    for n, s in enumerate(true):
        np.testing.assert_allclose(found.similarity(n).matrix(), s.matrix(), atol=1e-5)
    assert missed.max() < 1e-3


def test_a_loop_spreads_what_the_steps_err_and_a_wrong_one_is_told():
    true, rng = ring(40), np.random.default_rng(1)
    bias = similarity_of(np.array([0.004, 0, 0.01, 0, 0.005, 0, 0]))
    ties = [Tie(n, n + 1, true[n].inverse().compose(true[n + 1]).compose(bias), NOISE) for n in range(39)]
    chain = [true[0]]
    for tie in ties:
        chain.append(chain[-1].compose(tie.i_from_j))
    loops = [Tie(n, 39 - n, true[n].inverse().compose(true[39 - n]), NOISE) for n in range(4)]
    wrong = Tie(3, 22, similarity_of(rng.normal(0, 1, 7)), NOISE)
    found, missed = solve_graph(Nodes.of(chain), [*ties, *loops, wrong])
    before, after = (
        max(np.linalg.norm(np.asarray(s) - t.translation) for s, t in zip(shifts, true))
        for shifts in ([s.translation for s in chain], found.shift)
    )
    assert after < 0.4 * before
    assert missed[-1] > 5
    assert missed[:-1].max() < 3


@pytest.fixture(scope="module")
def there_and_back() -> Walk:
    """A walk that goes a way and comes back, so that its end sees what its start saw."""
    cameras = loop_walk(12, 48, 32, seed=5, turns=0.11, with_walker=False).world_from_camera
    cameras = np.concatenate([cameras, cameras[-2::-1]])
    size = (160, 96)
    world = film(cameras, square_intrinsics(144.0, *size, len(cameras)), *size, far_wall_m=9.0, closed=True)
    return walk(world, seed=4)


def streamed(given: Walk) -> tuple[np.ndarray, np.ndarray]:
    tracker = PoseTracker(PoseOptions("pnp", focal_px=given.focal_px))
    poses = [tracker.push(f, rgb) for f, rgb in zip(given.frames, given.world.rgb)]
    return np.stack([p.world_from_camera for p in poses]), np.array([p.scale for p in poses])


def test_refinement_beats_the_head_and_the_stream_and_loops_beat_it(there_and_back):
    world, last = there_and_back.world, len(there_and_back) - 1
    poses, scale = streamed(there_and_back)
    seen = []
    open_path = refine_stream(there_and_back, poses, scale, progress=seen.append)
    closed = refine_stream(there_and_back, poses, scale, LoopFinder(LoopOptions(apart=10)))
    error = {
        name: absolute_trajectory_error(path, world.world_from_camera)
        for name, path in (
            ("head", head_path(there_and_back.frames)),
            ("stream", poses),
            ("refined", open_path.world_from_camera),
            ("closed", closed.world_from_camera),
        )
    }
    assert error["refined"].ate_rmse < 0.5 * error["head"].ate_rmse
    assert error["refined"].step_rotation_deg_rmse < 0.3 * error["stream"].step_rotation_deg_rmse
    assert error["closed"].ate_rmse < 0.5 * error["head"].ate_rmse
    assert open_path.tied.all()
    assert seen == sorted(seen)
    assert seen[-1] == 1
    # the first and the last frame are the same picture, and must be the same camera
    assert any(i == 0 and j >= last - 4 for i, j in closed.loops)
    between = np.linalg.inv(closed.world_from_camera[0]) @ closed.world_from_camera[last]
    assert np.linalg.norm(between[:3, 3]) < 0.02
    assert rotation_angles_deg(between[:3, :3]) < 0.3


def test_depth_follows_the_scale_of_the_path(there_and_back):
    """A frame of which the network has half the depth, and says so, gets twice the scale."""
    poses, scale = streamed(there_and_back)
    frames = list(there_and_back.frames[:9])
    half = [f.points_camera * (0.5 if f.index == 6 else 1.0) for f in frames]
    thinner = Walk(there_and_back.world, [_with_points(f, p) for f, p in zip(frames, half)], there_and_back.focal_px)
    factor = np.where(np.arange(9) == 6, 2.0, 1.0)
    path = refine_stream(thinner, poses[:9], scale[:9] * factor)
    same = refine_stream(Walk(there_and_back.world, frames, there_and_back.focal_px), poses[:9], scale[:9])
    np.testing.assert_allclose(path.scale / same.scale, factor, rtol=5e-3)
    np.testing.assert_allclose(path.world_from_camera, same.world_from_camera, atol=5e-3)


def test_a_frame_without_pose_is_placed_by_its_neighbours_and_a_black_one_by_the_network(there_and_back):
    poses, scale = streamed(there_and_back)
    poses, scale = poses[:9].copy(), scale[:9]
    poses[[0, 4]] = np.nan
    rgb = there_and_back.world.rgb.copy()
    rgb[7] = 0
    world = there_and_back.world
    dark = World(rgb, world.depth, world.dynamic, world.world_from_camera, world.intrinsics)
    path = refine_stream(Walk(dark, there_and_back.frames[:9], there_and_back.focal_px), poses, scale)
    assert np.isfinite(path.world_from_camera).all()
    assert path.tied[[0, 4]].all()
    assert not path.tied[7]
    error = absolute_trajectory_error(path.world_from_camera, world.world_from_camera[:9])
    assert error.ate_rmse < absolute_trajectory_error(poses, world.world_from_camera[:9]).ate_rmse


def test_places_that_only_look_alike_are_no_loop():
    """Frames of two different walls of one room, so near in the path's belief that they are compared."""
    cameras = loop_walk(60, 48, 32, seed=5, with_walker=False).world_from_camera[[0, 1, 2, 30, 31, 32]]
    size = (160, 96)
    given = walk(film(cameras, square_intrinsics(144.0, *size, 6), *size, far_wall_m=9.0, closed=True), seed=4)
    here = Nodes.of([Similarity()] * 6)
    finder = LoopFinder(LoopOptions(every=1, apart=3))
    assert finder(given, here, np.ones(6, bool)) == []


def _with_points(frame, points):
    return replace(frame, points_camera=points.astype(np.float32))
