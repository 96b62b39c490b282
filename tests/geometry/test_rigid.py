"""Laws of rotations, poses and similarities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from backend.geometry.camera import transform
from backend.geometry.rigid import (
    Similarity,
    invert_poses,
    matrices_from_quaternions,
    poses_from,
    quaternions_from_matrices,
    rotation_angles_deg,
    similarity_between,
)

seeds = st.integers(0, 2**31)


def random_similarity(rng) -> Similarity:
    return Similarity(float(np.exp(rng.normal())), Rotation.random(random_state=rng).as_matrix(), rng.normal(0, 3, 3))


def random_poses(rng, count: int) -> np.ndarray:
    return poses_from(Rotation.random(count, random_state=rng).as_matrix(), rng.normal(0, 2, (count, 3)))


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_similarity_and_its_inverse_leave_points_and_poses_where_they_were(seed):
    rng = np.random.default_rng(seed)
    s, points, poses = random_similarity(rng), rng.normal(size=(7, 3)), random_poses(rng, 4)
    np.testing.assert_allclose(s.inverse().apply(s.apply(points)), points, atol=1e-9)
    np.testing.assert_allclose(s.inverse().apply_to_poses(s.apply_to_poses(poses)), poses, atol=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_composing_is_applying_one_after_the_other(seed):
    rng = np.random.default_rng(seed)
    a, b, points = random_similarity(rng), random_similarity(rng), rng.normal(size=(5, 3))
    np.testing.assert_allclose(a.compose(b).apply(points), a.apply(b.apply(points)), atol=1e-9)
    np.testing.assert_allclose(transform(a.matrix(), points), a.apply(points), atol=1e-9)


def test_a_moved_camera_sees_moved_points_at_the_same_place_scaled():
    rng = np.random.default_rng(3)
    s, pose, points = random_similarity(rng), random_poses(rng, 1)[0], rng.normal(size=(6, 3))
    seen_before = transform(invert_poses(pose), points)
    seen_after = transform(invert_poses(s.apply_to_poses(pose)), s.apply(points))
    np.testing.assert_allclose(seen_after, s.scale * seen_before, atol=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_a_known_similarity_is_recovered(seed):
    rng = np.random.default_rng(seed)
    truth, points = random_similarity(rng), rng.normal(size=(9, 3))
    found = similarity_between(points, truth.apply(points))
    assert found.scale == pytest.approx(truth.scale, rel=1e-9)
    np.testing.assert_allclose(found.rotation, truth.rotation, atol=1e-8)
    np.testing.assert_allclose(found.translation, truth.translation, atol=1e-8)


def test_points_in_one_plane_are_enough_and_never_give_a_reflection():
    rng = np.random.default_rng(5)
    flat = rng.normal(size=(8, 3)) * (1, 1, 0)
    mirrored = rng.normal(size=(8, 3))
    truth = random_similarity(rng)
    np.testing.assert_allclose(similarity_between(flat, truth.apply(flat)).rotation, truth.rotation, atol=1e-8)
    assert np.linalg.det(similarity_between(mirrored, mirrored * (1, 1, -1)).rotation) == pytest.approx(1)


def test_without_scale_the_scale_is_one():
    rng = np.random.default_rng(6)
    points = rng.normal(size=(8, 3))
    found = similarity_between(points, 2.5 * points + 1, with_scale=False)
    assert found.scale == 1.0
    np.testing.assert_allclose(found.apply(points).mean(0), (2.5 * points + 1).mean(0), atol=1e-9)


def test_the_fit_is_least_squares_no_small_change_improves_it():
    rng = np.random.default_rng(7)
    source = rng.normal(size=(20, 3))
    target = random_similarity(rng).apply(source) + rng.normal(0, 0.1, (20, 3))
    best = similarity_between(source, target)
    cost = ((best.apply(source) - target) ** 2).sum()
    for _ in range(50):
        nudge = Similarity(
            float(np.exp(rng.normal(0, 1e-3))),
            Rotation.from_rotvec(rng.normal(0, 1e-3, 3)).as_matrix(),
            rng.normal(0, 1e-3, 3),
        )
        assert ((nudge.compose(best).apply(source) - target) ** 2).sum() >= cost


@pytest.mark.parametrize(
    "points",
    [np.zeros((0, 3)), np.eye(3)[:2], np.ones((5, 3)), np.outer(np.arange(6.0), [1, 2, 3]), np.full((4, 3), np.nan)],
    ids=["none", "two", "one place", "one line", "not finite"],
)
def test_points_that_determine_nothing_are_refused(points):
    with pytest.raises(ValueError, match=r"line|finite"):
        similarity_between(points, points)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_quaternions_are_xyzw_and_come_back(seed):
    rotations = Rotation.random(5, random_state=np.random.default_rng(seed)).as_matrix()
    quaternions = quaternions_from_matrices(rotations)
    np.testing.assert_allclose(matrices_from_quaternions(quaternions), rotations, atol=1e-12)
    np.testing.assert_allclose(matrices_from_quaternions(-2 * quaternions), rotations, atol=1e-12)


def test_a_quarter_turn_about_z_is_xyzw_0_0_half_half():
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(quaternions_from_matrices(quarter), [0, 0, np.sqrt(0.5), np.sqrt(0.5)], atol=1e-12)
    assert rotation_angles_deg(quarter) == pytest.approx(90)


def test_inverted_poses_are_inverses_and_unknown_ones_stay_unknown():
    poses = random_poses(np.random.default_rng(8), 4)
    np.testing.assert_allclose(invert_poses(poses) @ poses, np.tile(np.eye(4), (4, 1, 1)), atol=1e-12)
    assert np.isnan(invert_poses(np.full((1, 4, 4), np.nan))[:, :3]).all()
