"""From aligned frames to a capture: all frames of the clip, conventions, and what is said of each."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from backend.clip import Clip
from backend.geometry.trajectory import on_the_spot
from backend.mast3r.report import ON_THE_SPOT, to_capture
from backend.mast3r.spreading import Aligned, over_all_frames
from backend.monst3r.knowns import Given
from backend.monst3r.pictures import Pictures
from backend.monst3r.preprocess import grid_for
from backend.run import Run
from backend.wire import ClipInfo, JobSettings, MASt3RSettings, PlateMap, read_capture, write_capture
from tests.worlds import film, hand_held, square_intrinsics

FRAMES, WIDTH, HEIGHT = 5, 128, 96
TIMES = np.arange(FRAMES) / 24
INFO = ClipInfo("set", (640, 480), Fraction(24), tuple(range(FRAMES)), tuple(TIMES), kind="images")
NOTHING = Given(None, None)


@pytest.fixture(scope="module")
def world():
    return film(hand_held(FRAMES), square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, FRAMES), WIDTH, HEIGHT)


def aligned(world, keys=slice(None), **changes) -> Aligned:
    count = len(world.depth[keys])
    found = Aligned(
        world_from_camera=world.world_from_camera[keys].copy(),
        focal_px=world.intrinsics[keys, 0].copy(),
        centre=np.tile([WIDTH / 2, HEIGHT / 2], (count, 1)),
        depth=world.depth[keys].copy(),
        confidence=np.full((count, HEIGHT, WIDTH), 5.0, np.float32),
    )
    return replace(found, **changes)


def capture_of(
    world, found, keys=None, sequence=False, masks=None, given=NOTHING, locked=False, details=None, **options
):
    plates = None if masks is None else np.zeros((FRAMES, 480, 640), bool)
    clip = Clip(INFO, np.zeros((FRAMES, 480, 640, 3), np.uint8), PlateMap(1.0, 1.0), plates, warnings=("It was cut",))
    pictures = Pictures(world.rgb, grid_for((640, 480), WIDTH), PlateMap(1.0, 1.0))
    settings = JobSettings("mast3r", engine_settings=MASt3RSettings(**options))
    keys = np.arange(FRAMES) if keys is None else np.array(keys)
    placed = over_all_frames(found, keys, TIMES, world.rgb, sequence, Run())
    stamps = ({"name": "weights"},)
    details = {"pairs": 10, **(details or {})}
    return to_capture(clip, settings, pictures, placed, masks, given, stamps, sequence, locked, details, Run())


def lost(world, frame: int) -> Aligned:
    found = aligned(world)
    found.world_from_camera[frame] = np.nan
    return found


def test_pixels_are_counted_from_the_edge(world):
    """The network's principal point W/2 counts from the first pixel's centre, which is half a pixel from the edge."""
    capture = capture_of(world, aligned(world))
    np.testing.assert_allclose(capture.intrinsics, world.intrinsics)
    np.testing.assert_allclose(capture.world_from_camera, world.world_from_camera)
    np.testing.assert_allclose(capture.depth, world.depth)


def test_the_unit_is_the_metre_unless_the_user_s_cameras_have_another(world):
    assert capture_of(world, aligned(world)).metric
    given = Given(None, world.world_from_camera)
    assert not capture_of(world, aligned(world), given=given).metric


def test_a_lost_image_of_a_set_has_no_camera_and_nothing_to_show(world, tmp_path):
    capture = capture_of(world, lost(world, 2))
    assert capture.has_camera.tolist() == [True, True, False, True, True]
    assert np.isnan(capture.intrinsics[2]).all()
    assert not capture.depth[2].any()
    assert not capture.confidence[2].any()
    assert not capture.frames[2].registered
    assert not capture.frames[2].interpolated
    assert capture.shot.warnings[:2] == ("It was cut", "1 of 5 frames could not be placed")
    assert capture.shot.details == {"frames_placed": 4, "pairs": 10}
    again = read_capture(write_capture(capture, tmp_path / "capture"))
    assert again.frames == capture.frames


def test_a_lost_frame_of_a_sequence_is_put_between_its_neighbours(world):
    capture = capture_of(world, lost(world, 2), sequence=True)
    middle = world.world_from_camera[[1, 3], :3, 3].mean(axis=0)
    np.testing.assert_allclose(capture.world_from_camera[2, :3, 3], middle, atol=1e-12)
    assert capture.frames[2].interpolated
    assert not capture.frames[2].registered
    assert not capture.depth[2].any()
    assert "1 of 5 frames could not be placed; 1 were put between neighbours" in capture.shot.warnings


def test_frames_of_a_sequence_that_were_not_asked_for_are_no_failure(world):
    keys = [0, 2, 4]
    capture = capture_of(world, aligned(world, keys), keys, sequence=True)
    assert [f.registered for f in capture.frames] == [True, False, True, False, True]
    assert [f.interpolated for f in capture.frames] == [False, True, False, True, False]
    assert not any("could not be placed" in text for text in capture.shot.warnings)
    seen = capture.depth[1] > 0
    assert seen.mean() > 0.6
    assert np.median(np.abs(capture.depth[1][seen] / world.depth[1][seen] - 1)) < 0.02
    assert capture.confidence[1][seen].max() == pytest.approx(3, rel=1e-3)  # what was carried counts half


def test_an_image_that_the_network_is_hardly_sure_of_is_marked(world):
    sure = np.full((FRAMES, HEIGHT, WIDTH), 5.0, np.float32)
    sure[3] = 1.2
    capture = capture_of(world, aligned(world, confidence=sure))
    assert [f.low_confidence for f in capture.frames] == [False, False, False, True, False]


def test_masks_are_the_user_s_and_without_them_it_says_that_nothing_was_looked_for(world):
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    masks[:, :20] = True
    with_masks, without = capture_of(world, aligned(world), masks=masks), capture_of(world, aligned(world))
    np.testing.assert_array_equal(with_masks.dynamic, masks)
    assert with_masks.plate_masks.shape == (FRAMES, 480, 640)
    assert not without.dynamic.any()
    assert without.plate_masks is None
    told = [any("Nothing is masked" in text for text in c.shot.warnings) for c in (with_masks, without)]
    assert told == [False, True]


def test_a_lens_that_no_picture_shows_is_told_unless_it_was_given(world):
    def told(disagreement, given=NOTHING):
        capture = capture_of(world, aligned(world), given=given, details={"lens_disagreement": disagreement})
        return [text for text in capture.shot.warnings if "The lens came out" in text]

    assert told(0.02) == []
    assert "25% off what the network sees" in told(0.25)[0]
    assert told(0.25, Given(np.full(FRAMES, 100.0), None)) == []


def test_photographs_from_one_spot_are_told_from_those_that_travel(world):
    spot = world.world_from_camera.copy()
    assert not on_the_spot(spot, world.depth, ON_THE_SPOT)
    spot[:, :3, 3] = spot[0, :3, 3] + 0.01 * np.random.default_rng(0).normal(size=(FRAMES, 3)) / 3
    assert on_the_spot(spot, world.depth, ON_THE_SPOT)
    capture = capture_of(world, aligned(world, world_from_camera=spot))
    assert capture.shot.kind == "rotation"
    assert any("parallax" in text for text in capture.shot.warnings)
    assert capture_of(world, aligned(world)).shot.kind == "moving"
    assert capture_of(world, aligned(world), sequence=True, locked=True).shot.kind == "locked"
