"""What is the classical engine's own: its choices of lens, its settings, and frames that fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backend.clip import Clip
from backend.engines.classical import ClassicalEngine
from backend.geometry.trajectory import absolute_trajectory_error
from backend.pipeline import with_movers
from backend.run import Run
from backend.wire import (
    CONFIDENCE_CARD,
    CONFIDENCE_FILLED,
    CONFIDENCE_MEASURED,
    ClassicalSettings,
    ClipInfo,
    JobSettings,
    LensSettings,
    PlateMap,
)
from tests.worlds import Mover, as_capture, film, hand_held, room

WIDTH, HEIGHT, FRAMES = 320, 180, 12
FOCAL_PX = 0.9 * WIDTH
LENS = LensSettings(focal_mm=36 * FOCAL_PX / WIDTH, sensor_width_mm=36)
#: The frames that `broken` has lost.
BLACK = [5, 6]


@pytest.fixture(scope="module")
def world():
    return room(FRAMES, WIDTH, HEIGHT, focal_px=FOCAL_PX)


def capture_of(world, folder, lens=LENS, frames=None, **options):
    info: ClipInfo = as_capture(world).clip
    clip = Clip(info, world.rgb if frames is None else frames, PlateMap(1.0, 1.0))
    settings = JobSettings(lens=lens, engine_settings=ClassicalSettings(**options))
    return ClassicalEngine().reconstruct(clip, settings, Run(work_dir=folder))


@pytest.fixture(scope="module")
def unfilled(world, tmp_path_factory):
    """A capture of an unknown lens, with every guess turned off."""
    folder = tmp_path_factory.mktemp("unfilled")
    return capture_of(world, folder, LensSettings(), fill_holes=False, movers_as_cards=False)


@pytest.fixture(scope="module")
def broken(world, tmp_path_factory):
    """A capture of a clip with two black frames in its middle, with filling and cards."""
    frames = world.rgb.copy()
    frames[BLACK] = 0
    return capture_of(world, tmp_path_factory.mktemp("broken"), frames=frames)


def test_an_unknown_lens_is_solved_where_the_solvers_agree(unfilled):
    assert unfilled.shot.focal_source == "solved"
    assert unfilled.plate_intrinsics[0, 0] == pytest.approx(FOCAL_PX, rel=0.03)
    assert unfilled.shot.solver_disagreement < 0.02


def test_without_filling_and_cards_everything_shown_was_measured(unfilled):
    confidence = np.asarray(unfilled.confidence, np.float32)
    assert ((confidence == 0) | (confidence >= CONFIDENCE_MEASURED - 1e-3)).all()
    assert (confidence[unfilled.dynamic] == 0).all()
    assert (np.asarray(unfilled.depth)[confidence == 0] == 0).all()


def test_guesses_carry_the_confidence_of_guesses(broken):
    confidence = np.asarray(broken.confidence, np.float16)
    guesses = confidence[(confidence > 0) & (confidence < CONFIDENCE_MEASURED - 1e-3)]
    assert set(np.unique(guesses)) == {np.float16(CONFIDENCE_FILLED), np.float16(CONFIDENCE_CARD)}
    assert (confidence[broken.dynamic] <= np.float16(CONFIDENCE_CARD)).all()


def test_frames_without_a_picture_get_a_camera_between_their_neighbours_and_say_so(broken, world):
    for t, frame in enumerate(broken.frames):
        assert frame.registered == (t not in BLACK)
        assert frame.interpolated == (t in BLACK)
    assert absolute_trajectory_error(broken.world_from_camera, world.world_from_camera).ate_relative < 0.02
    assert "2 of 12 frames have no measured camera" in " ".join(broken.shot.warnings)


def test_nothing_is_measured_in_frames_without_a_camera_of_their_own(broken):
    assert (np.asarray(broken.confidence, np.float32)[BLACK] < CONFIDENCE_MEASURED - 1e-3).all()


def test_tracks_project_to_where_they_were_seen(broken):
    tracks = broken.tracks
    assert len(tracks.points_world) == len(tracks.colours) == len(tracks.errors_px) > 100
    assert tracks.errors_px.mean() < 0.5
    assert not np.isin(tracks.frame, BLACK).any()


@pytest.mark.slow
def test_the_same_job_gives_the_same_camera(world, tmp_path):
    a, b = (capture_of(world, tmp_path) for _ in range(2))
    # To a five-thousandth of the median depth: the solvers' threads add up in any order.
    np.testing.assert_allclose(a.world_from_camera, b.world_from_camera, atol=1e-3)
    assert replace(a.shot, details={}).kind == b.shot.kind


@pytest.mark.slow
def test_a_card_has_the_velocity_of_what_stands_on_it(tmp_path):
    """A panel whose foot on the floor is seen, so that its card stands where it stands."""
    lens = np.tile([FOCAL_PX, FOCAL_PX, WIDTH / 2, HEIGHT / 2], (FRAMES, 1))
    centres = np.linspace((-0.5, 0.5, 4.6), (0.5, 0.5, 4.6), FRAMES)
    world = film(hand_held(FRAMES), lens, WIDTH, HEIGHT, Mover(centres, (0.4, 0.7)))
    capture = with_movers(capture_of(world, tmp_path), Run(work_dir=tmp_path))
    path = absolute_trajectory_error(capture.world_from_camera, world.world_from_camera).alignment
    found = np.asarray(capture.velocity, np.float64)[world.dynamic] @ path.rotation.T * path.scale
    known = (found != 0).any(axis=1)
    velocity = (centres[1] - centres[0]) * 24
    assert known.mean() > 0.8
    assert np.median(np.linalg.norm(found[known] - velocity, axis=1)) < 0.15 * np.linalg.norm(velocity)
