"""Coarse to fine: windows bring back what the coarse pass cannot see, in the plates' own pixels."""

import numpy as np
import pytest
import torch

from backend.matching.fine import Crop, PlateMatches, match_fine, match_whole, whole
from backend.matching.reciprocal import Described
from tests.view_oracle import describe

#: What stands for the network's sizes, so that the tests are quick.
BUCKETS = ((96, 128), (72, 128))
SIZE_1, SIZE_2 = (216, 288), (250, 190)
#: Plate 2 shows what plate 1 shows: smaller, turned a little and moved.
SECOND_FROM_FIRST = np.array([[0.62, 0.05, 3.0], [-0.05, 0.78, 45.0], [0, 0, 1]])


class Sheet:
    """Describes crops of two plates of one flat drawing, as a network would, and counts what it was asked."""

    def __init__(self, noise: float = 0.05) -> None:
        self.noise, self.asked = noise, []

    def __call__(self, pairs):
        self.asked.append(len(pairs))
        for pair in pairs:
            maps = [self._described(crop, plate) for crop, plate in zip(pair, (np.eye(3), SECOND_FROM_FIRST))]
            yield [tuple(maps)]

    def _described(self, crop: Crop, plate_from_sheet: np.ndarray) -> Described:
        height, width = crop.size
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([x, y, np.ones_like(x)], -1) @ (np.linalg.inv(plate_from_sheet) @ crop.plate_from_crop).T
        exact = describe(np.concatenate([pixels[..., :2] / pixels[..., 2:] / 45, np.zeros((height, width, 1))], -1))
        noisy = exact + np.random.default_rng(len(self.asked)).normal(0, self.noise / np.sqrt(24), exact.shape)
        noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
        return Described(torch.from_numpy(noisy).float(), torch.full((height, width), 4.0))


def errors(found: PlateMatches) -> np.ndarray:
    """(M,) px of plate 2 from the truth."""
    seen = np.column_stack([found.xy_1 + 0.5, np.ones(len(found))]) @ SECOND_FROM_FIRST.T
    return np.linalg.norm(seen[:, :2] - 0.5 - found.xy_2, axis=1)


@pytest.fixture(scope="module")
def fine() -> PlateMatches:
    sheet = Sheet()
    found = match_fine(SIZE_1, SIZE_2, sheet, buckets=BUCKETS)
    assert sheet.asked[0] == 1
    assert 4 <= sum(sheet.asked[1:]) < 30
    return found


def test_fine_matches_are_more_and_nearer_to_the_truth(fine):
    coarse = match_whole(SIZE_1, SIZE_2, Sheet(), buckets=BUCKETS)
    assert len(fine) > 3 * len(coarse) > 0
    assert np.median(errors(fine)) < 0.75 * np.median(errors(coarse))
    assert np.percentile(errors(fine), 90) < np.percentile(errors(coarse), 90)
    for xy, (height, width) in ((fine.xy_1, SIZE_1), (fine.xy_2, SIZE_2)):
        assert (xy >= 0).all()
        assert (xy <= (width - 1, height - 1)).all()
        assert np.ptp(xy[:, 0]) > 0.5 * width
    rounded = np.column_stack([fine.xy_1.round(), fine.xy_2.round()])
    assert len(np.unique(rounded, axis=0)) == len(fine)
    assert (fine.confidence == 4).all()


def test_with_cameras_the_windows_are_turned_and_the_matches_as_true(fine):
    cameras = tuple(np.array([[f, 0, w / 2], [0, f, h / 2], [0, 0, 1]]) for f, (h, w) in ((260, SIZE_1), (250, SIZE_2)))
    turned = match_fine(SIZE_1, SIZE_2, Sheet(), cameras=cameras, buckets=BUCKETS)
    assert len(turned) > 0.6 * len(fine)
    assert np.median(errors(turned)) < 1.3 * np.median(errors(fine))


def test_masks_of_the_plates_hold_in_every_window():
    mask_1, mask_2 = np.zeros(SIZE_1, bool), np.zeros(SIZE_2, bool)
    mask_1[75:150, 112:225] = True
    mask_2[:, :45] = True
    found = match_fine(SIZE_1, SIZE_2, Sheet(), (mask_1, mask_2), buckets=BUCKETS)
    assert len(found) > 100
    for xy, mask in ((found.xy_1, mask_1), (found.xy_2, mask_2)):
        x, y = xy.round().astype(int).T
        assert not mask[y, x].any()


def test_plates_as_small_as_a_bucket_are_matched_once():
    sheet = Sheet()
    match_fine((96, 128), (72, 128), sheet, buckets=BUCKETS)
    assert sheet.asked == [1]


def test_nothing_in_common_asks_for_no_windows():
    class Noise(Sheet):
        def _described(self, crop, plate_from_sheet):
            nothing = torch.zeros(*crop.size, 24)
            return Described(nothing, nothing[..., 0])

    noise = Noise()
    assert len(match_fine(SIZE_1, SIZE_2, noise, buckets=BUCKETS)) == 0
    assert noise.asked == [1]


def gradient(height: int, width: int) -> np.ndarray:
    """(H, W, 2) the edge-origin place of each pixel's centre: a picture that tells where it was cut."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x, y], -1).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.5, 3.0])
def test_a_crop_shows_what_its_matrix_says(scale):
    crop = Crop((40, 50), np.array([[scale, 0, 31], [0, scale, 22], [0, 0, 1]]))
    cut = crop.cut(gradient(200, 260))
    x, y = np.meshgrid(np.arange(50), np.arange(40))
    places = crop.to_plate(np.stack([x, y], -1).reshape(-1, 2)).reshape(40, 50, 2) + 0.5
    np.testing.assert_allclose(cut, places, atol=0.1)


def test_a_window_at_full_resolution_is_cut_exactly():
    plate = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    crop = Crop((40, 50), np.array([[1.0, 0, 31], [0, 1, 22], [0, 0, 1]]))
    np.testing.assert_array_equal(crop.cut(plate), plate[22:62, 31:81])


def test_a_small_mask_is_not_lost_when_a_plate_is_shrunk():
    mask = np.zeros((960, 1280), bool)
    mask[400:402, 640:642] = True
    assert whole((960, 1280), BUCKETS).cut(mask).any()


def test_the_whole_plate_comes_back_from_its_bucket():
    crop = whole((400, 640), BUCKETS)
    assert crop.size == (72, 128)
    corners = crop.to_plate(np.array([[-0.5, -0.5], [127.5, 71.5]]))
    np.testing.assert_allclose(corners, [[-0.5, 19.5], [639.5, 379.5]])
