"""Clips: footage on the store grid, with exact maps, ranges, masks, an undistorted lens, and clear refusals."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from backend import clip as clip_module
from backend.clip import STORE_LONG_SIDE, open_clip
from backend.footage.source import MAX_PLATE_SIDE
from backend.footage.store import FrameStore, grid_of
from backend.run import Run
from backend.wire import Cancelled, ClipSettings, LensSettings, UserError
from tests.footage import HEIGHT, WIDTH, index_of, pictures, write_video


@pytest.fixture
def run(tmp_path):
    (tmp_path / "work").mkdir()
    return Run(work_dir=tmp_path / "work")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """30 frames at 24 fps; picture i is frame i."""
    return write_video(tmp_path_factory.mktemp("clip") / "thirty.mp4", pictures(30))


def save_images(folder: Path, arrays) -> Path:
    folder.mkdir()
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(folder / f"{i:04d}.png")
    return folder


# The grids


def test_a_plate_below_the_limit_is_stored_as_it_is(video, run):
    clip = open_clip(video, ClipSettings(), run)
    assert clip.store_size == clip.info.plate_size == (WIDTH, HEIGHT)
    assert (clip.store_map.sx, clip.store_map.sy) == (1, 1)
    assert isinstance(clip.frames, np.memmap)
    assert clip.frames.dtype == np.uint8


def test_854x480_at_512_is_512x288():
    # 480 * 512 / 854 = 287.8; the map is exact per axis, so fx and fy may differ by 0.08 %.
    size, plate_map = grid_of((854, 480), 512)
    assert size == (512, 288)
    assert (plate_map.sx, plate_map.sy) == (512 / 854, 288 / 480)


@given(st.integers(1, 8192), st.integers(1, 8192), st.integers(128, 2048))
def test_every_grid_spans_the_plate_exactly_and_never_enlarges_it(width, height, long_side):
    size, plate_map = grid_of((width, height), long_side)
    np.testing.assert_allclose(plate_map.to_grid([[0, 0], [width, height]]), [[0, 0], size], atol=1e-9)
    assert max(size) == min(long_side, max(width, height))
    scale = max(size) / max(width, height)
    for pixels, plate_pixels in zip(size, (width, height)):
        assert pixels == 1 or abs(pixels - plate_pixels * scale) <= 0.5 + 1e-9


def test_a_large_plate_is_shrunk_and_its_map_holds_for_pixels(tmp_path, run):
    width, height = 2000, 1125
    plate = np.zeros((height, width, 3), np.uint8)
    plate[600:700, 1500:1700] = 255  # centre (1600, 650) in edge-origin pixels
    clip = open_clip(save_images(tmp_path / "large", [plate] * 3), ClipSettings(), run)
    assert clip.store_size == (STORE_LONG_SIDE, 900)
    assert clip.info.plate_size == (width, height)
    np.testing.assert_allclose(clip.store_map.to_plate(centre_of(clip.frames[0])), (1600, 650), atol=0.05)
    frames, plate_map = clip.processed(512)
    assert frames.shape == (3, 288, 512, 3)
    np.testing.assert_allclose(plate_map.to_plate(centre_of(frames[0])), (1600, 650), atol=0.1)


def centre_of(frame) -> np.ndarray:
    """Brightness-weighted edge-origin centre (x, y)."""
    weights = frame[..., 0].astype(float)
    y, x = np.indices(weights.shape) + 0.5
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


def test_a_resolution_above_the_limit_raises_the_store(tmp_path, run):
    plate = np.zeros((1000, 2000, 3), np.uint8)
    clip = open_clip(save_images(tmp_path / "large", [plate] * 3), ClipSettings(long_side=1800), run)
    assert clip.processed(1800)[0].shape == (3, 900, 1800, 3)


def test_processed_frames_are_never_larger_than_the_plate(video, run):
    clip = open_clip(video, ClipSettings(), run)
    frames, plate_map = clip.processed(512)
    assert frames.shape == clip.frames.shape
    assert (plate_map.sx, plate_map.sy) == (1, 1)


# Which frames


def test_range_and_step_choose_source_frames(video, run):
    clip = open_clip(video, ClipSettings(first_frame=5, last_frame=20, frame_step=4), run)
    assert clip.info.frame_indices == (5, 9, 13, 17)
    assert [index_of(f) for f in clip.frames] == [5, 9, 13, 17]
    np.testing.assert_allclose(clip.info.timestamps, np.array([5, 9, 13, 17]) / 24, atol=1e-9)
    assert clip.fps == 24  # of the source, whatever the step


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (ClipSettings(first_frame=30), "Frame 30 is outside the clip, which has 30 frames"),
        (ClipSettings(last_frame=30), "Frame 30 is outside"),
        (ClipSettings(first_frame=20, last_frame=10), "is before the first"),
        (ClipSettings(first_frame=28), "holds 2 frames; at least 3"),
        (ClipSettings(frame_step=29), "holds 2 frames; at least 3"),
    ],
)
def test_a_range_that_cannot_be_met_is_refused(video, run, settings, says):
    with pytest.raises(UserError) as error:
        open_clip(video, settings, run)
    assert says in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize("count", [1, 2])
def test_too_short_a_clip_is_refused(tmp_path, run, count):
    with pytest.raises(UserError, match="cannot give a camera path; give a clip of at least 3 frames"):
        open_clip(write_video(tmp_path / "short.mp4", pictures(count)), ClipSettings(), run)


def test_more_frames_than_a_job_may_have_are_refused(video, run, monkeypatch):
    monkeypatch.setattr(clip_module, "MAX_FRAMES", 10)
    with pytest.raises(UserError, match="more than 10 frames"):
        open_clip(video, ClipSettings(), run)
    assert open_clip(video, ClipSettings(frame_step=3), run).frame_count == 10


# The lens


LENS = LensSettings(focal_mm=24, sensor_width_mm=36, k1=-0.18, k2=0.04)


def scene(x, y):
    """A smooth (H, W) picture in [20, 235] by undistorted plate pixel."""
    return 127.5 + 53 * np.sin(x / 17) + 53 * np.cos(y / 13)


def shot_through(lens: LensSettings, width: int, height: int) -> np.ndarray:
    """What the plate records of `scene`, by OpenCV's own model: each distorted pixel looks at its undistorted one."""
    f = lens.focal_mm / lens.sensor_width_mm * width
    # OpenCV counts pixel centres from 0, so the plate's centre is at (width - 1) / 2.
    matrix = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 1, 2).astype(float)
    xy = cv2.undistortPoints(pixels, matrix, np.array([lens.k1, lens.k2, 0, 0]), P=matrix).reshape(height, width, 2)
    return np.repeat(np.round(scene(xy[..., 0], xy[..., 1])).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize(("width", "height"), [(320, 200), (1700, 850)], ids=["plate size", "shrunk"])
@pytest.mark.slow
def test_the_store_shows_the_plate_without_its_distortion(tmp_path, run, width, height):
    plate = shot_through(LENS, width, height)
    clip = open_clip(save_images(tmp_path / "lens", [plate] * 3), ClipSettings(), run, lens=LENS)
    assert (clip.info.k1, clip.info.k2) == (-0.18, 0.04)
    w, h = clip.store_size
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    plate_xy = clip.store_map.to_plate(np.stack([x, y], -1))
    expected = scene(plate_xy[..., 0] - 0.5, plate_xy[..., 1] - 0.5)
    inner = np.s_[h // 8 : -h // 8, w // 8 : -w // 8]
    np.testing.assert_allclose(clip.frames[0][..., 0][inner], expected[inner], atol=2.5)


def test_distortion_without_a_focal_length_is_refused(video, run):
    with pytest.raises(UserError, match="give the focal length too"):
        open_clip(video, ClipSettings(), run, lens=LensSettings(k1=0.1))


# Known masks


def moving_block(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[20:40, 2 * index : 2 * index + 30] = 255
    return mask


def test_masks_for_each_used_frame(video, run, tmp_path):
    folder = save_images(tmp_path / "masks", [moving_block(i) for i in range(4)])
    clip = open_clip(video, ClipSettings(first_frame=5, last_frame=20, frame_step=4), run, masks=folder)
    assert clip.known_masks.dtype == bool
    np.testing.assert_array_equal(clip.known_masks, [moving_block(i) > 0 for i in range(4)])


def test_masks_for_each_source_frame(video, run, tmp_path):
    folder = save_images(tmp_path / "masks", [moving_block(i) for i in range(30)])
    clip = open_clip(video, ClipSettings(first_frame=5, last_frame=20, frame_step=4), run, masks=folder)
    np.testing.assert_array_equal(clip.known_masks, [moving_block(i) > 0 for i in (5, 9, 13, 17)])


def test_masks_may_be_a_video(video, run, tmp_path):
    frames = [np.repeat(moving_block(i)[..., None], 3, -1) for i in range(30)]
    masks = write_video(tmp_path / "masks.mp4", frames, options={"qp": "0"})
    clip = open_clip(video, ClipSettings(), run, masks=masks)
    np.testing.assert_array_equal(clip.known_masks, [moving_block(i) > 0 for i in range(30)])


def test_masks_get_the_warp_of_the_frames(tmp_path, run):
    """A mask painted on the distorted plate still covers what it covered: bright where the picture is bright."""
    plate = shot_through(LENS, 320, 200)
    mask = (plate[..., 0] > 127).astype(np.uint8) * 255
    clip = open_clip(
        save_images(tmp_path / "lens", [plate] * 3),
        ClipSettings(),
        run,
        lens=LENS,
        masks=save_images(tmp_path / "masks", [mask] * 3),
    )
    inner = np.s_[0, 25:-25, 40:-40]
    assert (clip.known_masks[inner] == (clip.frames[(*inner, 0)] > 127)).mean() > 0.98


def test_masks_follow_a_shrunk_plate_and_its_processed_grid(tmp_path, run):
    plate = np.zeros((1000, 2000, 3), np.uint8)
    mask = np.zeros((1000, 2000), np.uint8)
    mask[:, 1000:] = 255
    clip = open_clip(
        save_images(tmp_path / "large", [plate] * 3),
        ClipSettings(),
        run,
        masks=save_images(tmp_path / "masks", [mask] * 3),
    )
    assert clip.known_masks.shape == (3, 800, 1600)
    np.testing.assert_array_equal(clip.known_masks[0, 0], np.arange(1600) >= 800)
    np.testing.assert_array_equal(clip.processed_masks(512)[0, 0], np.arange(512) >= 256)


@pytest.mark.parametrize(
    ("masks", "says"),
    [
        ([moving_block(i, 80, 48) for i in range(30)], "The masks are 80x48 but the clip is 160x96"),
        ([moving_block(i) for i in range(7)], "There are 7 masks for 30 frames"),
        ([moving_block(i) // 255 for i in range(30)], "brightest value is 1"),
    ],
    ids=["size", "count", "0 and 1"],
)
def test_masks_that_do_not_fit_are_refused(video, run, tmp_path, masks, says):
    with pytest.raises(UserError) as error:
        open_clip(video, ClipSettings(), run, masks=save_images(tmp_path / "masks", masks))
    assert says in error.value.message
    assert error.value.hint


# Progress, cancelling and what can go wrong around the clip


def test_progress_rises_to_the_end(video, run):
    told = []
    run.report, run.reports_per_second, run.plan = lambda p: told.append(p.stage_fraction), 1e9, [("Reading", 1)]
    with run.stage("Reading"):
        open_clip(video, ClipSettings(), run)
    assert told == sorted(told)
    assert len(told) > 30
    assert told[-2] > 0.9


def test_cancelling_stops_at_the_next_frame(video, run):
    asked = iter([False] * 7 + [True])
    run.is_cancelled = lambda: next(asked)
    with pytest.raises(Cancelled):
        open_clip(video, ClipSettings(), run)
    with pytest.raises(StopIteration):
        next(asked)


def test_a_missing_file_is_said(tmp_path, run):
    with pytest.raises(UserError, match=r"There is no file .*nowhere\.mp4"):
        open_clip(tmp_path / "nowhere.mp4", ClipSettings(), run)


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_protected_file_is_said(tmp_path, run):
    path = write_video(tmp_path / "mine.mp4", pictures(5))
    path.chmod(0)
    with pytest.raises(UserError, match="may not be read"):
        open_clip(path, ClipSettings(), run)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_said():
    frame = np.zeros((600, 600, 3), np.uint8)
    with pytest.raises(UserError, match="is full"), FrameStore(Path("/dev/full")) as store:
        store.append(frame)


def test_a_full_disk_stops_a_real_clip(video, run):
    resource = pytest.importorskip("resource")  # POSIX: a limit on file size is a disk that fills up
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        with pytest.raises(UserError, match="is full"):
            open_clip(video, ClipSettings(), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pictures_above_8k_are_refused(tmp_path, run):
    wide = [np.zeros((2, MAX_PLATE_SIDE + 1, 3), np.uint8)] * 3
    with pytest.raises(UserError, match="8193x2; at most 8192"):
        open_clip(save_images(tmp_path / "wide", wide), ClipSettings(), run)


def test_a_clip_that_changes_its_size_is_refused(tmp_path, run):
    # Two transport streams one behind the other are one transport stream.
    one = write_video(tmp_path / "one.ts", pictures(5), pts=list(range(5)))
    two = write_video(tmp_path / "two.ts", pictures(5, 320, 192), pts=list(range(5, 10)))
    both = tmp_path / "both.ts"
    both.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(UserError, match="is 320x192 but the clip began at 160x96"):
        open_clip(both, ClipSettings(), run)


def test_without_a_work_folder_it_is_our_mistake(video):
    with pytest.raises(ValueError, match="work_dir"):
        open_clip(video, ClipSettings(), Run())
