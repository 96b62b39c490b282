"""Laws of image motion under a rigid scene."""

import numpy as np
import pytest

from backend.geometry.camera import project, rays
from backend.geometry.motion import (
    apply_homography,
    epipolar_distance,
    forward_backward_error,
    fundamental,
    inverse_depth_equations,
    rotation_homography,
    unexplained_motion,
)
from backend.geometry.rigid import invert_poses
from tests.worlds import look

INTRINSICS = np.array([310.0, 305.0, 160.0, 90.0])
CAMERA_A = look(0.0, 0.0, 0.0, (0, 0, 0))
CAMERA_B = look(0.1, -0.05, 0.02, (0.4, -0.1, 0.2))
TURNED = look(0.1, -0.05, 0.02, (0, 0, 0))


def b_from_a(camera_b):
    return invert_poses(camera_b) @ CAMERA_A


def seen_by(camera, points):
    return project(points, INTRINSICS, camera)[0]


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform((-1, -0.6, 2), (1, 0.6, 6), (50, 3))


def test_static_points_lie_on_their_epipolar_lines(points):
    f = fundamental(b_from_a(CAMERA_B), INTRINSICS, INTRINSICS)
    assert epipolar_distance(seen_by(CAMERA_A, points), seen_by(CAMERA_B, points), f).max() < 1e-9


def test_epipolar_distance_is_the_step_across_the_line(points):
    """Moving a point by 3 pixels along its line's normal puts it 3 pixels from the line."""
    f = fundamental(b_from_a(CAMERA_B), INTRINSICS, INTRINSICS)
    xy_a, xy_b = seen_by(CAMERA_A, points), seen_by(CAMERA_B, points)
    normal = (np.column_stack([xy_a, np.ones(len(xy_a))]) @ f.T)[:, :2]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    np.testing.assert_allclose(epipolar_distance(xy_a, xy_b + 3 * normal, f), 3)


def test_a_turning_camera_moves_points_by_a_homography_whatever_their_depth(points):
    h = rotation_homography(b_from_a(TURNED), INTRINSICS, INTRINSICS)
    np.testing.assert_allclose(apply_homography(h, seen_by(CAMERA_A, points)), seen_by(TURNED, points))


@pytest.mark.parametrize("camera_b", [CAMERA_B, TURNED, CAMERA_A], ids=["travelling", "turning", "still"])
def test_the_camera_explains_all_motion_of_a_static_scene(points, camera_b):
    xy_a, xy_b = seen_by(CAMERA_A, points), seen_by(camera_b, points)
    assert unexplained_motion(xy_a, xy_b, b_from_a(camera_b), INTRINSICS, INTRINSICS).max() < 1e-9


def test_under_a_camera_that_does_not_travel_every_movement_is_unexplained(points):
    xy_a, xy_b = seen_by(CAMERA_A, points), seen_by(TURNED, points) + np.array([3, 4])
    np.testing.assert_allclose(unexplained_motion(xy_a, xy_b, b_from_a(TURNED), INTRINSICS, INTRINSICS), 5)


def test_inverse_depth_equations_hold_at_the_true_depth():
    depth = np.random.default_rng(1).uniform(2, 6, (9, 16))
    intrinsics = INTRINSICS / 20
    ray = rays(intrinsics, 16, 9)
    xy_b, z_b = project((ray * depth[..., None]).reshape(-1, 3), intrinsics, CAMERA_B)
    slope, offset, q_z, e_z = inverse_depth_equations(xy_b.reshape(9, 16, 2), ray, b_from_a(CAMERA_B), intrinsics)
    np.testing.assert_allclose(slope / depth[..., None], offset, atol=1e-12)
    np.testing.assert_allclose((q_z + e_z / depth) * depth, z_b.reshape(9, 16))


def test_there_and_back_by_opposite_flows_is_home():
    flow = np.full((4, 5, 2), (1.5, -2.0))
    assert forward_backward_error(flow, -flow).max() == 0
    np.testing.assert_allclose(forward_backward_error(flow, -flow + (3, 4)), 5)
