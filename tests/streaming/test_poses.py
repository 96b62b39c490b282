"""The camera of every streamed frame: from the network's points, else from what stands in, steadied by the pictures."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from backend.geometry.rigid import invert_poses, rotation_angles_deg
from backend.geometry.trajectory import absolute_trajectory_error
from backend.streaming.poses import PoseOptions, PoseTracker, gains
from tests.stream_oracle import EXACT, StreamErrors
from tests.streaming.walks import head_path, walk
from tests.worlds import loop_walk


@pytest.fixture(scope="module")
def world():
    # a fifth of a turn in 16 frames, so that neighbours see much of the same
    return loop_walk(16, 96, 64, seed=5, turns=0.12)


@pytest.mark.parametrize("source", ["head", "procrustes", "robust", "pnp"])
def test_every_source_finds_the_true_camera_of_exact_points(world, source):
    exact = walk(world, EXACT)
    tracker = PoseTracker(PoseOptions(source, steady=False, focal_px=exact.focal_px))
    first = invert_poses(world.world_from_camera[0])
    for n in (0, 7, 15):
        pose = tracker.push(exact.frames[n])
        assert pose.source == source
        error = invert_poses(first @ world.world_from_camera[n]) @ pose.world_from_camera
        assert np.linalg.norm(error[:3, 3]) < 5e-3
        assert rotation_angles_deg(error[:3, :3]) < 0.1
        assert pose.scale == pytest.approx(1, abs=2e-3)


def test_points_that_disagree_do_not_bend_a_robust_pose(world):
    frame = walk(world, EXACT).frames[9]
    bent = np.array(frame.points_world)
    bent[:22] += (0.8, -0.5, 0.3)
    wrong = replace(frame, points_world=bent)
    true = frame.world_from_camera
    error = {}
    for source in ("procrustes", "robust", "pnp"):
        pose = PoseTracker(PoseOptions(source, steady=False, focal_px=86.4)).push(wrong)
        error[source] = np.linalg.norm(pose.world_from_camera[:3, 3] - true[:3, 3])
    assert error["procrustes"] > 0.1
    assert error["robust"] < 0.01
    assert error["pnp"] < 0.01


def test_scale_between_both_pointmaps_is_told(world):
    frame = walk(world, EXACT).frames[4]
    half = replace(frame, points_camera=0.5 * frame.points_camera)
    for source in ("robust", "pnp"):
        pose = PoseTracker(PoseOptions(source, steady=False, focal_px=86.4)).push(half)
        assert pose.scale == pytest.approx(2, rel=2e-3)


def test_what_fails_is_replaced_and_says_so_and_is_never_an_identity(world):
    frame = walk(world, EXACT).frames[4]
    rng = np.random.default_rng(0)
    senseless = replace(frame, points_world=rng.normal(0, 5, frame.points_world.shape).astype(np.float32))
    pose = PoseTracker(PoseOptions("pnp", focal_px=86.4)).push(senseless)
    assert pose.source == "head"
    np.testing.assert_array_equal(pose.world_from_camera, frame.world_from_camera)
    nothing = replace(senseless, world_from_camera=np.full((4, 4), np.nan))
    pose = PoseTracker(PoseOptions("pnp", focal_px=86.4)).push(nothing, world.rgb[4])
    assert not pose.found
    assert np.isnan(pose.world_from_camera).all()


def test_a_frame_that_the_network_cannot_place_is_placed_by_the_pictures(world):
    exact = walk(world, EXACT)
    tracker = PoseTracker(PoseOptions("pnp", focal_px=exact.focal_px))
    tracker.push(exact.frames[3], world.rgb[3])
    nothing = replace(
        exact.frames[4],
        points_world=np.full_like(exact.frames[4].points_world, np.nan),
        world_from_camera=np.full((4, 4), np.nan),
    )
    pose = tracker.push(nothing, world.rgb[4])
    assert pose.source == "step"
    assert np.linalg.norm(pose.world_from_camera[:3, 3] - exact.frames[4].world_from_camera[:3, 3]) < 0.02
    # and the next one is placed beside it
    pose = tracker.push(exact.frames[5], world.rgb[5])
    assert pose.source == "pnp"
    assert np.linalg.norm(pose.world_from_camera[:3, 3] - exact.frames[5].world_from_camera[:3, 3]) < 0.02


def test_steadied_poses_are_steadier_than_the_heads_and_than_those_of_points_alone(world):
    streamed = walk(world, seed=3)
    error = {"head": absolute_trajectory_error(head_path(streamed.frames), world.world_from_camera)}
    for steady in (False, True):
        tracker = PoseTracker(PoseOptions("pnp", steady))
        poses = [tracker.push(f, rgb).world_from_camera for f, rgb in zip(streamed.frames, world.rgb)]
        error[steady] = absolute_trajectory_error(np.stack(poses), world.world_from_camera)
    assert error[True].step_translation_rmse < 0.9 * error[False].step_translation_rmse
    assert error[True].step_rotation_deg_rmse < 0.6 * error["head"].step_rotation_deg_rmse
    assert error[True].ate_rmse < error[False].ate_rmse


def test_gains_follow_what_wanders_and_hold_against_what_jitters():
    rng = np.random.default_rng(0)
    jitter = np.diff(rng.normal(0, 0.02, (200, 7)), axis=0) + rng.normal(0, 0.002, (199, 7))
    assert (gains(jitter) < 0.45).all()
    assert (gains(rng.normal(0, 0.02, (199, 7))) > 0.75).all()
    assert (gains(np.zeros((2, 7))) == 0.5).all()


def test_the_lens_is_found_where_it_is_not_known(world):
    tracker = PoseTracker()
    assert np.isnan(tracker.focal_px)
    for frame in walk(world, StreamErrors(focal_common=0.0), seed=1).frames[:8]:
        tracker.push(frame)
    assert tracker.focal_px == pytest.approx(86.4, rel=0.015)


def test_weighted_as_published():
    """Procrustes with weights log(confidence) * log(confidence), by hand on four points of which two have none."""
    from backend.streaming.poses import procrustes

    camera = np.array([[[0, 0, 2.0], [1, 0, 2], [0, 1, 3], [5, 5, 5]]])
    world = camera + np.array([1.0, 2.0, 3.0])
    world[0, 3] = 50
    confidence = np.array([[3.0, 2.0, 5.0, 1.0]])
    frame = SimpleNamespace(
        points_camera=camera, points_world=world, confidence_camera=confidence, confidence_world=confidence
    )
    pose = procrustes(frame)
    np.testing.assert_allclose(pose.world_from_camera[:3, 3], (1, 2, 3), atol=1e-9)
    np.testing.assert_allclose(pose.world_from_camera[:3, :3], np.eye(3), atol=1e-9)
