"""Numbers of movers: one mover, one number, through crossings, short occlusions and flickering masks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backend.classical.flow import Flows, next_flows
from backend.movers import number_movers
from backend.run import Run
from tests.worlds import Mover, World, film, hand_held, square_intrinsics

WIDTH, HEIGHT = 256, 144


def slide(start, end, half_size, frames: int) -> Mover:
    """A panel that goes from one place to another at a steady pace."""
    return Mover(np.linspace(start, end, frames), half_size)


def filmed(movers: list[Mover], frames: int, pillars=(), motion="moving") -> tuple[World, np.ndarray]:
    """The room with several panels, and the truth (T, H, W): which panel is seen, from 1, and 0 where nothing moves."""
    lens = square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, frames)
    worlds = [film(hand_held(frames, motion), lens, WIDTH, HEIGHT, mover, pillars=pillars) for mover in movers]
    nearest = np.argmin([w.depth for w in worlds], axis=0)
    truth = np.where(np.take_along_axis(np.array([w.dynamic for w in worlds]), nearest[None], 0)[0], nearest + 1, 0)
    rgb, depth = (np.array([getattr(w, name) for w in worlds]) for name in ("rgb", "depth"))
    rgb = np.take_along_axis(rgb, nearest[None, ..., None], 0)[0]
    return replace(worlds[0], rgb=rgb, depth=depth.min(0), dynamic=truth > 0), truth


@pytest.fixture
def numbered(tmp_path):
    def number(world: World, dynamic: np.ndarray | None = None) -> np.ndarray:
        run = Run(work_dir=tmp_path)
        return number_movers(world.dynamic if dynamic is None else dynamic, next_flows(world.rgb, run), run)

    return number


def share(numbers: np.ndarray, truth: np.ndarray) -> list[float]:
    """For each panel the share of its pixels that has the number that most of them have; those numbers differ."""
    best = [np.bincount(numbers[truth == k]).argmax() for k in range(1, truth.max() + 1)]
    assert len(set(best)) == len(best), best
    assert 0 not in best
    return [float((numbers[truth == k] == n).mean()) for k, n in enumerate(best, 1)]


def test_two_movers_apart_have_a_number_each_the_larger_one_first(numbered):
    small = slide((-1.2, 0.3, 2.6), (-0.5, 0.3, 2.6), (0.2, 0.3), 8)
    large = slide((1.0, 0.4, 3.0), (0.4, 0.4, 3.0), (0.4, 0.6), 8)
    world, truth = filmed([small, large], 8)
    numbers = numbered(world)
    assert numbers.dtype == np.uint8
    np.testing.assert_array_equal(numbers, np.array([0, 2, 1])[truth])


def test_movers_that_cross_keep_their_numbers(numbered):
    """The nearer one hides a part of the other, and their masks are one region meanwhile."""
    near = slide((-1.0, 0.5, 2.2), (1.0, 0.5, 2.2), (0.25, 0.4), 20)
    far = slide((1.2, 0.2, 3.0), (-1.0, 0.2, 3.0), (0.5, 0.7), 20)
    world, truth = filmed([near, far], 20)
    assert any(((truth[t] == 1).any() and (truth[t] == 2).any()) for t in range(20))
    assert min(share(numbered(world), truth)) > 0.95


def test_a_mover_wholly_hidden_by_another_is_known_again(numbered):
    near = slide((-1.0, 0.4, 2.0), (1.0, 0.4, 2.0), (0.4, 0.6), 24)
    far = slide((1.0, 0.4, 3.4), (-1.4, 0.4, 3.4), (0.25, 0.4), 24)
    world, truth = filmed([near, far], 24)
    assert not (truth[9:13] == 2).any()
    assert min(share(numbered(world), truth)) > 0.9


@pytest.mark.parametrize(("half_size", "hidden"), [((0.5, 0.6), False), ((0.2, 0.6), True)])
def test_a_mover_that_passes_behind_a_pillar_stays_the_same(numbered, half_size, hidden):
    """One wider than the pillar, seen on both sides of it, and one that is gone for a few frames."""
    walker = slide((-1.2, 0.5, 4.0), (1.6, 0.5, 4.0), half_size, 24)
    world, truth = filmed([walker], 24, pillars=((0.3, 3.2),))
    assert (~truth.any(axis=(1, 2))).any() == hidden
    assert share(numbered(world), truth)[0] > 0.97


def test_a_mask_that_flickers_makes_no_new_movers(numbered):
    walker = slide((-1.0, 0.5, 2.6), (1.0, 0.5, 2.6), (0.3, 0.5), 16)
    world, truth = filmed([walker], 16)
    dynamic = world.dynamic.copy()
    dynamic[5] = False
    dynamic[9, : HEIGHT // 2] = False
    middle = np.argwhere(dynamic[12]).mean(axis=0).astype(int)
    dynamic[12, :, middle[1] - 8 : middle[1] + 8] = False
    dynamic[3, 5:15, 5:15] = dynamic[14, 5:30, 200:240] = True  # what is there for a frame
    numbers = numbered(world, dynamic)
    assert set(np.unique(numbers)) == {0, 1}
    assert (numbers[(truth > 0) & dynamic] == 1).mean() > 0.98
    assert not numbers[3, 5:15, 5:15].any()
    assert not numbers[~dynamic].any()


def test_specks_belong_to_the_mover_beside_them_or_to_none(numbered):
    walker = slide((-0.6, 0.5, 2.6), (0.6, 0.5, 2.6), (0.3, 0.5), 8)
    world, _ = filmed([walker], 8)
    dynamic = world.dynamic.copy()
    for t in range(8):
        y, x = np.argwhere(world.dynamic[t]).min(axis=0)
        dynamic[t, y + 10 : y + 12, x - 3 : x - 1] = True
        dynamic[t, 3:5, 3:5] = True
    numbers = numbered(world, dynamic)
    y, x = np.argwhere(world.dynamic[4]).min(axis=0)
    assert (numbers[4, y + 10 : y + 12, x - 3 : x - 1] == 1).all()
    assert not numbers[:, 3:5, 3:5].any()


def test_movers_that_touch_at_first_are_told_apart_once_they_part(numbered):
    """And before: flow leads back from where they are two. The larger one has the first number."""
    left = slide((-0.2, 0.5, 2.6), (-1.2, 0.5, 2.6), (0.2, 0.4), 16)
    right = slide((0.3, 0.5, 2.6), (1.2, 0.5, 2.6), (0.35, 0.5), 16)
    world, truth = filmed([left, right], 16)
    numbers = numbered(world)
    assert set(np.unique(numbers)) == {0, 1, 2}
    assert (numbers[0][truth[0] == 1] == 2).mean() > 0.9
    assert min(share(numbers, truth)) > 0.99
    assert np.bincount(numbers[truth == 2]).argmax() == 1


def test_where_nothing_moves_there_is_no_number():
    nothing = np.zeros((3, 24, 32), bool)
    still = Flows({k: np.zeros((3, 24, 32, 2), np.float16) for k in (-1, 1)})
    assert not number_movers(nothing, still, Run()).any()


def test_a_capture_has_room_for_255():
    """260 dots of two sizes: the last of the smaller ones have no number."""
    mask = np.zeros((3, 240, 320), bool)
    for n in range(260):
        y, x = 16 * (n // 20) + 20, 16 * (n % 20)
        mask[:, y : y + 7, x : x + 6 + (n >= 5)] = True
    still = Flows({k: np.zeros((3, 240, 320, 2), np.float16) for k in (-1, 1)})
    numbers = number_movers(mask, still, Run())
    assert set(np.unique(numbers)) == set(range(256))
    areas = [np.count_nonzero(numbers == n) for n in range(1, 256)]
    assert all(a >= b for a, b in pairwise(areas))
    assert min(areas) == 3 * 7 * 7
