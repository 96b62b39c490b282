"""Frames and masks on the network's grid and back, and clips that cannot work."""

from fractions import Fraction

import numpy as np
import pytest

from backend.clip import Clip
from backend.monst3r.pictures import key_frames, pictures_of
from backend.monst3r.preprocess import prepare
from backend.run import Run
from backend.wire import Cancelled, ClipInfo, MonST3RSettings, PlateMap, UserError

PLATE = (420, 260)


def clip_of(frames: np.ndarray, plate=PLATE) -> Clip:
    """A clip whose store is smaller than its plate."""
    count, height, width = frames.shape[:3]
    info = ClipInfo("a.mp4", plate, Fraction(24), tuple(range(count)), tuple(n / 24 for n in range(count)))
    return Clip(info, frames, PlateMap(width / plate[0], height / plate[1]))


def some_frames(count=3, width=210, height=130) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def made(frames, tmp_path, plate=PLATE, square=False, **run):
    return pictures_of(clip_of(frames, plate), 128, Run(work_dir=tmp_path, **run), square=square)


def test_every_frame_is_prepared_as_the_network_wants_it(tmp_path):
    frames = some_frames()
    pictures = made(frames, tmp_path)
    assert pictures.size == (128, 64)
    for t in range(3):
        np.testing.assert_array_equal(pictures.rgb[t], prepare(frames[t], 128).rgb)
    np.testing.assert_array_equal(np.load(tmp_path / "pictures.npy"), pictures.rgb)


@pytest.mark.parametrize(
    ("store", "plate"), [((210, 130), (420, 260)), ((130, 210), (390, 630)), ((150, 99), (150, 99))]
)
def test_from_plate_to_grid_is_from_plate_to_store_and_on_exactly(tmp_path, store, plate):
    """Portrait too."""
    pictures = made(some_frames(width=store[0], height=store[1]), tmp_path, plate=plate)
    xy = np.random.default_rng(1).random((50, 2)) * plate
    on_store = pictures.store_map.to_grid(xy)
    np.testing.assert_allclose(pictures.plate_map.to_grid(xy), pictures.grid.plate_map.to_grid(on_store), atol=1e-10)
    np.testing.assert_allclose(pictures.plate_map.to_plate(pictures.plate_map.to_grid(xy)), xy, atol=1e-10)
    width, height = pictures.size
    assert (width > height) == (plate[0] > plate[1])
    assert max(width, height) == 128


def test_a_dot_on_the_store_is_where_the_plate_map_says(tmp_path):
    frames = np.zeros((3, 130, 210, 3), np.uint8)
    x, y = np.meshgrid(np.arange(210) + 0.5, np.arange(130) + 0.5)
    centre = np.array([133.0, 61.0])
    frames[:] = (255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 50)).round()[..., None]
    frames[1] = 255 - frames[1]
    pictures = made(frames, tmp_path)
    weight = pictures.rgb[0, ..., 0].astype(float)
    x, y = np.meshgrid(np.arange(128) + 0.5, np.arange(64) + 0.5)
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    np.testing.assert_allclose(pictures.plate_map.to_grid(2 * centre), found, atol=0.1)


def test_the_square_network_gets_the_middle_square_whatever_the_long_side_is(tmp_path):
    pictures = made(some_frames(), tmp_path, square=True)
    assert pictures.size == (224, 224)
    corners = pictures.plate_map.to_plate([[0, 0], [224, 224]])
    np.testing.assert_allclose(corners.mean(0), (210, 130), atol=1)  # the plate's middle
    np.testing.assert_allclose(corners[:, 1], (0, 260), atol=1)  # all of its height


def test_masks_go_to_the_grid_and_back_to_the_whole_frame(tmp_path):
    pictures = made(some_frames(), tmp_path)
    masks = np.zeros((3, 130, 210), bool)
    masks[0, 40:90, 60:140] = True
    masks[1] = True
    grid = pictures.to_grid(masks)
    assert grid.shape == (3, 64, 128)
    assert grid[1].all()
    assert not grid[2].any()
    left, top = pictures.grid.plate_map.to_grid([60, 40])
    right, bottom = pictures.grid.plate_map.to_grid([140, 90])
    ys, xs = np.nonzero(grid[0])
    np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], [left, top, right, bottom], atol=0.51)

    whole = pictures.to_whole(grid)
    assert whole.shape == (3, *pictures.grid.resized[::-1])
    box = pictures.grid.box
    np.testing.assert_array_equal(whole[:, box[1] : box[3], box[0] : box[2]], grid)


