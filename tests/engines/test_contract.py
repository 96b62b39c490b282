"""The contract of every engine that needs no weights: a known world goes in, an honest capture comes out."""

from __future__ import annotations

import numpy as np
import pytest

from backend.clip import Clip
from backend.engines import REGISTRY, load_engine
from backend.geometry.trajectory import absolute_trajectory_error
from backend.run import Run
from backend.wire import (
    CONFIDENCE_MEASURED,
    ENGINES,
    Cancelled,
    ClipInfo,
    JobSettings,
    LensSettings,
    PlateMap,
    UserError,
    read_capture,
    write_capture,
)
from tests.worlds import World, as_capture, room

WIDTH, HEIGHT, FRAMES = 320, 180, 20
FOCAL_PX = 0.9 * WIDTH
#: The same lens as a user would enter it.
LENS = LensSettings(focal_mm=36 * FOCAL_PX / WIDTH, sensor_width_mm=36)


@pytest.fixture(scope="module")
def world() -> World:
    return room(FRAMES, WIDTH, HEIGHT, focal_px=FOCAL_PX)


def clip_of(world: World, **more) -> Clip:
    info: ClipInfo = as_capture(world).clip
    return Clip(info=info, frames=world.rgb, store_map=PlateMap(1.0, 1.0), **more)


def settings_for(engine: str, lens: LensSettings = LENS) -> JobSettings:
    return JobSettings(engine=engine, lens=lens, engine_settings=ENGINES[engine].settings())


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def made(request, world, tmp_path_factory):
    """(engine name, its capture of the world, the stages it reported)"""
    stages = []
    run = Run(work_dir=tmp_path_factory.mktemp("work"), report=lambda p: stages.append(p.stage))
    capture = load_engine(request.param).reconstruct(clip_of(world), settings_for(request.param), run)
    return request.param, capture, stages


def test_every_engine_of_the_panel_exists():
    assert set(REGISTRY) == set(ENGINES)


def test_the_camera_follows_the_true_path(made, world):
    _, capture, _ = made
    assert capture.has_camera.all()
    error = absolute_trajectory_error(capture.world_from_camera, world.world_from_camera)
    assert error.ate_relative < 0.01
    assert error.rotation_deg_rmse < 0.3


def test_measured_depth_is_near_the_truth_at_the_scale_of_the_path(made, world):
    _, capture, _ = made
    scale = absolute_trajectory_error(capture.world_from_camera, world.world_from_camera).alignment.scale
    width, height = capture.processed_size
    assert (width, height) == (WIDTH, HEIGHT)
    measured = (np.asarray(capture.confidence, np.float32) >= CONFIDENCE_MEASURED - 1e-3) & ~world.dynamic
    off = np.abs(np.asarray(capture.depth) * scale / world.depth - 1)[measured]
    assert measured.mean() > 0.3
    assert off.mean() < 0.05


def test_what_moves_is_in_the_mask(made, world):
    _, capture, _ = made
    assert capture.plate_masks.shape == (FRAMES, HEIGHT, WIDTH)
    found, true = np.asarray(capture.plate_masks), world.dynamic
    assert (found & true).sum() / (found | true).sum() > 0.5


def test_nothing_is_claimed_without_a_depth(made):
    _, capture, _ = made
    depth, confidence = np.asarray(capture.depth), np.asarray(capture.confidence)
    assert np.isfinite(depth).all()
    assert (depth >= 0).all()
    assert (confidence[depth == 0] == 0).all()
    assert (confidence[depth > 0] > 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all() or "1" in capture.confidence_meaning


def test_every_frame_and_the_shot_are_reported(made):
    _, capture, _ = made
    assert capture.shot.kind == "moving"
    assert capture.shot.focal_source == "user"
    assert all(f.registered and f.reprojection_error_px < 1 for f in capture.frames)
    assert capture.tracks is not None


def test_progress_names_the_stages_of_the_plan(made):
    name, _, stages = made
    assert set(stages) == {stage for stage, _ in load_engine(name).plan}


def test_the_capture_can_be_written_and_read(made, tmp_path):
    _, capture, _ = made
    again = read_capture(write_capture(capture, tmp_path / "capture"))
    assert again.frames == capture.frames
    np.testing.assert_allclose(again.world_from_camera, capture.world_from_camera)


@pytest.mark.parametrize("engine", sorted(REGISTRY))
@pytest.mark.parametrize("kind", ["locked", "rotation"])
def test_a_camera_that_does_not_travel_measures_no_depth(engine, kind, tmp_path):
    """No parallax: the camera is usable, every depth is marked as a guess, and a warning says so."""
    still = room(12, WIDTH, HEIGHT, focal_px=FOCAL_PX, motion=kind)
    capture = load_engine(engine).reconstruct(clip_of(still), settings_for(engine), Run(work_dir=tmp_path))
    assert capture.shot.kind == kind
    assert capture.shot.warnings
    assert (np.asarray(capture.confidence, np.float32) < CONFIDENCE_MEASURED - 1e-3).all()
    turn = np.swapaxes(still.world_from_camera[:, :3, :3], 1, 2) @ still.world_from_camera[:1, :3, :3]
    solved = np.swapaxes(capture.world_from_camera[:, :3, :3], 1, 2) @ capture.world_from_camera[:1, :3, :3]
    np.testing.assert_allclose(solved, turn, atol=0.01)


@pytest.mark.parametrize("engine", sorted(REGISTRY))
def test_known_masks_are_kept(engine, world, tmp_path):
    """What the user says moves is in the capture's mask, where the footage alone would not show it."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    masks[:, 20:60, 20:80] = True
    clip = clip_of(world, known_masks=masks)
    capture = load_engine(engine).reconstruct(clip, settings_for(engine), Run(work_dir=tmp_path))
    assert np.asarray(capture.plate_masks)[:, 25:55, 25:75].mean() > 0.99


@pytest.mark.parametrize("engine", sorted(REGISTRY))
def test_an_empty_picture_is_refused_with_a_reason(engine, world, tmp_path):
    clip = Clip(clip_of(world).info, np.full_like(world.rgb, 128), PlateMap(1.0, 1.0))
    with pytest.raises(UserError) as refusal:
        load_engine(engine).reconstruct(clip, settings_for(engine), Run(work_dir=tmp_path))
    assert refusal.value.hint


@pytest.mark.parametrize("engine", sorted(REGISTRY))
def test_cancelling_stops_within_the_first_stage(engine, world, tmp_path):
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        load_engine(engine).reconstruct(
            clip_of(world), settings_for(engine), Run(work_dir=tmp_path, is_cancelled=cancelled)
        )
