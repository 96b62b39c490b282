"""Outlines go around exactly the pixels of a mask, and with fewer corners stay near them."""

import cv2
import numpy as np
import pytest

from blender_addon.scene.grey import read_grey, write_grey
from blender_addon.scene.outlines import area, outlines, simplified


def filled(polygons, shape):
    """(H, W) bool: pixels whose centres are inside an odd number of polygons."""
    y, x = np.indices(shape) + 0.5
    inside = np.zeros(shape, bool)
    for polygon in polygons:
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
            if y0 != y1:
                crossing = (y0 <= y) != (y1 <= y)
                inside ^= crossing & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def blobs(seed, shape=(40, 60)):
    noise = np.random.default_rng(seed).normal(size=shape)
    return cv2.GaussianBlur(noise, (0, 0), 2) > 0.02


@pytest.mark.parametrize("seed", range(4))
def test_an_outline_encloses_exactly_its_pixels(seed):
    mask = blobs(seed)
    polygons = outlines(mask)
    assert np.array_equal(filled(polygons, mask.shape), mask)
    assert sum(area(p) for p in polygons) == mask.sum()  # holes count negative
    for polygon in polygons:
        steps = np.roll(polygon, -1, axis=0) - polygon
        turns = np.roll(steps, -1, axis=0)
        assert (steps[:, 0] * turns[:, 1] != steps[:, 1] * turns[:, 0]).all()  # every corner turns


def test_pixels_that_touch_at_a_corner_are_two_pieces():
    assert sorted(area(p) for p in outlines(np.eye(2, dtype=bool))) == [1, 1]
    assert outlines(np.zeros((3, 3), bool)) == []
    (whole,) = outlines(np.ones((3, 4), bool))
    assert sorted(map(tuple, whole)) == [(0, 0), (0, 3), (4, 0), (4, 3)]


def test_fewer_corners_stay_within_the_tolerance():
    y, x = np.indices((120, 120))
    disc = (x - 60) ** 2 + (y - 60) ** 2 < 45**2
    (exact,) = outlines(disc)
    rough = simplified(exact, 1.0)
    assert len(rough) < len(exact) / 4
    changed = filled([rough], disc.shape) != disc
    away = np.abs(np.hypot(x - 60, y - 60) - 45)
    assert away[changed].max() < 2
    assert np.array_equal(simplified(exact, 0), exact)


def test_grey_pictures_are_written_exactly(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (17, 23), np.uint8)
    write_grey(tmp_path / "grey.png", levels)
    assert np.array_equal(cv2.imread(str(tmp_path / "grey.png"), cv2.IMREAD_UNCHANGED), levels)
    assert np.array_equal(np.round(read_grey(tmp_path / "grey.png") * 255), levels)
