"""Velocities of movers against a world in which they are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.pipeline import with_movers
from backend.run import Run
from backend.wire import CONFIDENCE_FILLED, Capture
from tests.worlds import Mover, as_capture, film, hand_held, square_intrinsics

WIDTH, HEIGHT, FRAMES = 256, 144, 8
#: Metres per second: across the picture, down, and away from the camera.
VELOCITY = np.array([1.2, -0.4, 1.5])


@pytest.fixture(scope="module")
def capture() -> Capture:
    """A panel that travels through the room before a hand-held camera; depth, masks and cameras are exact."""
    seconds = np.arange(FRAMES)[:, None] / 24
    mover = Mover((-0.3, 0.5, 2.4) + VELOCITY * seconds, (0.35, 0.5))
    lens = square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, FRAMES)
    return as_capture(film(hand_held(FRAMES), lens, WIDTH, HEIGHT, mover))


@pytest.fixture
def moving(tmp_path):
    return lambda capture: with_movers(capture, Run(work_dir=tmp_path))


def misses(capture: Capture, frames=slice(None), velocity=VELOCITY) -> tuple[np.ndarray, float]:
    """(N,) by how much velocities miss the true one, as shares of it, and the share of the mover that has any."""
    found = np.asarray(capture.velocity[frames], np.float64)[np.asarray(capture.dynamic[frames])]
    known = (found != 0).any(axis=1)
    return np.linalg.norm(found[known] - velocity, axis=1) / np.linalg.norm(velocity), float(known.mean())


def test_velocities_are_near_the_truth_in_every_direction(capture, moving):
    made = moving(capture)
    assert made.velocity.dtype == np.float16
    assert made.objects.dtype == np.uint8
    missed, known = misses(made)
    assert known > 0.9
    assert np.median(missed) < 0.03
    assert np.percentile(missed, 95) < 0.15  # its rims included


def test_what_stands_still_has_none(capture, moving):
    made = moving(capture)
    assert not np.asarray(made.velocity)[~capture.dynamic].any()
    assert np.isfinite(made.velocity).all()
    np.testing.assert_array_equal(made.objects > 0, capture.dynamic)


def test_the_first_and_the_last_frame_have_theirs_from_one_side(capture, moving):
    made = moving(capture)
    for end in (0, -1):
        missed, known = misses(made, slice(end, end + 1 or None))
        assert known > 0.8
        assert np.median(missed) < 0.06


def test_seconds_are_those_of_the_clip(capture, moving):
    """A clip of twice the rate, whose frames are not evenly spaced: what moved as far moved faster."""
    seconds = np.cumsum([0, 1, 1, 2, 2, 1, 1, 2]) / 48
    uneven = replace(capture, clip=replace(capture.clip, timestamps=tuple(seconds)))
    missed, _ = misses(moving(uneven), slice(1, 2), velocity=2 * VELOCITY)
    assert np.median(missed) < 0.03
    missed, _ = misses(moving(uneven), slice(2, 3), velocity=2 * VELOCITY * 2 / 3)
    assert np.median(missed) < 0.03


def test_a_frame_without_a_camera_has_none_and_its_neighbours_do_without_it(capture, moving):
    poses = capture.world_from_camera.copy()
    poses[3] = np.nan
    made = moving(replace(capture, world_from_camera=poses))
    assert not made.velocity[3].any()
    for t in (2, 4):
        missed, known = misses(made, slice(t, t + 1))
        assert known > 0.8
        assert np.median(missed) < 0.06


def test_depth_that_is_a_guess_or_is_not_there_gives_no_velocity(capture, moving):
    depth, confidence = capture.depth.copy(), capture.confidence.copy()
    confidence[capture.dynamic] = CONFIDENCE_FILLED
    assert not moving(replace(capture, confidence=confidence)).velocity.any()
    depth[capture.dynamic] = 0
    assert not moving(replace(capture, depth=depth)).velocity.any()


def test_masks_that_are_too_large_do_not_pull_the_background_along(capture, moving):
    """A rim of the wall counts as the mover: where depth jumps nothing is measured, and beyond it the wall stands."""
    grown = capture.dynamic.copy()
    for step in range(1, 7):
        grown[:, :, step:] |= capture.dynamic[:, :, :-step]
        grown[:, :, :-step] |= capture.dynamic[:, :, step:]
    made = moving(replace(capture, dynamic=grown))
    missed, known = misses(replace(made, dynamic=capture.dynamic))
    assert known > 0.9
    assert np.median(missed) < 0.03
    speed = np.linalg.norm(np.asarray(made.velocity, np.float64), axis=-1)
    assert speed.max() < 2 * np.linalg.norm(VELOCITY)


def test_where_nothing_moves_the_capture_is_left_as_it_is(capture, moving):
    still = replace(capture, dynamic=np.zeros_like(capture.dynamic))
    assert moving(still) is still