def test_what_the_grid_has_cut_off_is_as_its_border(tmp_path):
    pictures = made(some_frames(), tmp_path)
    left, top, _, bottom = pictures.grid.box
    assert top > 0  # something is cut off
    grid = np.zeros((1, 64, 128), bool)
    grid[0, 0, 30:40] = grid[0, -1, 50:60] = True
    whole = pictures.to_whole(grid)[0]
    assert whole[:top, left + 30 : left + 40].all()
    assert whole[bottom:, left + 50 : left + 60].all()
    assert whole.sum() == 10 * (top + 1) + 10 * (whole.shape[0] - bottom + 1)


@pytest.mark.parametrize("brightness", [0, 8])
def test_a_black_clip_is_refused(tmp_path, brightness):
    frames = some_frames() % (brightness + 1)
    with pytest.raises(UserError, match="Every frame of the clip is black; check the footage"):
        made(frames, tmp_path)


def test_a_clip_that_is_black_at_first_is_none(tmp_path):
    frames = some_frames()
    frames[0] = 0
    made(frames, tmp_path)


def test_a_frozen_clip_is_refused_and_one_that_changes_at_its_end_is_not(tmp_path):
    frames = np.repeat(some_frames(1), 4, axis=0)
    with pytest.raises(UserError, match="shows the same picture; use footage"):
        made(frames, tmp_path)
    frames[3, 50:70, 80:100] //= 2
    made(frames, tmp_path)


def test_preparing_can_be_cancelled(tmp_path):
    with pytest.raises(Cancelled):
        made(some_frames(), tmp_path, is_cancelled=lambda: True)


def keys(count, fps=24.0, **options) -> list[int]:
    return key_frames(tuple(n / fps for n in range(count)), MonST3RSettings(**options)).tolist()


def test_every_frame_is_solved_unless_settings_say_less():
    assert keys(5) == [0, 1, 2, 3, 4]
    assert keys(5, solve_fps=200.0) == [0, 1, 2, 3, 4]


def test_every_nth_frame_and_the_last():
    assert keys(10, solve_every=4) == [0, 4, 8, 9]
    assert keys(9, solve_every=4) == [0, 4, 8]


@pytest.mark.parametrize(("fps", "rate", "expected"), [(24, 6, [0, 4, 8, 12]), (30, 10, [0, 3, 6, 9, 12])])
def test_a_rate_is_of_seconds_and_counts_before_every_nth(fps, rate, expected):
    assert keys(13, fps, solve_fps=float(rate), solve_every=2) == expected


def test_a_rate_is_kept_on_average_where_it_does_not_divide_the_clip_s():
    found = keys(241, 24.0, solve_fps=10.0)
    assert abs(len(found) - 101) <= 1
    assert set(np.diff(found)) == {2, 3}


def test_a_rate_goes_by_the_clip_s_own_clock():
    """Half of the clip at 24, then at 48 frames a second: as many key frames in either."""
    times = (*(n / 24 for n in range(24)), *(1 + n / 48 for n in range(49)))
    found = key_frames(times, MonST3RSettings(solve_fps=4.0))
    assert ((found < 24).sum(), (found >= 24).sum()) == (4, 5)
    later = key_frames(tuple(t + 100 for t in times), MonST3RSettings(solve_fps=4.0))
    np.testing.assert_array_equal(later, found)  # from the first frame's time


@pytest.mark.parametrize("options", [{"solve_every": 100}, {"solve_fps": 0.5}])
def test_too_few_to_solve_is_refused(options):
    with pytest.raises(UserError, match="Only 2 of 20 frames would be solved; lower Solve Every"):
        keys(20, **options)
