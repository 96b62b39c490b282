"""What moves in a stream: what other frames see through, in worlds whose movers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.streaming.movers import MoverWatch, PosedDepth, mover_scores
from tests.worlds import World, film, locked_off, room, square_intrinsics

SIZE = 64, 48


def frames_of(world: World, noise: float = 0.0) -> list[PosedDepth]:
    """The world as a network without drift would have it, whose depth is wrong by so much smoothly and per pixel."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, noise, (len(world.depth), 4, 4))
    smooth = np.kron(coarse, np.ones((1, world.size[1] // 4, world.size[0] // 4)))
    depth = world.depth * np.exp(smooth + rng.normal(0, noise / 2, world.depth.shape))
    return [PosedDepth(*parts) for parts in zip(depth, world.world_from_camera, world.intrinsics)]


def scores(frames: list[PosedDepth]) -> np.ndarray:
    return np.stack(list(mover_scores(frames.__getitem__, len(frames))))


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    return (mask & truth).sum() / (mask | truth).sum()


@pytest.mark.parametrize("world", [room(20, *SIZE), locked_off(20, *SIZE)], ids=["moving camera", "tripod"])
def test_a_mover_is_found_from_frames_before_and_after(world):
    assert overlap(scores(frames_of(world)) > 1, world.dynamic) > 0.95
    assert overlap(scores(frames_of(world, 0.02)) > 1, world.dynamic) > 0.85


def test_in_a_stream_it_is_found_once_it_stands_where_it_did_not():
    world = room(20, *SIZE)
    watch = MoverWatch()
    masks = np.stack([watch.push(frame) for frame in frames_of(world, 0.01)]) > 1
    assert not masks[:2].any(), "two frames must have seen the place empty"
    assert overlap(masks[14:], world.dynamic[14:]) > 0.9


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_in_a_world_that_stands_still_nothing_moves(noise):
    assert (scores(frames_of(room(12, *SIZE, with_box=False), noise)) > 1).mean() < 1e-4


def test_what_moves_leaves_no_trail_in_the_still_world():
    world = room(20, *SIZE)
    still = scores(frames_of(world, 0.01)) <= 1
    assert (still & world.dynamic).sum() < 0.1 * world.dynamic.sum()


def test_frames_without_a_camera_are_not_judged_and_do_not_judge():
    world = room(12, *SIZE)
    known, lost = frames_of(world), frames_of(world)
    lost[5] = PosedDepth(lost[5].depth, np.full((4, 4), np.nan), lost[5].intrinsics)
    found = scores(lost)
    assert not found[5].any()
    watch, whole = MoverWatch(), MoverWatch()
    of_lost = [watch.push(frame) for frame in lost]
    of_known = [whole.push(frame) for frame in known]
    assert np.array_equal(of_lost[4], of_known[4])
    assert not of_lost[5].any()
    assert overlap(found > 1, world.dynamic) == pytest.approx(overlap(scores(known) > 1, world.dynamic), abs=0.15)


def test_what_is_unknown_neither_moves_nor_shows_that_anything_does():
    world = room(16, *SIZE)
    frames = frames_of(world)
    frames[9] = replace(frames[9], depth=np.where(world.dynamic[9], 0, frames[9].depth))
    assert not (scores(frames)[9] > 1).any()
    nothing = [replace(frame, depth=np.zeros_like(frame.depth)) for frame in frames]
    assert not scores([*frames[:1], *nothing[1:]]).any()


def test_a_stream_keeps_a_bounded_past():
    world = film(np.tile(np.eye(4), (40, 1, 1)), square_intrinsics(30.0, 32, 16, 40), 32, 16)
    watch = MoverWatch(distances=(1, 4))
    for frame in frames_of(world):
        watch.push(frame)
    assert len(watch._past) == 4
