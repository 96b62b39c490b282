"""The engine's result as a capture: its conventions, its scale, and what it says of every frame."""

from fractions import Fraction

import numpy as np
import pytest

from backend.clip import Clip
from backend.monst3r.between import Solved
from backend.monst3r.knowns import Given
from backend.monst3r.pictures import Pictures
from backend.monst3r.preprocess import grid_for
from backend.monst3r.report import MEDIAN_DEPTH, normalised, to_capture
from backend.run import Run
from backend.wire import ClipInfo, JobSettings, LensSettings, MonST3RSettings, PlateMap, read_capture, write_capture
from tests.align.by_oracle import still_room

FRAMES, WIDTH, HEIGHT = 6, 128, 96
INFO = ClipInfo("a.mp4", (640, 480), Fraction(24), tuple(range(FRAMES)), tuple(n / 24 for n in range(FRAMES)))
NOTHING = Given(None, None)


@pytest.fixture(scope="module")
def world():
    return still_room(FRAMES, WIDTH, HEIGHT)


def solved(world, **changes) -> Solved:
    values = {
        "world_from_camera": world.world_from_camera.copy(),
        "focal_px": world.intrinsics[:, 0].copy(),
        "depth": world.depth.copy(),
        "confidence": np.full(world.depth.shape, 5.0, np.float32),
        "scores": np.zeros(world.depth.shape, np.float16),
        "interpolated": np.zeros(FRAMES, bool),
        "wanted": np.ones(FRAMES, bool),
    }
    return Solved(**(values | changes))


def capture_of(world, result=None, given=NOTHING, locked=False, **options):
    clip = Clip(INFO, np.zeros((FRAMES, 480, 640, 3), np.uint8), PlateMap(1.0, 1.0), warnings=("The clip was cut",))
    pictures = Pictures(world.rgb, grid_for((640, 480), WIDTH), PlateMap(1.0, 1.0))
    settings = JobSettings(engine="monst3r", lens=LensSettings(), engine_settings=MonST3RSettings(**options))
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    plates = np.zeros((FRAMES, 480, 640), bool)
    stamps = ({"name": "weights"},)
    return to_capture(clip, settings, pictures, result or solved(world), masks, plates, given, stamps, locked, Run())


def test_pixels_are_counted_from_the_edge(world):
    """The network's principal point W/2 counts from the first pixel's centre, which is half a pixel from the edge."""
    capture = capture_of(world)
    np.testing.assert_allclose(capture.intrinsics, world.intrinsics)
    np.testing.assert_allclose(capture.intrinsics[:, 2:], [[64.5, 48.5]] * FRAMES)


def test_the_first_camera_is_the_origin_and_median_depth_is_five(world):
    capture = capture_of(world)
    np.testing.assert_allclose(capture.world_from_camera[0], np.eye(4), atol=1e-12)
    assert np.median(capture.depth) == pytest.approx(MEDIAN_DEPTH, rel=0.02)
    scale = np.median(capture.depth / world.depth)
    truth = np.linalg.inv(world.world_from_camera[0]) @ world.world_from_camera
    truth[:, :3, 3] *= scale
    np.testing.assert_allclose(capture.world_from_camera, truth, atol=1e-5)
    np.testing.assert_allclose(capture.depth, scale * world.depth, rtol=1e-5)
    assert not capture.metric


def test_given_cameras_keep_their_world_and_unit(world):
    capture = capture_of(world, given=Given(None, world.world_from_camera))
    np.testing.assert_array_equal(capture.world_from_camera, world.world_from_camera)
    np.testing.assert_array_equal(capture.depth, world.depth)


@pytest.mark.parametrize(("given", "source"), [(NOTHING, "solved"), (Given(np.full(FRAMES, 90.0), None), "user")])
def test_where_the_focal_length_comes_from(world, given, source):
    assert capture_of(world, given=given).shot.focal_source == source


def test_only_what_is_known_and_sure_decides_the_scale(world):
    depth, confidence = world.depth.copy(), np.full(world.depth.shape, 3.0)
    depth[:, :60], confidence[:, :60] = 1e4, 1.0  # most of it says nothing
    depth[:, :, :10] = 0
    _, scale = normalised(world.world_from_camera, depth, confidence)
    assert scale == pytest.approx(5 / np.median(world.depth[:, 60:, 10:]), rel=0.05)
    assert normalised(world.world_from_camera, depth * 0, confidence)[1] == 1.0


def test_a_frame_that_could_not_be_placed_gets_a_camera_between_and_says_so(world):
    poses, depth, confidence = world.world_from_camera.copy(), world.depth.copy(), np.full(world.depth.shape, 5.0)
    for n in (2, 5):
        poses[n], depth[n], confidence[n] = np.nan, 0, 0
    capture = capture_of(world, solved(world, world_from_camera=poses, depth=depth, confidence=confidence))
    told = [(f.registered, f.interpolated) for f in capture.frames]
    assert told == [(True, False)] * 2 + [(False, True)] + [(True, False)] * 2 + [(False, False)]
    assert np.isfinite(capture.world_from_camera[2]).all()
    assert np.isfinite(capture.intrinsics[2]).all()
    assert np.isnan(capture.world_from_camera[5]).all()  # nothing is extrapolated
    assert np.isnan(capture.intrinsics[5]).all()
    assert "2 of 6 frames could not be placed; 1 were put between neighbours" in capture.shot.warnings


def test_frames_that_were_left_out_on_purpose_are_no_failure(world):
    between = np.array([False, True, False, True, False, False])
    capture = capture_of(world, solved(world, interpolated=between, wanted=~between), solve_every=2)
    assert [f.registered for f in capture.frames] == [True, False, True, False, True, True]
    assert [f.interpolated for f in capture.frames] == between.tolist()
    assert not any("could not be placed" in warning for warning in capture.shot.warnings)


def test_a_frame_that_is_much_less_sure_than_the_others_is_marked(world):
    confidence = np.full(world.depth.shape, 5.0)
    confidence[3] = 1.5
    confidence[4] = 4.0
    capture = capture_of(world, solved(world, confidence=confidence))
    assert [f.low_confidence for f in capture.frames] == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "preview"}, "This is a preview"),
        ({"flow": "none"}, "Without optical flow"),
        ({"flow": "classical"}, "less well than RAFT"),
    ],
)
def test_what_makes_a_result_rough_is_said(world, options, words):
    assert any(words in warning for warning in capture_of(world, **options).shot.warnings)
    assert capture_of(world).shot.warnings == ("The clip was cut",)


def test_a_camera_taken_to_stand_still_is_said(world):
    capture = capture_of(world, locked=True)
    assert capture.shot.kind == "locked"
    assert any("does not move" in warning for warning in capture.shot.warnings)
    assert capture_of(world).shot.kind == "moving"


def test_confidence_beyond_half_precision_is_cut_not_infinite(world):
    confidence = np.full(world.depth.shape, 1e9, np.float32)
    assert np.isfinite(capture_of(world, solved(world, confidence=confidence)).confidence).all()


def test_the_capture_can_be_written_and_read_with_terms_and_weights(world, tmp_path):
    write_capture(capture_of(world), tmp_path / "capture")
    back = read_capture(tmp_path / "capture")
    assert back.engine.name == "monst3r"
    assert not back.engine.commercial_use
    assert [dict(w) for w in back.engine.weights] == [{"name": "weights"}]
    assert back.settings["engine_settings"]["mode"] == "full"
