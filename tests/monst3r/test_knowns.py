"""What is known of the cameras before the solve: from files, from the lens, and from a picture that stands still."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from backend.align.predictions import PairFlows
from backend.align.unknowns import Knowns
from backend.clip import Clip
from backend.known_cameras import KnownCameras
from backend.monst3r.knowns import given_cameras, known_part, looks_locked
from backend.wire import ClipInfo, JobSettings, LensSettings, MonST3RSettings, PlateMap, UserError
from tests.pair_oracle import EXACT, Errors, FlowOracle
from tests.worlds import hand_held, hand_held_room, locked_off

FRAMES = 5
#: A plate of 1920 x 1080, shrunk to a quarter and cropped.
PICTURES = SimpleNamespace(plate_map=PlateMap(0.25, 0.25, 0.0, 3.0), size=(480, 256))


def given(known: KnownCameras | None = None, **lens):
    info = ClipInfo("a.mp4", (1920, 1080), Fraction(24), tuple(range(FRAMES)), tuple(n / 24 for n in range(FRAMES)))
    clip = Clip(info, np.zeros((FRAMES, 27, 48, 3), np.uint8), PlateMap(0.025, 0.025), known_cameras=known)
    settings = JobSettings(engine="monst3r", lens=LensSettings(**lens), engine_settings=MonST3RSettings())
    return given_cameras(clip, settings, PICTURES)


def lens(fx, fy) -> KnownCameras:
    return KnownCameras(None, np.tile([fx, fy, 960.0, 540.0], (FRAMES, 1)))


def test_nothing_given_is_nothing_known():
    found = given()
    assert (found.focal_px, found.world_from_camera, found.source) == (None, None, "solved")
    assert found.knowns(np.arange(FRAMES), MonST3RSettings()) == Knowns()


def test_a_lens_in_millimetres_is_pixels_on_the_grid():
    found = given(focal_mm=35.0, sensor_width_mm=36.0)
    np.testing.assert_allclose(found.focal_px, 35 / 36 * 1920 * 0.25)
    assert found.source == "user"


def test_a_file_of_the_lens_is_believed_before_millimetres():
    np.testing.assert_allclose(given(lens(1600, 1600), focal_mm=35.0).focal_px, 400)


def test_nearly_square_pixels_get_the_mean_and_others_are_refused():
    np.testing.assert_allclose(given(lens(1600, 1616)).focal_px, 0.25 * np.sqrt(1600 * 1616))
    with pytest.raises(UserError, match="not square; stretch the plate"):
        given(lens(1600, 1700))


def test_key_frames_get_their_own_poses_and_lenses():
    poses = hand_held(FRAMES)
    poses[3] = np.nan
    zoom = np.stack([np.linspace(1000, 1400, FRAMES)] * 2 + [np.full(FRAMES, 960), np.full(FRAMES, 540)], axis=1)
    found = given(KnownCameras(poses, zoom))
    keys = np.array([0, 3, 4])
    knowns = found.knowns(keys, MonST3RSettings(zoom=True))
    np.testing.assert_allclose(knowns.focal_px, [250, 325, 350])
    np.testing.assert_allclose(
        knowns.camera_from_world[[0, 2]].numpy() @ poses[[0, 4]], np.tile(np.eye(4), (2, 1, 1)), atol=1e-12
    )
    assert knowns.camera_from_world[1].isnan().any()
    assert knowns.per_frame_focal


def test_locked_off_is_what_the_user_says_unless_they_give_poses_as_well():
    locked = MonST3RSettings(camera="locked")
    keys = np.arange(FRAMES)
    assert given().knowns(keys, locked).locked
    assert not given().knowns(keys, MonST3RSettings(camera="moving")).locked
    with pytest.raises(UserError, match="leave out one of the two"):
        given(KnownCameras(hand_held(FRAMES), None)).knowns(keys, locked)


def test_a_part_of_what_is_known():
    knowns = Knowns(torch.arange(5.0), torch.arange(80.0).reshape(5, 4, 4), per_frame_focal=True)
    part = known_part(knowns, slice(1, 3))
    assert part.focal_px.tolist() == [1, 2]
    assert torch.equal(part.camera_from_world, knowns.camera_from_world[1:3])
    assert part.per_frame_focal
    assert known_part(Knowns(locked=True), slice(1, 3)) == Knowns(locked=True)


PAIRS = [(0, 1), (1, 0), (0, 3), (3, 0)]


def test_a_tripod_is_seen_in_the_flow_whatever_moves_before_it():
    assert looks_locked(FlowOracle(locked_off(4), EXACT).predict(PAIRS))
    assert looks_locked(FlowOracle(locked_off(4), Errors()).predict(PAIRS))
    assert not looks_locked(FlowOracle(hand_held_room(4), EXACT).predict(PAIRS))
    assert not looks_locked(FlowOracle(hand_held_room(4), Errors()).predict(PAIRS))


def test_one_pair_that_moves_is_enough_to_move():
    flow = torch.zeros(3, 2, 64, 512)
    still = PairFlows(torch.zeros(3, 2, dtype=torch.long), flow, torch.ones(3, 64, 512, dtype=torch.bool))
    assert looks_locked(still)
    flow[1, 0, :, :200] = 20.0  # something moves over two fifths of it
    assert looks_locked(still)
    flow[1, 0] = 0.5
    assert not looks_locked(still)
