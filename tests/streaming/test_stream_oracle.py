"""The oracle in a streaming network's place: exact without errors, drifting with them, resumed bit for bit."""

import numpy as np
import pytest

from backend.geometry.camera import rays, unproject
from backend.geometry.rigid import invert_poses
from backend.geometry.trajectory import absolute_trajectory_error
from tests.stream_oracle import EXACT, StreamOracle
from tests.worlds import hand_held_room, loop_walk


@pytest.fixture(scope="module")
def world():
    return loop_walk(12, 48, 32)


def test_without_errors_it_says_the_truth_from_the_first_camera(world):
    oracle = StreamOracle(world, EXACT)
    frames = [oracle.push(rgb) for rgb in world.rgb[:3]]
    first = world.world_from_camera[0]
    for n, frame in enumerate(frames):
        np.testing.assert_allclose(first @ frame.world_from_camera, world.world_from_camera[n], atol=1e-12)
        true = rays(world.intrinsics[n], *world.size) * world.depth[n][..., None]
        # all but the points that hang at edges
        assert np.median(np.abs(frame.points_camera - true)) < 1e-6
        in_world = unproject(world.depth[n], world.intrinsics[n], invert_poses(first) @ world.world_from_camera[n])
        assert np.median(np.abs(frame.points_world - in_world)) < 1e-6
        assert frame.confidence_camera.min() >= 1


def test_its_errors_grow_along_the_walk_and_its_scale_wanders(world):
    oracle = StreamOracle(world, seed=1)
    said = np.stack([oracle.push(rgb).world_from_camera for rgb in world.rgb])
    error = absolute_trajectory_error(said, world.world_from_camera)
    assert 0.005 < error.ate_rmse < 1.0
    assert oracle.drift(0).scale == 1.0
    assert oracle.drift(11).scale != 1.0


def test_a_saved_state_goes_on_bit_for_bit(world):
    whole = StreamOracle(world, seed=2)
    expected = [whole.push(rgb) for rgb in world.rgb[:6]]
    begun = StreamOracle(world, seed=2)
    for rgb in world.rgb[:3]:
        begun.push(rgb)
    resumed = StreamOracle(world, seed=2)
    resumed.restore(begun.save())
    for frame, true in zip([resumed.push(rgb) for rgb in world.rgb[3:6]], expected[3:]):
        np.testing.assert_array_equal(frame.points_world, true.points_world)
        np.testing.assert_array_equal(frame.world_from_camera, true.world_from_camera)
        assert frame.pointers == true.pointers
    with pytest.raises(ValueError, match="not a state"):
        resumed.restore({})


def test_points_follow_what_moves_and_the_memory_keeps_where_it_was(world):
    world = hand_held_room(6)
    oracle = StreamOracle(world, EXACT)
    for n, rgb in enumerate(world.rgb):
        frame = oracle.push(rgb)
        true = unproject(world.depth[n], world.intrinsics[n], world.world_from_camera[n])[world.dynamic[n]]
        here = frame.points_world[world.dynamic[n]] @ world.world_from_camera[0][:3, :3].T
        away = np.linalg.norm(here + world.world_from_camera[0][:3, 3] - true, axis=1)
        assert np.median(away) < 1e-5
    assert len(oracle.pointers()) == frame.pointers > 96 * 64 / 256
