"""Pictures on the network's grid: sizes, where each pixel came from, and what the original made of the same files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.monst3r.preprocess import (
    grid_for,
    prepare,
    read_image,
    usable_files,
    video_frame_indices,
)
from backend.wire import UserError
from tests.conformance.inputs import check_preprocessing

RECORDED = Path(__file__).parent.parent / "fixtures" / "monst3r"


def test_recorded_pictures_are_made_again_to_the_bit():
    rows = list(check_preprocessing(RECORDED))
    assert [str(row) for row in rows if row.ok is False] == []
    assert sum(row.ok is True for row in rows) > 60


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ((1920, 1080), 512, (512, 288)),
        ((1080, 1920), 512, (288, 512)),
        ((640, 480), 512, (512, 384)),
        ((1000, 1000), 512, (512, 384)),  # squares become 4:3
        ((2000, 2001), 512, (512, 384)),  # and what rounds to a square too
        ((1000, 1001), 512, (512, 512 - 16)[::-1]),
        ((1920, 1080), 224, (224, 224)),
        ((1920, 800), 512, (512, 208)),
        ((1920, 1080), 384, (384, 208)),
    ],
)
def test_sizes(source, size, expected):
    assert grid_for(source, size).size == expected
    assert prepare(Image.new("RGB", source), size).rgb.shape == (expected[1], expected[0], 3)


def test_squares_may_stay_squares():
    assert grid_for((700, 700), square_ok=True).size == (512, 512)
    assert grid_for((700, 700), crop=False, square_ok=True).size == (512, 512)


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(
    ("source", "size"), [((700, 401), 512), ((401, 700), 512), ((231, 150), 512), ((700, 401), 224)]
)
def test_the_plate_map_says_where_a_dot_went(source, size, crop):
    """A soft dot off the middle: its centroid on the grid is where the map sends its centroid on the plate."""
    x, y = np.meshgrid(np.arange(source[0]) + 0.5, np.arange(source[1]) + 0.5)
    centre = np.array(source) * (0.55, 0.41)
    dot = 255 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 9.0**2))
    frame = prepare(np.repeat(dot[..., None], 3, axis=2).round().astype(np.uint8), size, crop)
    weight = frame.rgb[..., 0].astype(float)
    h, w = weight.shape
    x, y = np.meshgrid(np.arange(w) + 0.5, np.arange(h) + 0.5)
    found = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    np.testing.assert_allclose(frame.plate_map.to_grid(centre), found, atol=0.05)


@pytest.mark.parametrize("source", [(4000, 100), (50, 2000)])
def test_a_picture_too_narrow_for_one_patch_is_refused(source):
    with pytest.raises(UserError, match="too narrow"):
        prepare(Image.new("RGB", source))


def test_a_square_without_crop_is_refused_where_the_original_breaks():
    with pytest.raises(UserError, match="needs cropping"):
        prepare(Image.new("RGB", (300, 300)), crop=False)


def test_pictures_are_turned_upright(tmp_path):
    picture = Image.new("RGB", (40, 20), "red")
    exif = picture.getexif()
    exif[0x0112] = 6  # a quarter turn clockwise
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (20, 40)


def test_a_file_that_is_no_picture_is_refused_by_name(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png"):
        read_image(tmp_path / "broken.png")


def test_files_come_in_the_order_of_their_base_names_as_text(tmp_path):
    names = ["b/frame_10.png", "a/frame_9.PNG", "c/frame_1.jpeg", "clip.MOV", "notes.txt", "x.heic"]
    found = [p.name for p in usable_files([tmp_path / n for n in names])]
    assert found == ["clip.MOV", "frame_1.jpeg", "frame_10.png", "frame_9.PNG"]
    assert "x.heic" in [p.name for p in usable_files([tmp_path / n for n in names], heif=True)]


def test_frames_of_a_video_are_taken_at_a_rounded_interval():
    assert video_frame_indices(30, 10) == list(range(10))
    assert video_frame_indices(29.97, 100, fps=10, limit=4) == [0, 3, 6, 9]
    assert video_frame_indices(25, 10, fps=10) == [0, 2, 4, 6, 8]  # 2.5 rounds to even
    assert video_frame_indices(24, 5, fps=100) == [0, 1, 2, 3, 4]
