"""Masks of what moves: from scores, with the user's own, at the plate's resolution."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from backend.clip import Clip
from backend.monst3r.movers import plate_movers
from backend.monst3r.pictures import Pictures
from backend.monst3r.preprocess import grid_for
from backend.run import Run
from backend.wire import ClipInfo, MonST3RSettings, PlateMap

FRAMES = 3
PLATE, STORE, GRID = (640, 480), (320, 240), (128, 96)


def clip(known_masks=None) -> Clip:
    """A bright box before a dark wall."""
    frames = np.full((FRAMES, STORE[1], STORE[0], 3), 30, np.uint8)
    frames[:, 80:160, 100:220] = 220
    info = ClipInfo("a.mp4", PLATE, Fraction(24), (0, 1, 2), (0.0, 1 / 24, 2 / 24))
    return Clip(info, frames, PlateMap(0.5, 0.5), known_masks)


PICTURES = Pictures(np.zeros((FRAMES, GRID[1], GRID[0], 3), np.uint8), grid_for(STORE, 128), PlateMap(0.5, 0.5))
BOX = (slice(None), slice(32, 64), slice(40, 88))  # the box on the grid
PLATE_BOX = (slice(None), slice(160, 320), slice(200, 440))


def scores(high=1.5) -> np.ndarray:
    values = np.full((FRAMES, GRID[1], GRID[0]), 0.1, np.float16)
    values[BOX] = high
    return values


def found(tmp_path, values=None, given=None, with_flow=True, **options):
    """Masks on the grid and on the plate."""
    values = scores() if values is None else values
    small = None if given is None else PICTURES.to_grid(given)
    run = Run(work_dir=tmp_path, threads=1)
    return plate_movers(values, small, clip(given), PICTURES, MonST3RSettings(**options), with_flow, run)


def drawn() -> np.ndarray:
    """What the user draws, on the store: something else than the box."""
    masks = np.zeros((FRAMES, STORE[1], STORE[0]), bool)
    masks[:, 10:40, 20:61] = True
    return masks


def test_scores_above_the_threshold_are_masks_as_large_as_the_plate(tmp_path):
    assert PICTURES.size == GRID
    masks, plates = found(tmp_path)
    expected = np.zeros(masks.shape, bool)
    expected[BOX] = True
    np.testing.assert_array_equal(masks, expected)
    assert plates.shape == (FRAMES, PLATE[1], PLATE[0])
    truth = np.zeros(plates.shape, bool)
    truth[PLATE_BOX] = True
    assert (plates & truth).sum() / (plates | truth).sum() > 0.95


@pytest.mark.parametrize(("high", "threshold", "moves"), [(1.5, 1.0, True), (1.5, 1.8, False), (0.6, 0.5, True)])
def test_the_threshold_is_the_user_s(tmp_path, high, threshold, moves):
    masks, plates = found(tmp_path, scores(high), mover_threshold=threshold)
    assert masks.any() == plates.any() == moves


def test_the_mask_ends_where_the_picture_has_its_edge(tmp_path):
    """Scores a pixel and a half too wide on the grid, which is 8 pixels of the plate."""
    wide = scores(0.1)
    wide[:, 30:66, 38:90] = 1.5
    _, plates = found(tmp_path, wide)
    ys, xs = np.nonzero(plates[0])
    assert abs(xs.min() - 200) < 8
    assert abs(xs.max() - 439) < 8
    assert abs(ys.min() - 160) < 8
    assert abs(ys.max() - 319) < 8


def test_specks_and_pinholes_go(tmp_path):
    values = scores()
    values[:, 5, 5] = 1.9
    values[:, 45, 60] = 0.0
    np.testing.assert_array_equal(found(tmp_path, values)[0], found(tmp_path)[0])


@pytest.mark.parametrize("off", [{"find_movers": False}, {"with_flow": False}])
def test_nothing_is_masked_where_movers_are_not_looked_for(tmp_path, off):
    masks, plates = found(tmp_path, **off)
    assert not masks.any()
    assert not plates.any()


def test_what_the_user_drew_is_added_as_drawn(tmp_path):
    alone, _ = found(tmp_path)
    masks, plates = found(tmp_path, given=drawn())
    np.testing.assert_array_equal(masks, alone | PICTURES.to_grid(drawn()))
    on_plate = np.repeat(np.repeat(drawn(), 2, axis=1), 2, axis=2)
    assert plates[on_plate].all()
    assert plates[PLATE_BOX].mean() > 0.95


def test_or_it_replaces_all_that_is_found(tmp_path):
    masks, plates = found(tmp_path, given=drawn(), user_masks="replace")
    np.testing.assert_array_equal(masks, PICTURES.to_grid(drawn()))
    on_plate = np.repeat(np.repeat(drawn(), 2, axis=1), 2, axis=2)
    assert (plates & on_plate).sum() / (plates | on_plate).sum() > 0.93
    assert not plates[PLATE_BOX].any()


def test_masks_that_the_user_drew_count_without_flow_too(tmp_path):
    masks, _ = found(tmp_path, given=drawn(), with_flow=False)
    np.testing.assert_array_equal(masks, PICTURES.to_grid(drawn()))


def test_a_segmenter_refines_what_was_found_and_the_user_s_stay(tmp_path, monkeypatch):
    asked = {}

    def refine(frames, masks, segmenter, run):
        asked.update(masks=masks, segmenter=segmenter)
        sharp = np.zeros(frames.shape[:3], bool)
        sharp[:, 82:158, 102:218] = True
        return SimpleNamespace(masks=sharp)

    monkeypatch.setattr("backend.nets.segment.load_segmenter", lambda **asked_for: asked_for)
    monkeypatch.setattr("backend.nets.segment.refine_masks", refine)
    masks, plates = found(tmp_path, given=drawn(), refine_masks="sam2_small")
    assert "small" in " ".join(map(str, asked["segmenter"].values()))
    np.testing.assert_array_equal(asked["masks"], PICTURES.to_whole(found(tmp_path)[0]))
    small = PICTURES.to_grid(drawn())
    assert masks[small].all()
    expected = np.zeros(plates.shape, bool)
    expected[:, 164:316, 204:436] = True
    expected |= np.repeat(np.repeat(drawn(), 2, axis=1), 2, axis=2)
    assert (plates & expected).sum() / (plates | expected).sum() > 0.95
