"""Image sequences: which images are one, in which order, and how each is read."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from backend.clip import open_clip
from backend.footage import probe
from backend.run import Run
from backend.wire import ClipSettings, UserError
from tests.footage import HEIGHT, WIDTH, index_of, picture


def opened(source, tmp_path, **settings):
    (tmp_path / "work").mkdir(exist_ok=True)
    return open_clip(source, ClipSettings(**settings), Run(work_dir=tmp_path / "work"))


def save(folder, names, **exif):
    """Picture i under the i-th name; returns the folder."""
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        Image.fromarray(picture(i)).save(folder / name, **exif)
    return folder


def test_a_folder_is_read_in_natural_order(tmp_path):
    folder = save(tmp_path / "shot", [f"frame{i}.png" for i in range(12)])  # as text, 10 comes before 2
    (folder / "notes.txt").write_text("not an image")
    (folder / "._frame0.png").write_bytes(b"what macOS leaves behind")
    clip = opened(folder, tmp_path)
    assert [index_of(f) for f in clip.frames] == list(range(12))
    np.testing.assert_array_equal(clip.frames[7], picture(7))
    assert clip.info.kind == "images"
    assert clip.info.source == str(folder)
    assert clip.info.image_names[10] == "frame10.png"
    assert clip.fps == 24
    np.testing.assert_allclose(clip.info.timestamps, np.arange(12) / 24)
    assert clip.warnings == ()


def test_one_image_stands_for_its_sequence_alone(tmp_path):
    folder = save(tmp_path / "shot", [f"a_v2.{i}.png" for i in range(1001, 1006)])
    save(folder, [f"b_v2.{i}.png" for i in range(1001, 1009)])
    clip = opened(folder / "a_v2.1003.png", tmp_path)
    assert clip.info.image_names == tuple(f"a_v2.{i}.png" for i in range(1001, 1006))
    assert clip.info.source == str(folder)
    assert clip.info.frame_indices == (0, 1, 2, 3, 4)


def test_a_range_of_a_sequence_names_the_images_used(tmp_path):
    folder = save(tmp_path / "shot", [f"{i:04d}.png" for i in range(20)])
    clip = opened(folder, tmp_path, first_frame=4, last_frame=12, frame_step=4)
    assert clip.info.frame_indices == (4, 8, 12)
    assert clip.info.image_names == ("0004.png", "0008.png", "0012.png")
    assert [index_of(f) for f in clip.frames] == [4, 8, 12]
    np.testing.assert_allclose(clip.info.timestamps, np.array([4, 8, 12]) / 24)


def test_a_missing_image_leaves_its_time_free_and_is_told(tmp_path):
    folder = save(tmp_path / "shot", [f"s.{i}.png" for i in (10, 11, 12, 14, 15)])
    clip = opened(folder, tmp_path)
    np.testing.assert_allclose(clip.info.timestamps, np.array([0, 1, 2, 4, 5]) / 24)
    assert "1 image is missing" in clip.warnings[0]
    assert "s.12.png" in clip.warnings[0]


@pytest.mark.parametrize("numbers", [(10, 20, 30, 40), (3, 1699, 20005, 99999)], ids=["stride", "serial numbers"])
def test_numbers_that_do_not_count_frames_are_no_gaps(tmp_path, numbers):
    clip = opened(save(tmp_path / "shot", [f"{n:05d}.png" for n in numbers]), tmp_path)
    np.testing.assert_allclose(clip.info.timestamps, np.arange(4) / 24)
    assert clip.warnings == ()


# EXIF orientation: what has to be done to the stored picture to see it upright, and so how it was stored.
@pytest.mark.parametrize(("orientation", "rotation"), [(1, 0), (3, 180), (6, 90), (8, 270)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_exif_orientation_is_applied_and_recorded(tmp_path, orientation, rotation, suffix):
    (tmp_path / "shot").mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in range(3):
        stored = np.rot90(picture(i), rotation // 90).copy()
        Image.fromarray(stored).save(tmp_path / "shot" / f"{i}.{suffix}", exif=exif)
    clip = opened(tmp_path / "shot", tmp_path)
    assert clip.info.plate_size == (WIDTH, HEIGHT)
    assert clip.info.rotation == rotation
    assert [index_of(f) for f in clip.frames] == [0, 1, 2]
    assert clip.frames[0][8, 8, 0] > 150 > clip.frames[0][8, 8, 1]  # the red corner is at the top left


def test_the_focal_length_of_exif_is_found(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 35
    folder = save(tmp_path / "shot", [f"{i}.jpg" for i in range(3)], exif=exif)
    assert opened(folder, tmp_path).focal_35mm == 35
    assert probe(folder).focal_35mm == 35
    assert opened(save(tmp_path / "plain", [f"{i}.jpg" for i in range(3)]), tmp_path).focal_35mm is None


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_rounded_to_eight(tmp_path, suffix):
    (tmp_path / "shot").mkdir()
    ramp = np.linspace(0, 65535, 96 * 64 * 3).reshape(64, 96, 3).astype(np.uint16)
    for i in range(3):
        cv2.imwrite(str(tmp_path / "shot" / f"{i}.{suffix}"), ramp[..., ::-1])
    # 65535 / 255 = 257
    np.testing.assert_array_equal(opened(tmp_path / "shot", tmp_path).frames[0], np.round(ramp / 257).astype(np.uint8))


def test_grey_and_alpha_images_become_colour(tmp_path):
    (tmp_path / "grey").mkdir()
    (tmp_path / "alpha").mkdir()
    for i in range(3):
        Image.fromarray(picture(i)).convert("L").save(tmp_path / "grey" / f"{i}.png")
        Image.fromarray(np.dstack([picture(i), np.full((HEIGHT, WIDTH), 99, np.uint8)])).save(
            tmp_path / "alpha" / f"{i}.png"
        )
    assert [index_of(f) for f in opened(tmp_path / "grey", tmp_path).frames] == [0, 1, 2]
    np.testing.assert_array_equal(opened(tmp_path / "alpha", tmp_path).frames[2], picture(2))


def test_images_of_other_sizes_are_named(tmp_path):
    folder = save(tmp_path / "shot", ["0.png", "1.png", "2.png"])
    Image.fromarray(picture(2, 80, 48)).save(folder / "2.png")
    with pytest.raises(UserError, match=r"2\.png is 80x48 but 0\.png is 160x96"):
        opened(folder, tmp_path)


def mixed_kinds(folder):
    save(folder, ["0.png", "1.png", "2.jpg"])
    return folder


def several_sequences(folder):
    return save(folder, ["left.1.png", "left.2.png", "right.1.png", "right.2.png"])


def empty(folder):
    folder.mkdir()
    return folder


def single(folder):
    return save(folder, ["photo.png"]) / "photo.png"


def exr(folder):
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.exr").write_bytes(b"\x76\x2f\x31\x01")
    return folder


def half_an_image(folder):
    save(folder, ["0.png", "1.png", "2.png"])
    (folder / "1.png").write_bytes(b"not a picture")
    return folder


def floats(folder):
    folder.mkdir()
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.tiff"), np.zeros((8, 8, 3), np.float32))
    return folder


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "no images"),
        (single, "one frame cannot give a camera path"),
        (mixed_kinds, "mixes JPEG and PNG"),
        (several_sequences, "several sequences"),
        (exr, "EXR images such as 0.exr cannot be read"),
        (half_an_image, "1.png is not an image"),
        (floats, "holds float32 pixels"),
    ],
)
def test_what_cannot_be_read_is_said_with_a_way_out(tmp_path, make, says):
    with pytest.raises(UserError) as error:
        opened(make(tmp_path / "shot"), tmp_path)
    assert says in error.value.message
    assert error.value.hint
