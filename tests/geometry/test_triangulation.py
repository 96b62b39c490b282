"""Points from planes: rays meet where they should, and weights decide where they do not."""

import numpy as np
import pytest

from backend.geometry.camera import project
from backend.geometry.triangulation import points_on_planes
from tests.worlds import hand_held


def test_rays_of_several_cameras_meet_in_the_point():
    rng = np.random.default_rng(0)
    true = rng.normal((0, 0, 5), 1, (7, 3))
    cameras, lens = hand_held(4), np.array([100.0, 100.0, 50.0, 40.0])
    planes, which = [], []
    for camera in cameras:
        xy, _ = project(true, lens, camera)
        for k in (0, 1):
            normal = camera[:3, k] - ((xy[:, k] - lens[2 + k]) / 100)[:, None] * camera[:3, 2]
            planes.append((normal, normal @ camera[:3, 3], np.ones(7)))
            which.append(np.arange(7))
    joined = tuple(np.concatenate(part) for part in zip(*planes))
    np.testing.assert_allclose(points_on_planes(np.concatenate(which), [joined], 7), true, atol=1e-5)


def test_heavier_planes_pull_harder():
    axes = np.eye(3)
    one = np.zeros(3, int)
    parts = [(axes, np.zeros(3), np.ones(3)), (axes, np.full(3, 4.0), np.full(3, 3.0))]
    np.testing.assert_allclose(points_on_planes(one, parts, 1), [[3.0, 3.0, 3.0]], rtol=1e-6)


def test_a_point_that_is_left_free_stays_finite():
    plane = (np.array([[0.0, 0.0, 1.0]]), np.array([2.0]), np.ones(1))
    assert points_on_planes(np.zeros(1, int), [plane], 1)[0] == pytest.approx([0, 0, 2])
