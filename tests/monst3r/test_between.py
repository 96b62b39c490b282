"""Frames between the solved ones: their camera from neighbours, their depth and motion where the flow leads."""

import numpy as np
import pytest

from backend.monst3r.between import CARRIED, Solved, fill_between
from backend.run import Run
from backend.wire import Cancelled
from tests.align.by_oracle import overlap, still_room
from tests.pair_oracle import EXACT, FlowOracle
from tests.worlds import World, hand_held_room

FRAMES = 9
KEYS = np.array([0, 4, 8])
TIMES = np.arange(FRAMES) / 24


def solved(world: World, keys=KEYS, **changes) -> Solved:
    """Key frames solved without error; of the movers in the world, the score is 2."""
    values = {
        "world_from_camera": world.world_from_camera[keys],
        "focal_px": world.intrinsics[keys, 0],
        "depth": world.depth[keys],
        "confidence": np.full(world.depth[keys].shape, 5.0, np.float32),
        "scores": world.dynamic[keys].astype(np.float16) * 2,
        "interpolated": np.zeros(len(keys), bool),
        "wanted": np.ones(len(keys), bool),
    }
    return Solved(**(values | changes))


@pytest.fixture(scope="module")
def room() -> World:
    return hand_held_room(FRAMES, 48, 32)


def test_key_frames_stay_as_they_are_and_the_others_are_told_apart(room):
    given = solved(room)
    found = fill_between(given, KEYS, TIMES, FlowOracle(room, EXACT), Run())
    for name in ("world_from_camera", "depth", "confidence", "scores", "focal_px"):
        np.testing.assert_allclose(getattr(found, name)[KEYS], getattr(given, name))
    assert np.flatnonzero(~found.interpolated).tolist() == KEYS.tolist()
    assert np.flatnonzero(found.wanted).tolist() == KEYS.tolist()


def test_cameras_and_lenses_between_are_interpolated_over_time():
    world = still_room(FRAMES)
    path = np.tile(np.eye(4), (3, 1, 1))
    path[:, 0, 3] = [0, 1, 3]
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1.2])  # a clock that is not even
    given = solved(world, world_from_camera=path, focal_px=np.array([40.0, 50.0, 50.0]))
    found = fill_between(given, KEYS, times, None, Run())
    np.testing.assert_allclose(found.world_from_camera[[1, 2, 3], 0, 3], [0.25, 0.5, 0.75])
    np.testing.assert_allclose(found.world_from_camera[[5, 7], 0, 3], [1.25, 1.75])
    np.testing.assert_allclose(found.focal_px[:5], [40, 42.5, 45, 47.5, 50])


def test_depth_between_is_the_world_s_within_a_few_percent():
    """Seen from the frame's own camera, which is nearer to the wall than the key frame's."""
    world = still_room(FRAMES, 96, 64)
    found = fill_between(solved(world), KEYS, TIMES, FlowOracle(world, EXACT), Run())
    between = np.setdiff1d(np.arange(FRAMES), KEYS)
    some = found.depth[between] > 0
    assert some.mean() > 0.85
    off = np.abs(found.depth[between] / world.depth[between] - 1)[some]
    assert np.median(off) < 0.01
    assert np.quantile(off, 0.9) < 0.03
    copied = np.abs(world.depth[[0, 0, 4, 4, 8, 8]] / world.depth[between] - 1)
    assert np.median(off) < 0.3 * np.median(copied)


def test_confidence_is_less_for_what_was_carried_over_and_none_where_flow_is_not_valid():
    world = still_room(FRAMES)
    flow = FlowOracle(world, EXACT)
    found = fill_between(solved(world), KEYS, TIMES, flow, Run())
    valid = flow.predict([(3, 4)]).valid[0].numpy()
    np.testing.assert_allclose(found.confidence[3][valid], 1 + CARRIED * 4)
    assert (found.confidence[3][~valid] == 0).all()
    assert (found.depth[3][~valid] == 0).all()


def test_the_mask_follows_what_moves():
    """Better than the nearest key frame's mask as it is; what the flow cannot follow, at the edges, is as in that."""
    room = hand_held_room(FRAMES)
    found = fill_between(solved(room), KEYS, TIMES, FlowOracle(room, EXACT), Run()).scores > 1
    nearest = {1: 0, 3: 4, 5: 4, 7: 8}
    for n, key in nearest.items():
        assert (found[n] & room.dynamic[n]).sum() > 0.85 * room.dynamic[n].sum()
        assert overlap(found[n], room.dynamic[n]) > max(0.7, overlap(room.dynamic[key], room.dynamic[n]) + 0.03)


def test_without_flow_depth_is_unknown_and_motion_that_of_the_same_pixel(room):
    found = fill_between(solved(room), KEYS, TIMES, None, Run())
    assert (found.depth[[1, 2, 3]] == 0).all()
    assert (found.confidence[[1, 2, 3]] == 0).all()
    np.testing.assert_array_equal(found.scores[3], found.scores[4])
    assert np.isfinite(found.world_from_camera).all()


def test_a_key_frame_that_was_not_placed_gives_no_depth_and_gets_a_camera_from_its_neighbours(room):
    poses, depth, confidence = (
        a.copy() for a in (room.world_from_camera[KEYS], room.depth[KEYS], np.ones((3, 32, 48)))
    )
    poses[1], depth[1], confidence[1] = np.nan, 0, 0
    given = solved(room, world_from_camera=poses, depth=depth, confidence=confidence)
    found = fill_between(given, KEYS, TIMES, FlowOracle(room, EXACT), Run())
    assert np.flatnonzero(~found.interpolated).tolist() == [0, 8]
    assert np.isfinite(found.world_from_camera).all()
    assert (found.depth[[3, 4, 5]] == 0).all()
    assert (found.depth[[1, 7]] > 0).any()


def test_nothing_is_extrapolated_beyond_the_first_and_last_that_were_placed(room):
    poses = room.world_from_camera[KEYS].copy()
    poses[2] = np.nan
    found = fill_between(solved(room, world_from_camera=poses), KEYS, TIMES, FlowOracle(room, EXACT), Run())
    assert np.isnan(found.world_from_camera[5:]).all()
    assert (found.depth[5:8] == 0).all()
    assert not found.interpolated[5:].any()


def test_when_every_frame_is_a_key_frame_nothing_is_asked(room):
    class NoFlow:
        def predict(self, edges):
            raise AssertionError("nothing lies between")

    every = np.arange(FRAMES)
    found = fill_between(solved(room, every), every, TIMES, NoFlow(), Run())
    assert not found.interpolated.any()


def test_filling_in_can_be_cancelled(room):
    with pytest.raises(Cancelled):
        fill_between(solved(room), KEYS, TIMES, FlowOracle(room, EXACT), Run(is_cancelled=lambda: True))
