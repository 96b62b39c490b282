"""Shots, solvers and focal lengths on exact tracks."""

from dataclasses import replace

import numpy as np
import pytest

from backend.classical import shots
from backend.classical.camera import Lens, Shot, normalised, solve_again, solve_first
from backend.classical.nodal import solve_nodal
from backend.classical.sfm import disagreement, solve_both
from backend.classical.tracks import Observations
from backend.geometry.camera import project
from backend.geometry.rigid import rotation_angles_deg
from backend.geometry.trajectory import absolute_trajectory_error
from backend.run import Run
from backend.wire import UserError
from tests.classical.synthetic import FOCAL_PX, SIZE, exact_tracks

FRAMES = 12


def solve(tracks, lens, tmp_path):
    shot, run = Shot(FRAMES, SIZE, lens), Run(work_dir=tmp_path)
    return normalised(solve_again(solve_first(shot, tracks, run), shot, tracks, run))


@pytest.mark.parametrize("motion", ["moving", "rotation", "locked"])
def test_a_shot_is_told_by_how_its_points_move(motion):
    tracks, _ = exact_tracks(FRAMES, motion, noise_px=0.2)
    assert shots.classify(tracks, FRAMES, max(SIZE)).kind == motion


def test_a_shot_with_hardly_any_points_is_refused_with_a_reason(tmp_path):
    tracks, _ = exact_tracks(FRAMES, "moving", points=10)
    with pytest.raises(UserError, match="Hardly any point"):
        solve(tracks, Lens(FOCAL_PX, "user"), tmp_path)


def test_points_that_move_each_on_their_own_make_no_camera(tmp_path):
    rng = np.random.default_rng(0)
    track, frame = (a.ravel() for a in np.meshgrid(np.arange(100), np.arange(FRAMES)))
    chaos = Observations(track, frame, rng.uniform((0, 0), SIZE, (len(track), 2)))
    with pytest.raises(UserError, match="only 0 of 12 frames"):
        solve(chaos, Lens(FOCAL_PX, "user"), tmp_path)


def test_two_solvers_find_the_path_and_the_focal_length(tmp_path):
    tracks, cameras = exact_tracks(FRAMES, "moving", noise_px=0.1)
    solutions = solve_both(tracks, FRAMES, SIZE, 1.2 * FOCAL_PX, True, Run(work_dir=tmp_path))
    for solution in solutions:
        assert solution.registered.all()
        assert solution.errors_px.mean() < 0.3
        assert solution.focal_px == pytest.approx(FOCAL_PX, rel=0.02)
        assert absolute_trajectory_error(solution.world_from_camera, cameras).ate_relative < 0.01
    assert disagreement(*solutions) < 0.01


def test_a_given_focal_length_is_kept(tmp_path):
    tracks, _ = exact_tracks(FRAMES, "moving", noise_px=0.1)
    solved = solve(tracks, Lens(1.05 * FOCAL_PX, "user"), tmp_path)
    assert solved.solution.focal_px == pytest.approx(1.05 * FOCAL_PX)
    assert solved.focal_source == "user"


def test_an_assumed_focal_length_is_corrected_where_the_solvers_agree(tmp_path):
    tracks, _ = exact_tracks(FRAMES, "moving", noise_px=0.1)
    solved = solve(tracks, Lens(1.2 * FOCAL_PX, "prior"), tmp_path)
    assert solved.focal_source == "solved"
    assert solved.solution.focal_px == pytest.approx(FOCAL_PX, rel=0.02)


def test_the_world_is_the_first_cameras_with_points_at_a_median_depth_of_five(tmp_path):
    tracks, _ = exact_tracks(FRAMES, "moving", noise_px=0.1)
    solution = solve(tracks, Lens(FOCAL_PX, "user"), tmp_path).solution
    np.testing.assert_allclose(solution.world_from_camera[0], np.eye(4), atol=1e-12)
    o = solution.observations
    _, depth = project(
        solution.points_world[o.track][:, None], solution.intrinsics, solution.world_from_camera[o.frame]
    )
    assert np.median(depth) == pytest.approx(5)
    np.testing.assert_allclose(solution.errors_px, solution.with_errors().errors_px, atol=1e-6)


def test_a_turning_camera_is_solved_with_its_focal_length(tmp_path):
    tracks, cameras = exact_tracks(FRAMES, "rotation", noise_px=0.1)
    solved = solve(tracks, Lens(1.2 * FOCAL_PX, "prior"), tmp_path)
    assert (solved.kind, solved.focal_source) == ("rotation", "solved")
    assert solved.solution.focal_px == pytest.approx(FOCAL_PX, rel=0.01)
    off = np.swapaxes(cameras[:, :3, :3], 1, 2) @ cameras[0, :3, :3] @ solved.solution.world_from_camera[:, :3, :3]
    assert rotation_angles_deg(off).max() < 0.1
    assert not solved.solution.world_from_camera[:, :3, 3].any()
    assert "no depth can be measured" in solved.warnings[0]


def test_a_turning_camera_does_not_pass_for_a_travelling_one_nor_the_reverse():
    travelling, _ = exact_tracks(FRAMES, "moving")
    solution = solve_nodal(travelling, FRAMES, SIZE, FOCAL_PX, False, Run())
    assert np.mean(solution.errors_px < 2) < 0.6


def test_frames_that_no_track_joins_have_no_camera():
    tracks, _ = exact_tracks(FRAMES, "rotation")
    cut = tracks.where(tracks.frame < 9)
    late = tracks.where(tracks.frame >= 9)
    late = replace(late, track=late.track + 1000)
    both = Observations(*(np.concatenate(pair) for pair in zip(vars(cut).values(), vars(late).values())))
    solution = solve_nodal(both, FRAMES, SIZE, FOCAL_PX, False, Run())
    np.testing.assert_array_equal(solution.registered, np.arange(FRAMES) < 9)
