"""Camera refinement: better on clips with truth, never worse, and honest where it cannot help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from backend.geometry.camera import project
from backend.geometry.rigid import Similarity, rotation_angles_deg
from backend.geometry.trajectory import absolute_trajectory_error, path_length
from backend.refine import refine_camera
from backend.refinement.bundle import adjust
from backend.refinement.cameras import Cameras
from backend.refinement.gauge import carry, depth_factors, groups, robust_mean, to_engine_world
from backend.refinement.points import triangulate
from backend.refinement.sightings import Static, still_sightings
from backend.run import Run
from backend.wire import Cancelled
from tests.classical.synthetic import INTRINSICS, exact_tracks
from tests.oracle import demo_clip, film_room, oracle_capture, travelling
from tests.worlds import hand_held

DEMO = Path(__file__).resolve().parents[2] / "benchmarks" / "demo_clip"
SIZE, FOCAL_PX, FRAMES = (320, 180), 280.0, 8


@pytest.fixture(scope="module")
def room():
    return film_room(travelling(FRAMES, (0.9, 0.1, 0.4)), SIZE, FOCAL_PX)


@pytest.fixture(scope="module")
def refined_room(room):
    capture = oracle_capture(room)
    for array in (capture.world_from_camera, capture.intrinsics, capture.depth, capture.dynamic):
        array.flags.writeable = False  # nothing of the engine's capture may be written over
    return capture, refine(capture, room.clip)


def refine(capture, clip, focal_free=True):
    return refine_camera(capture, clip, Run(threads=1), focal_free=focal_free, tracks_per_frame=300)


def error(capture, true):
    return absolute_trajectory_error(capture.world_from_camera, true.world_from_camera)


def errors_px(capture):
    return np.array([np.nan if f.reprojection_error_px is None else f.reprojection_error_px for f in capture.frames])


def same_cameras(a, b):
    return np.array_equal(a.world_from_camera, b.world_from_camera, equal_nan=True) and np.array_equal(
        a.intrinsics, b.intrinsics, equal_nan=True
    )


def assert_halved(before, after, true):
    assert error(after, true).ate_relative < error(before, true).ate_relative / 2
    assert error(after, true).rotation_deg_rmse < error(before, true).rotation_deg_rmse / 2
    assert errors_px(after).max() < 0.5


# --- clips with truth ---


def test_errors_are_more_than_halved(room, refined_room):
    assert_halved(*refined_room, room)


@pytest.mark.slow
def test_a_portrait_zoom_keeps_its_course_and_is_refined():
    focal = 340.0 * np.linspace(1, 1.2, 14)
    true = film_room(travelling(14, (0.8, -0.3, 0.4), (-0.1, 0.02, 0.02), seed=1), (216, 384), focal)
    capture = oracle_capture(true)
    refined = refine(capture, true.clip)
    assert_halved(capture, refined, true)
    np.testing.assert_allclose(refined.plate_intrinsics[:, 0], focal, rtol=0.01)


@pytest.mark.slow
def test_the_demo_clip(tmp_path):
    true = demo_clip(DEMO, Run(work_dir=tmp_path))
    capture = oracle_capture(true)
    assert_halved(capture, refine(capture, true.clip), true)


def test_a_wrong_lens_and_a_drifting_path_are_put_right(room):
    capture = oracle_capture(room, path_error=0.06, step_deg=1.0, focal_error=0.1, depth_error=0.04)
    refined = refine(capture, room.clip)
    assert error(refined, room).ate_relative < 0.1 * error(capture, room).ate_relative
    np.testing.assert_allclose(refined.plate_intrinsics[:, :2], FOCAL_PX, rtol=0.02)
    assert refined.shot.focal_source == "solved"


def test_a_known_lens_is_kept(room):
    capture = oracle_capture(room, focal_error=0.0)
    refined = refine(capture, room.clip, focal_free=False)
    np.testing.assert_allclose(refined.intrinsics, capture.intrinsics, rtol=1e-9)
    assert not same_cameras(refined, capture)


# --- what the capture then says ---


def test_the_world_stays_the_engines(refined_room):
    capture, refined = refined_room
    turn = robust_mean(capture.world_from_camera[:, :3, :3] @ np.swapaxes(refined.world_from_camera[:, :3, :3], 1, 2))
    assert rotation_angles_deg(turn) < 0.05
    away = refined.world_from_camera[:, :3, 3] - capture.world_from_camera[:, :3, 3]
    assert np.linalg.norm(np.median(away, axis=0)) < 0.01 * path_length(capture.world_from_camera)


def test_points_cameras_and_depth_agree(refined_room):
    _, refined = refined_room
    tracks = refined.tracks
    xy, z = project(
        tracks.points_world[tracks.point][:, None],
        refined.plate_intrinsics[tracks.frame],
        refined.world_from_camera[tracks.frame],
    )
    miss = np.linalg.norm(xy[:, 0] - tracks.plate_xy, axis=1)
    by_frame = [miss[tracks.frame == t].mean() for t in range(FRAMES)]
    np.testing.assert_allclose(errors_px(refined), by_frame, rtol=1e-6)
    x, y = np.floor(refined.plate_map.to_grid(tracks.plate_xy)).astype(int).T
    ratio = refined.depth[tracks.frame, y, x] / z[:, 0]
    assert np.median(ratio) == pytest.approx(1, abs=0.002)
    assert (np.bincount(tracks.point) >= 3).all()


def test_the_report_tells_of_every_frame(refined_room):
    capture, refined = refined_room
    assert all(f.registered and not f.low_confidence for f in refined.frames)
    told = refined.shot.details["refinement"]
    assert told["refined_frames"] == FRAMES
    assert told["held_out_error_after_px"] < 0.2 * told["held_out_error_before_px"]
    assert refined.shot.warnings == capture.shot.warnings


def test_depth_is_rescaled_where_frames_disagree_on_their_scale(room):
    capture = oracle_capture(room)
    wrong = 1 + 0.05 * np.sin(np.linspace(0, 3, FRAMES))
    refined = refine(
        replace(capture, depth=capture.depth * wrong[:, None, None].astype(np.float32)),
        room.clip,
    )
    left = np.median(refined.depth / capture.depth, axis=(1, 2))
    assert np.ptp(np.log(left)) < 0.4 * np.ptp(np.log(wrong))


# --- never worse ---


def test_a_picture_without_texture_leaves_the_camera_alone():
    true = film_room(travelling(FRAMES, (0.9, 0.1, 0.4)), SIZE, FOCAL_PX, contrast=0.04, noise=6.0)
    capture = oracle_capture(true)
    refined = refine(capture, true.clip)
    assert same_cameras(refined, capture)
    np.testing.assert_array_equal(refined.depth, capture.depth)
    assert "could not be refined" in refined.shot.warnings[-1]


def test_a_mover_that_fills_the_picture_and_is_not_masked_does_not_take_the_camera_along():
    true = film_room(travelling(FRAMES, (0.9, 0.1, 0.4)), SIZE, FOCAL_PX, box=1.6)
    capture = oracle_capture(true, masked=False)
    refined = refine(capture, true.clip)
    assert error(refined, true).ate_relative <= error(capture, true).ate_relative
    assert error(refined, true).rotation_deg_rmse <= error(capture, true).rotation_deg_rmse


@pytest.mark.slow
def test_a_perfect_camera_stays_nearly_perfect(room):
    capture = oracle_capture(room, path_error=0.0, step_deg=0.0, focal_error=0.0)
    refined = refine(capture, room.clip)
    assert error(refined, room).ate_relative < 0.001
    assert errors_px(refined).max() < 0.5


def test_blurred_frames_go_along_with_their_neighbours_and_say_so(room):
    frames = np.array(room.clip.frames)
    for t in (3, 4):
        frames[t] = cv2.GaussianBlur(frames[t], (0, 0), 12)
    capture = oracle_capture(room)
    refined = refine(capture, replace(room.clip, frames=frames))
    told = np.array([f.low_confidence for f in refined.frames])
    assert told[[3, 4]].all()
    assert "follow their neighbours" in refined.shot.warnings[-1]
    assert not told[[0, 1, 6, 7]].any()
    assert refined.has_camera.all()
    assert error(refined, room).ate_relative < error(capture, room).ate_relative


def test_a_frame_without_a_camera_stays_without(room):
    capture = oracle_capture(room)
    poses, intrinsics = np.array(capture.world_from_camera), np.array(capture.intrinsics)
    poses[3] = intrinsics[3] = np.nan
    frames = tuple(replace(f, registered=t != 3) for t, f in enumerate(capture.frames))
    capture = replace(capture, world_from_camera=poses, intrinsics=intrinsics, frames=frames)
    refined = refine(capture, room.clip)
    np.testing.assert_array_equal(refined.has_camera, np.arange(FRAMES) != 3)
    assert not refined.frames[3].registered
    assert refined.frames[3].reprojection_error_px is None
    assert errors_px(refined)[[2, 4]].max() < 0.5


# --- cameras that do not travel ---


@pytest.mark.slow
def test_a_turn_on_the_spot_gets_no_path():
    true = film_room(hand_held(6, "rotation"), SIZE, FOCAL_PX)
    capture = oracle_capture(true)
    assert path_length(capture.world_from_camera) > 0
    refined = refine(capture, true.clip)
    np.testing.assert_allclose(np.ptp(refined.world_from_camera[:, :3, 3], axis=0), 0, atol=1e-9)
    assert refined.shot.kind == "rotation"
    assert turns_off(refined, true) < turns_off(capture, true) / 2


def test_a_locked_off_camera_is_left_alone_and_measured():
    true = film_room(hand_held(6, "locked"), SIZE, FOCAL_PX)
    exact = replace(oracle_capture(true), world_from_camera=np.tile(np.eye(4), (6, 1, 1)))
    refined = refine(exact, true.clip)
    assert same_cameras(refined, exact)
    assert errors_px(refined).max() < 0.2
    assert refined.shot.warnings == exact.shot.warnings


def turns_off(capture, true):
    a, b = capture.world_from_camera[:, :3, :3], true.world_from_camera[:, :3, :3]
    turn = robust_mean(b @ np.swapaxes(a, 1, 2))
    return np.sqrt(np.mean(rotation_angles_deg(np.swapaxes(b, 1, 2) @ turn @ a) ** 2))


# --- the parts ---


def exact(noise_px=0.0, points=200):
    """(sightings with true depth, true cameras) of a moving camera."""
    seen, poses = exact_tracks(FRAMES, "moving", points=points, noise_px=noise_px)
    cameras = Cameras(poses, np.full(FRAMES, INTRINSICS[0]), np.tile(INTRINSICS[2:], (FRAMES, 1)))
    static = Static(seen, np.zeros(len(seen))).where(np.ones(len(seen), bool))
    points_world = triangulate(static, cameras, 1.0)
    return replace(static, depth=cameras.in_camera(points_world, static.seen)[:, 2]), cameras, points_world


def test_points_are_placed_where_their_rays_meet():
    static, cameras, points = exact()
    assert cameras.errors_px(points, static.seen).max() < 1e-3


def test_a_point_without_parallax_is_where_the_engine_has_it():
    static, cameras, _ = exact()
    still = replace(cameras, world_from_camera=np.tile(cameras.world_from_camera[:1], (FRAMES, 1, 1)))
    _, first = np.unique(static.seen.track, return_index=True)
    again = replace(static.seen, xy=static.seen.xy[first][static.seen.track])
    depth = np.full(len(again), 4.0)
    points = triangulate(Static(again, depth), still, 1.0)
    np.testing.assert_allclose(still.in_camera(points, again)[:, 2], 4.0, rtol=1e-3)


@pytest.mark.parametrize("lens", ["fixed", "shared", "each"])
def test_adjustment_finds_the_cameras_again(lens):
    static, cameras, points = exact(noise_px=0.05)
    rng = np.random.default_rng(1)
    poses = np.array(cameras.world_from_camera)
    poses[:, :3, 3] += rng.normal(0, 0.02, (FRAMES, 3))
    focal = cameras.focal_px * (1.0 if lens == "fixed" else 1.02)
    off = replace(cameras, world_from_camera=poses, focal_px=focal)
    found, _ = adjust(static, points, off, 1.0, lens, Run())
    assert absolute_trajectory_error(found.world_from_camera, cameras.world_from_camera).ate_relative < 0.002
    np.testing.assert_allclose(found.focal_px, cameras.focal_px, rtol=0.01)


def test_adjustment_goes_home_to_the_engines_world():
    static, cameras, points = exact()
    elsewhere = Similarity(3.0, Rotation.from_rotvec([0.3, 1.0, -0.4]).as_matrix(), np.array([5.0, -2.0, 1.0]))
    home, placed = to_engine_world(cameras.moved(elsewhere), elsewhere.apply(points), static, cameras)
    np.testing.assert_allclose(home.world_from_camera, cameras.world_from_camera, atol=1e-6)
    np.testing.assert_allclose(placed, points, atol=1e-5)


def test_frames_that_no_track_joins_are_groups_of_their_own():
    static, _, _ = exact()
    parted = replace(static.seen, track=static.seen.track + static.track_count * (static.seen.frame >= 5))
    np.testing.assert_array_equal(groups(replace(static, seen=parted), FRAMES), [0] * 5 + [1] * 3)


def test_frames_left_out_are_carried_by_what_moved_their_neighbours():
    _, engine, _ = exact()
    move = Similarity(1.0, Rotation.from_rotvec([0.0, 0.02, 0.01]).as_matrix(), np.array([0.1, 0.0, -0.05]))
    moved = engine.moved(move)
    measured = np.ones(FRAMES, bool)
    measured[[0, 4, 5, 7]] = False
    poses = np.where(measured[:, None, None], moved.world_from_camera, np.nan)
    carried = carry(replace(moved, world_from_camera=poses), engine, measured)
    np.testing.assert_allclose(carried.world_from_camera, moved.world_from_camera, atol=1e-9)


def test_factors_of_depth_are_one_unless_frames_disagree():
    static, cameras, points = exact()
    assert (depth_factors(cameras, points, static) == 1).all()
    scaled = replace(static, depth=static.depth * np.linspace(0.9, 1.1, FRAMES)[static.seen.frame])
    np.testing.assert_allclose(
        depth_factors(cameras, points, scaled)[2:-2], 1 / np.linspace(0.9, 1.1, FRAMES)[2:-2], rtol=0.01
    )


def test_nothing_is_followed_on_or_beside_what_moves(room):
    capture = oracle_capture(room)
    seen = still_sightings(capture, room.clip, 400, Run()).seen
    x, y = np.floor(seen.xy).astype(int).T
    assert not room.masks[seen.frame, y, x].any()
    unmasked = still_sightings(replace(capture, dynamic=np.zeros_like(capture.dynamic)), room.clip, 400, Run()).seen
    x, y = np.floor(unmasked.xy).astype(int).T
    assert room.masks[unmasked.frame, y, x].any()


def test_it_can_be_cancelled(room):
    with pytest.raises(Cancelled):
        refine_camera(oracle_capture(room), room.clip, Run(is_cancelled=lambda: True), focal_free=True)
