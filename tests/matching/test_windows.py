"""Windows of large plates: grids, buckets, and the pairs that coarse matches choose."""

import numpy as np
import pytest

from backend.matching.windows import bucket_of, centred_crop, into_bucket, pair_windows, propose, window_grid


@pytest.mark.parametrize("size", [(900, 1200), (1600, 1200), (2160, 3840), (384, 512), (385, 700)])
def test_a_grid_covers_the_plate_and_half_of_its_neighbours(size):
    tall, wide = bucket_of(size)
    windows = window_grid(size, (tall, wide))
    covered = np.zeros(size, bool)
    for left, top, right, bottom in windows:
        assert (right - left, bottom - top) == (wide, tall)
        covered[top:bottom, left:right] = True
    assert covered.all()
    for near, far, part in ((0, 1, wide), (1, 0, tall)):
        starts = np.unique(windows[:, near])
        assert (np.diff(starts) <= part / 2 + 1).all(), far


def test_a_plate_of_the_buckets_size_is_one_window():
    assert window_grid((384, 512), (384, 512)).tolist() == [[0, 0, 512, 384]]


def test_the_bucket_has_the_plates_shape():
    assert bucket_of((1080, 1920)) == (288, 512)
    assert bucket_of((1920, 1080)) == (512, 288)
    assert bucket_of((1000, 1000)) == (384, 512)
    assert bucket_of((600, 2048)) == (160, 512)
    assert bucket_of((50, 100), ((60, 90), (40, 90))) == (40, 90)


@pytest.mark.parametrize("size", [(1080, 1920), (1000, 1000), (1234, 777), (376, 1241)])
def test_a_plate_is_cut_about_its_centre_to_the_buckets_shape(size):
    tall, wide = bucket_of(size)
    to_bucket, to_plate = into_bucket(size, (tall, wide))
    np.testing.assert_allclose(to_bucket @ to_plate, np.eye(3), atol=1e-12)
    corners = to_plate @ np.array([[0, wide, wide / 2], [0, tall, tall / 2], [1, 1, 1]])
    np.testing.assert_allclose(corners[:2, 2], (size[1] / 2, size[0] / 2))
    extent = corners[:2, 1] - corners[:2, 0]
    assert (extent <= (size[1], size[0])).all()
    assert (extent == (size[1], size[0])).any()
    assert to_plate[0, 0] == pytest.approx(to_plate[1, 1], rel=2e-3)


def scattered(count=600, seed=0) -> np.ndarray:
    """(M, 2) over a plate of 1200 x 900."""
    return np.random.default_rng(seed).uniform((0, 0), (1200, 900), (count, 2))


def test_windows_follow_the_matches():
    xy_1 = scattered()
    xy_2 = xy_1 * 0.7 + (80, 150)
    pairs = pair_windows(xy_1, xy_2, (900, 1200), (900, 1000), (384, 512), (384, 512))
    assert 4 <= len(pairs) <= 20
    seen = np.zeros(len(xy_1), bool)
    for first, second in zip(pairs.first, pairs.second):
        for window, (height, width) in ((first, (900, 1200)), (second, (900, 1000))):
            assert (window[2] - window[0], window[3] - window[1]) == (512, 384)
            assert (window >= 0).all()
            assert window[2] <= width
            assert window[3] <= height
        inside = [((xy >= w[:2]) & (xy < w[2:])).all(1) for xy, w in ((xy_1, first), (xy_2, second))]
        seen |= inside[0] & inside[1]
        assert (inside[0] & inside[1]).sum() >= 10
    assert seen.mean() > 0.97


def test_the_best_pair_comes_first_and_no_pair_twice():
    xy_1 = scattered()
    proposed = propose(xy_1, xy_1, window_grid((900, 1200), (384, 512)), (900, 1200), (384, 512))
    chosen = proposed.chosen()
    assert len(np.unique(chosen.first, axis=0)) == len(chosen) < len(proposed)
    np.testing.assert_array_equal(chosen.weight[0], proposed.weight[proposed.weight.sum(1).argmax()])
    assert chosen.weight.max(0).sum() >= 0.9 * proposed.weight.max(0).sum()
    assert len(proposed.chosen(0.5)) < len(chosen) <= len(proposed.chosen(1.0))


@pytest.mark.parametrize("scale", [0.4, 0.9, 1.8])
def test_scaled_windows_show_things_at_one_size(scale):
    xy_1 = scattered()
    xy_2, size_2 = xy_1 * scale, (int(900 * scale), int(1200 * scale))
    window_2 = (min(384, size_2[0]), min(512, size_2[1]))
    pairs = propose(xy_1, xy_2, window_grid((900, 1200), (384, 512)), size_2, window_2, scaled=True)
    widths = pairs.second[:, 2] - pairs.second[:, 0]
    expected = 512 if scale == 0.9 else 512 * scale  # hardly another size is the same one
    np.testing.assert_allclose(widths, min(expected, window_2[1] * min(np.array(size_2) / window_2)), rtol=0.15)
    assert (pairs.second[:, :2] >= 0).all()
    assert (pairs.second[:, 2:] <= size_2[::-1]).all()


def test_a_few_matches_pair_no_windows():
    xy = scattered(9)
    assert len(pair_windows(xy, xy, (900, 1200), (900, 1200), (384, 512), (384, 512))) == 0
    assert len(pair_windows(xy[:0], xy[:0], (900, 1200), (900, 1200), (384, 512), (384, 512))) == 0


@pytest.mark.parametrize("window", [(0, 0, 512, 384), (300, 200, 812, 584), (688, 516, 1200, 900)])
def test_a_centred_crop_is_a_camera_turned_in_place(window):
    camera = np.array([[1100.0, 0, 610], [0, 1100, 445], [0, 0, 1]])
    window = np.array(window)
    new, plate_from_new, homography = centred_crop(camera, window, (384, 512))
    assert new[0, 2], new[1, 2] == (256, 192)
    assert new[0, 0] == new[1, 1] == 1100
    np.testing.assert_allclose(plate_from_new @ plate_from_new.T, np.eye(3), atol=1e-12)
    ray = np.array([0.1, -0.05, 1.0])  # in the new camera
    seen_new, seen = new @ ray, camera @ plate_from_new @ ray
    moved = homography @ (seen_new / seen_new[2])
    np.testing.assert_allclose(moved / moved[2], seen / seen[2], atol=1e-9)
    corners = homography @ np.array([[0, 512, 0, 512], [0, 0, 384, 384], [1, 1, 1, 1]])
    corners = (corners[:2] / corners[2]).T
    farthest = max(window.reshape(2, 2)[[0, 0, 1, 1], 0], key=lambda x: abs(x - 610))
    assert np.isclose(corners[:, 0], farthest).any()
    assert (corners > -1e-6).all()
    assert (corners < (1200 + 1e-6, 900 + 1e-6)).all()
