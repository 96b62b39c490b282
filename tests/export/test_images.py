"""The image sequences of a capture, read back by Pillow."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from backend.export.images import add_images
from backend.wire import PlateMap
from blender_addon.wire.pictures import quantum, to_plate

from .conftest import FRAMES


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def written(exact, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, add_images(exact, folder)["images"]


def test_every_frame_has_its_four_images(written):
    folder, images = written
    expected = {row["pattern"] % i for row in images.values() for i in range(FRAMES)}
    assert {p.name for p in folder.iterdir()} == expected
    for row in images.values():
        assert list(reversed(read(folder / (row["pattern"] % 0)).shape[:2])) == row["size"]


def test_rgb_is_the_processed_frame(written, exact):
    for frame in range(FRAMES):
        np.testing.assert_array_equal(read(written[0] / f"rgb_{frame:04d}.png"), exact.rgb[frame])


def test_depth_follows_from_the_recorded_scale(written, exact):
    folder, images = written
    value = read(folder / "depth_0003.png")
    assert value.dtype == np.uint16
    np.testing.assert_allclose(value * images["depth"]["scale"], exact.depth[3], atol=0.51 * images["depth"]["scale"])


def test_pixels_without_a_depth_are_zero_and_near_ones_are_not(exact, tmp_path):
    depth = exact.depth.copy()
    depth[0, 0, :3] = 0, np.nan, 1e-6  # nothing, nothing, and closer than one grey level
    add_images(replace(exact, depth=depth), tmp_path)
    assert read(tmp_path / "depth_0000.png")[0, :3].tolist() == [0, 0, 1]


def test_one_outlier_does_not_take_the_levels_of_the_rest(exact, tmp_path):
    depth = exact.depth.copy()
    depth[0, 0, 0] = 1e6
    scale = add_images(replace(exact, depth=depth), tmp_path)["images"]["depth"]["scale"]
    assert scale < 2 * exact.depth.max() / 65535
    assert read(tmp_path / "depth_0000.png")[0, 0] == 65535


def test_confidence_within_one_keeps_its_grey(written, exact, tmp_path):
    assert written[1]["conf"]["scale"] == 1 / 255
    card = replace(exact, confidence=np.full_like(exact.confidence, 0.2))
    add_images(card, tmp_path)
    assert (read(tmp_path / "conf_0000.png") == 51).all()  # 0.2 * 255


def test_a_confidence_without_a_top_is_fitted(exact, tmp_path):
    rising = np.broadcast_to(np.linspace(1, 20, 96, dtype=np.float16), exact.confidence.shape)
    scale = add_images(replace(exact, confidence=rising), tmp_path)["images"]["conf"]["scale"]
    np.testing.assert_allclose(read(tmp_path / "conf_0000.png") * scale, rising[0], atol=0.51 * scale)


def test_masks_of_the_engine_are_written_as_they_are(exact, tmp_path):
    masks = np.random.default_rng(0).random((FRAMES, 256, 384)) < 0.3
    row = add_images(replace(exact, plate_masks=masks), tmp_path)["images"]["dynamic_mask"]
    assert row["made_at"] == "plate"
    for frame in range(FRAMES):
        np.testing.assert_array_equal(read(tmp_path / f"dynamic_mask_{frame:04d}.png"), masks[frame] * np.uint8(255))


def test_a_processed_mask_fills_the_plate(written, exact):
    """The plate is four times the grid: every processed pixel becomes a block of 4 x 4."""
    mask = read(written[0] / "dynamic_mask_0001.png")
    np.testing.assert_array_equal(mask, np.kron(exact.dynamic[1], np.ones((4, 4))) * 255)
    assert written[1]["dynamic_mask"]["made_at"] == "processed"


@pytest.mark.parametrize("plate_map", [PlateMap(0.5, 0.5, 8, 3), PlateMap(0.4, 0.7, -2, 0), PlateMap(1.5, 1.25, 10, 4)])
def test_each_plate_pixel_takes_the_grid_pixel_under_its_centre(plate_map):
    grid = np.random.default_rng(1).random((20, 30)) < 0.5
    plate = to_plate(grid, plate_map, (97, 61))
    for y, x in np.ndindex(plate.shape):
        gx, gy = np.floor(plate_map.to_grid([x + 0.5, y + 0.5])).astype(int)
        inside = 0 <= gx < 30 and 0 <= gy < 20
        assert plate[y, x] == (inside and grid[gy, gx])


def test_a_capture_without_any_depth_still_has_a_scale():
    assert quantum(np.zeros((2, 3, 4)), 65535) > 0
