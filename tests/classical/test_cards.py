"""Movers become flat cards where they touch the ground."""

import numpy as np
import pytest

from backend.classical.cards import stand_cards
from backend.run import Run
from backend.wire import CONFIDENCE_CARD

FRAMES, HEIGHT, WIDTH = 6, 60, 80
#: A floor that comes nearer from 10 at the top row to 2 at the bottom row.
FLOOR = np.tile(np.linspace(10, 2, HEIGHT)[:, None], (FRAMES, 1, WIDTH)).astype(np.float32)


@pytest.fixture
def walker():
    """A subject 30 pixels tall that walks to the right; its feet end at row 44."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for t in range(FRAMES):
        masks[t, 15:45, 10 + 4 * t : 20 + 4 * t] = True
    return masks


def test_a_card_is_flat_and_stands_where_its_feet_are(walker):
    depth, confidence = stand_cards(np.zeros_like(FLOOR), np.zeros_like(FLOOR), walker, FLOOR, Run())
    for t in range(FRAMES):
        assert len(np.unique(depth[t][walker[t]])) == 1
        assert depth[t][walker[t]][0] == pytest.approx(FLOOR[t, 44, 0], rel=0.05)
    assert (confidence[walker] == np.float32(CONFIDENCE_CARD)).all()
    assert (depth[~walker] == 0).all()


def test_one_bad_frame_does_not_make_a_card_jump(walker):
    """A subject is followed over time: a frame in which its feet are masked away gets its neighbours' depth."""
    walker[3, 30:45] = False
    depth, _ = stand_cards(np.zeros_like(FLOOR), np.zeros_like(FLOOR), walker, FLOOR, Run())
    assert depth[3][walker[3]][0] == pytest.approx(FLOOR[0, 44, 0], rel=0.05)


def test_no_ground_no_card(walker):
    nothing = np.zeros_like(FLOOR)
    depth, confidence = stand_cards(nothing, nothing, walker, nothing, Run())
    assert not depth.any()
    assert not confidence.any()
