"""Alignment whole: cameras, lens, depth and movers of filmed rooms, from what oracles in a network's place tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from backend.align.align import MoverOptions, align
from backend.align.graph import make_pairs
from backend.align.unknowns import Knowns
from backend.wire import UserError
from tests.pair_oracle import EXACT, Errors
from tests.worlds import hand_held_room, large_mover, locked_off, zooming

from .by_oracle import GRAPH, depth_error, overlap, path_error, predicted, with_garbage

FRAMES = 8
NOISY = Errors()


@pytest.fixture(scope="module")
def room():
    return hand_held_room(FRAMES, 48, 32)


@pytest.fixture(scope="module")
def exact(room):
    return predicted(room, EXACT)


@pytest.fixture(scope="module")
def noisy(room):
    return predicted(room, NOISY)


@pytest.fixture(scope="module")
def found(noisy):
    return align(*noisy, FRAMES)


def test_exact_predictions_give_the_exact_world(exact, room):
    """Up to half precision, in which predictions come."""
    found = align(*exact, FRAMES)
    error = path_error(found.camera_from_world, room)
    assert error.ate_rmse < 5e-4 * error.path_length
    assert error.rotation_deg_rmse < 0.01
    np.testing.assert_allclose(found.focal_px, room.intrinsics[:, 0], rtol=2e-4)
    assert depth_error(found.depth, room) < 5e-4
    assert overlap(found.moving, room.dynamic) > 0.88
    assert found.placed.all()


def test_errors_of_a_network_average_out(found, room):
    error = path_error(found.camera_from_world, room)
    assert error.ate_rmse < 0.012 * error.path_length
    assert error.rotation_deg_rmse < 0.25
    np.testing.assert_allclose(found.focal_px, room.intrinsics[:, 0], rtol=0.015)
    assert depth_error(found.depth, room) < 0.012
    assert overlap(found.moving, room.dynamic) > 0.85


def test_depth_is_for_the_cameras_and_the_scale_of_the_world_is_one(found, room):
    """The unit of the depth is that of the path: the similarity that brings the path to the truth brings the depth."""
    scale = path_error(found.camera_from_world, room).alignment.scale
    assert np.median(scale * found.depth.numpy() / room.depth) == pytest.approx(1, abs=0.02)


def test_flow_makes_it_more_precise(noisy, found, room):
    without = align(noisy[0], None, FRAMES)
    for result in (without, found):
        assert result.placed.all()
    assert not without.moving.any()
    assert (
        path_error(found.camera_from_world, room).ate_rmse < 0.5 * path_error(without.camera_from_world, room).ate_rmse
    )
    assert depth_error(found.depth, room) < depth_error(without.depth, room)


def test_the_same_input_gives_the_same_result(noisy, found):
    again = align(*noisy, FRAMES)
    assert torch.equal(again.camera_from_world, found.camera_from_world)
    assert torch.equal(again.depth, found.depth)


def test_a_known_focal_length_is_kept(noisy, room):
    knowns = Knowns(focal_px=torch.from_numpy(room.intrinsics[:, 0] * 1.02))
    result = align(*noisy, FRAMES, knowns=knowns)
    np.testing.assert_allclose(result.focal_px, knowns.focal_px, rtol=1e-12)


def test_known_poses_are_kept_and_the_rest_stands_in_their_world(noisy, room):
    poses = torch.from_numpy(np.linalg.inv(room.world_from_camera))
    some = poses.clone()
    some[[2, 3, 6]] = torch.nan
    result = align(*noisy, FRAMES, knowns=Knowns(camera_from_world=some))
    known = [0, 1, 4, 5, 7]
    assert torch.equal(result.camera_from_world[known], poses[known])
    centres = np.linalg.inv(result.camera_from_world.numpy())[:, :3, 3]
    assert np.linalg.norm(centres - room.world_from_camera[:, :3, 3], axis=1).max() < 0.04
    assert np.median(result.depth.numpy() / room.depth) == pytest.approx(1, abs=0.02)


def test_a_locked_camera_does_not_move_and_its_movers_are_found():
    world = locked_off(FRAMES, 48, 32)
    result = align(*predicted(world, NOISY), FRAMES, knowns=Knowns(locked=True))
    assert torch.equal(result.camera_from_world, torch.eye(4, dtype=torch.float64).expand(FRAMES, 4, 4))
    np.testing.assert_allclose(result.focal_px, world.intrinsics[:, 0], rtol=0.03)
    assert depth_error(result.depth, world, ~world.dynamic) < 0.02
    assert overlap(result.moving, world.dynamic) > 0.85


@pytest.mark.slow
def test_a_zoom_is_followed():
    world = zooming(10, 48, 32)
    result = align(*predicted(world, NOISY), 10, knowns=Knowns(per_frame_focal=True, focal_steadiness=0.05))
    assert (result.focal_px.diff() > 0).all()
    np.testing.assert_allclose(result.focal_px, world.intrinsics[:, 0], rtol=0.03)
    assert path_error(result.camera_from_world, world).ate_relative < 0.02


def test_something_large_that_moves_does_not_take_the_camera_with_it():
    world = large_mover(FRAMES, 48, 32)
    result = align(*predicted(world, NOISY), FRAMES)
    assert path_error(result.camera_from_world, world).ate_relative < 0.02
    assert overlap(result.moving, world.dynamic) > 0.85


@pytest.mark.slow
def test_movers_that_the_user_knows_are_movers_and_looking_for_more_can_be_left_out(noisy, found, room):
    given = torch.zeros(room.dynamic.shape, dtype=torch.bool)
    given[:, :4, :4] = True
    added = align(*noisy, FRAMES, movers=MoverOptions(known=given))
    assert added.moving[given].all()
    assert overlap(added.moving & ~given, found.moving & ~given) > 0.9
    alone = align(*noisy, FRAMES, movers=MoverOptions(known=given, find=False))
    assert torch.equal(alone.moving, given)
    assert (alone.scores == 0).all()


@pytest.mark.slow
def test_the_threshold_says_how_much_is_taken_to_move(noisy, found):
    """Of the same scores more is masked below a lower threshold."""
    low = align(*noisy, FRAMES, movers=MoverOptions(threshold=0.5))
    high = align(*noisy, FRAMES, movers=MoverOptions(threshold=1.8))
    assert high.moving.sum() < found.moving.sum() < low.moving.sum()


def test_cleaning_takes_confidence_from_few_points_and_depth_from_none(noisy, found):
    raw = align(*noisy, FRAMES, clean=False)
    assert torch.equal(raw.depth, found.depth)
    changed = raw.confidence != found.confidence
    assert (found.confidence[changed] == 1).all()
    assert changed.float().mean() < 0.1


@pytest.mark.parametrize("bad", [0, 4])
def test_a_frame_that_is_garbage_has_no_camera_and_disturbs_no_other(exact, room, bad):
    result = align(*with_garbage(*exact, bad), FRAMES)
    assert torch.nonzero(~result.placed)[:, 0].tolist() == [bad]
    assert result.camera_from_world[bad].isnan().all()
    assert (result.depth[bad] == 0).all()
    assert result.log_scale.isnan().tolist() == (exact[0].edges == bad).any(1).tolist()
    error = path_error(result.camera_from_world, room)
    assert error.ate_rmse < 1e-3 * error.path_length
    np.testing.assert_allclose(result.focal_px, room.intrinsics[:, 0], rtol=1e-3)


def test_two_frames_of_garbage_leave_too(exact, room):
    predictions, flows = exact
    for bad in (1, 6):
        predictions, flows = with_garbage(predictions, flows, bad)
    result = align(predictions, flows, FRAMES)
    assert torch.nonzero(~result.placed)[:, 0].tolist() == [1, 6]
    assert path_error(result.camera_from_world, room).ate_rmse < 2e-3


def test_a_frame_without_any_pairs_has_no_camera(room):
    pairs = [(i, j) for i, j in make_pairs(GRAPH, FRAMES) if 3 not in (i, j)]
    result = align(*predicted(room, EXACT, pairs), FRAMES)
    assert torch.nonzero(~result.placed)[:, 0].tolist() == [3]
    assert (result.depth[3] == 0).all()
    assert (result.confidence[3] == 0).all()
    assert path_error(result.camera_from_world, room).ate_rmse < 1e-3


def test_a_clip_that_falls_apart_is_refused(exact):
    predictions, flows = exact
    for bad in range(2, FRAMES):
        predictions, flows = with_garbage(predictions, flows, bad)
    with pytest.raises(UserError, match=r"placed for only \d of 8 frames; use a part of the clip"):
        align(predictions, flows, FRAMES)


def test_a_network_that_is_not_sure_of_anything_is_refused(exact):
    nothing = torch.ones_like(exact[0].confidence_i)
    unsure = replace(exact[0], confidence_i=nothing, confidence_j=nothing)
    with pytest.raises(UserError, match="placed for only"):
        align(unsure, exact[1], FRAMES)


@pytest.mark.slow
def test_progress_goes_from_nothing_to_all_and_may_stop_it_at_any_time(exact):
    told = []
    align(*exact, FRAMES, progress=told.append)
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] > 0.95

    class Stop(Exception):
        pass

    for when in (0.3, 0.96):

        def stop(fraction: float, when=when) -> None:
            if fraction >= when:
                raise Stop

        with pytest.raises(Stop):
            align(*exact, FRAMES, progress=stop)
