"""The Point3R engine end to end, with an oracle in the network's place: a known world comes back, in metres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.clip import Clip
from backend.engines import load_engine
from backend.engines.point3r import Point3REngine
from backend.geometry.camera import unproject
from backend.geometry.trajectory import absolute_trajectory_error
from backend.known_cameras import KnownCameras
from backend.point3r import passing
from backend.run import Run
from backend.stage_memory import StageMemory
from backend.wire import (
    Cancelled,
    Capture,
    ClipSettings,
    JobSettings,
    LensSettings,
    LiveFrame,
    Point3RSettings,
    UserError,
)
from tests.point3r_oracle import FRAMES, HEIGHT, PLATE, WIDTH, OracleEngine, clip_of, walk
from tests.stream_oracle import EXACT, StreamErrors
from tests.worlds import World, look

#: What is off of the path itself; without the refinements that other tests are for.
PLAIN = {"refine_camera": False, "refine_path": False, "find_movers": False}


def capture_of(
    world: World,
    tmp_path: Path,
    engine: Point3REngine | None = None,
    clip: Clip | None = None,
    lens: LensSettings | None = None,
    run: Run | None = None,
    **options,
) -> Capture:
    job = JobSettings("point3r", ClipSettings(long_side=WIDTH), lens or LensSettings(), Point3RSettings(**options))
    run = run or Run(work_dir=tmp_path)
    return (engine or OracleEngine(world)).reconstruct(clip or clip_of(world), job, run)


def pose_error(capture: Capture, world: World, with_scale: bool = False):
    return absolute_trajectory_error(capture.world_from_camera, world.world_from_camera, with_scale)


def depth_error(capture: Capture, world: World) -> float:
    """Mean relative error in metres, where the capture shows anything that stands still."""
    shown = (np.asarray(capture.confidence, np.float32) >= capture.confidence_default) & ~world.dynamic
    assert shown.mean() > 0.5
    return float(np.abs(np.asarray(capture.depth)[shown] / world.depth[shown] - 1).mean())


@pytest.fixture(scope="module")
def world() -> World:
    return walk()


@pytest.fixture(scope="module")
def busy() -> World:
    """The same with a panel that slides through it."""
    return walk(12, mover=True)


@pytest.fixture(scope="module")
def exact(world, tmp_path_factory) -> Capture:
    return capture_of(world, tmp_path_factory.mktemp("work"), OracleEngine(world, EXACT), **PLAIN)


# What it finds


def test_an_exact_network_gives_the_world_in_metres(exact, world):
    assert exact.metric
    assert pose_error(exact, world).ate_rmse < 0.005
    assert pose_error(exact, world).rotation_deg_rmse < 0.1
    assert pose_error(exact, world, with_scale=True).alignment.scale == pytest.approx(1, abs=0.01)
    assert depth_error(exact, world) < 0.01
    np.testing.assert_allclose(exact.plate_intrinsics[:, 0], world.intrinsics[:, 0] * PLATE, rtol=0.01)


def test_the_capture_says_what_made_it(exact):
    assert exact.engine.name == "point3r"
    assert exact.engine.licence == "CC-BY-NC-SA-4.0"
    assert not exact.engine.commercial_use
    assert exact.engine.weights == ({"name": "oracle"},)
    assert all(frame.registered and not frame.low_confidence for frame in exact.frames)
    assert exact.shot.focal_source == "solved"
    assert exact.shot.details["frames_placed"] == FRAMES
    assert exact.shot.details["pointers"] > 40
    assert exact.depth.shape == exact.confidence.shape == exact.dynamic.shape == (FRAMES, HEIGHT, WIDTH)


@pytest.mark.slow
def test_each_way_to_a_path_is_better_than_the_one_before(tmp_path):
    """The network's own guess, points with what the pictures show of each step, and neighbours solved together."""
    long = walk(24)
    ways = ({"cameras": "network", "steady": False}, {}, {"refine_path": True})
    network, points, refined = (pose_error(capture_of(long, tmp_path, **{**PLAIN, **way}), long) for way in ways)
    assert points.step_rotation_deg_rmse < 0.5 * network.step_rotation_deg_rmse
    assert refined.step_rotation_deg_rmse < 0.25 * points.step_rotation_deg_rmse
    assert points.ate_rmse < network.ate_rmse
    assert refined.ate_rmse < 0.5 * points.ate_rmse


@pytest.mark.slow
def test_what_moves_is_masked_and_its_places_are_not_in_the_set(busy, tmp_path):
    capture = capture_of(busy, tmp_path, refine_camera=False)
    found, true = np.asarray(capture.dynamic), busy.dynamic
    assert (found & true).sum() / (found | true).sum() > 0.6
    assert found[~true].mean() < 0.02
    nothing = capture_of(busy, tmp_path, **PLAIN)
    assert not np.asarray(nothing.dynamic).any()


@pytest.mark.slow
def test_optical_flow_may_tell_what_moves_too(busy, tmp_path):
    """A camera that stands still sees a mover leave its places; so does the flow, and both together no less."""
    options = {"refine_camera": False, "refine_path": False}
    alone, both = (capture_of(busy, tmp_path, flow=flow, **options) for flow in ("none", "classical"))
    recall = [(np.asarray(c.dynamic) & busy.dynamic).sum() / busy.dynamic.sum() for c in (alone, both)]
    assert recall[1] >= recall[0]


@pytest.mark.slow
def test_a_camera_that_stands_still_is_told(tmp_path):
    still = walk(motion="locked", mover=True)
    capture = capture_of(still, tmp_path, refine_camera=False)
    assert capture.shot.kind == "locked"
    np.testing.assert_array_equal(capture.world_from_camera, np.tile(np.eye(4), (FRAMES, 1, 1)))
    assert any("does not move" in text for text in capture.shot.warnings)
    moving = capture_of(still, tmp_path, camera="moving", **PLAIN)
    assert moving.shot.kind == "moving"
    assert np.ptp(moving.world_from_camera[:, :3, 3], axis=0).max() > 0


def test_a_network_that_contradicts_itself_gives_no_capture(world, tmp_path):
    """Points in the camera and in the world that have nothing to do with each other."""
    with pytest.raises(UserError, match="could be placed for only") as refusal:
        capture_of(world, tmp_path, Nonsense(world), **PLAIN)
    assert refusal.value.hint


class Nonsense(OracleEngine):
    """An oracle whose world points are anywhere."""

    def push(self, rgb):
        frame = super().push(rgb)
        random = np.random.default_rng(frame.index)
        return replace(frame, points_world=random.normal(size=frame.points_world.shape).astype(np.float32))


# What is known


@pytest.mark.slow
def test_a_known_lens_is_kept(world, tmp_path):
    engine = OracleEngine(world, StreamErrors(focal_common=0.05))
    lens = LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36)
    capture = capture_of(world, tmp_path, engine, lens=lens, **PLAIN)
    np.testing.assert_allclose(capture.intrinsics[:, 0], 0.9 * WIDTH)
    assert capture.shot.focal_source == "user"


@pytest.mark.slow
def test_known_cameras_are_kept_and_give_world_and_scale(world, tmp_path):
    """In feet, and somewhere else: the capture is where the user's cameras are, and does not claim to be in metres."""
    there = look(0.4, 0.1, -0.2, (10.0, 3.0, -2.0)) @ world.world_from_camera
    there[:, :3, 3] *= 3.28
    given = there.copy()
    given[[2, FRAMES - 1]] = np.nan
    shown: list[LiveFrame] = []
    run = Run(work_dir=tmp_path, show_frame=shown.append)
    clip = clip_of(world, known_cameras=KnownCameras(world_from_camera=given))
    capture = capture_of(world, tmp_path, clip=clip, run=run, **{**PLAIN, "refine_path": True})
    kept = np.isfinite(given[:, 0, 0])
    np.testing.assert_allclose(capture.world_from_camera[kept], there[kept], atol=1e-9)
    assert np.linalg.norm((capture.world_from_camera - there)[~kept, :3, 3], axis=1).max() < 0.3
    points = unproject(np.asarray(capture.depth), capture.intrinsics, capture.world_from_camera)
    true = unproject(world.depth * 3.28, world.intrinsics, there)
    assert np.median(np.linalg.norm(points - true, axis=-1)) < 0.05 * 3.28 * np.median(world.depth)
    assert not capture.metric
    assert [live.world for live in shown] == [0] * FRAMES + [1] * FRAMES


@pytest.mark.slow
def test_given_masks_are_kept(busy, tmp_path):
    mine = np.zeros((len(busy.rgb), HEIGHT * PLATE, WIDTH * PLATE), bool)
    mine[:, 20:60, 30:90] = True
    capture = capture_of(busy, tmp_path, clip=clip_of(busy, known_masks=mine), user_masks="replace", **PLAIN)
    np.testing.assert_array_equal(capture.plate_masks, mine)


# As a job


@pytest.mark.slow
def test_each_frame_is_shown_as_soon_as_it_has_passed(busy, tmp_path):
    """Its points lie in the true world and what moves is marked; what is remembered grows."""
    engine = OracleEngine(busy, EXACT)
    shown: list[tuple[LiveFrame, int]] = []
    run = Run(work_dir=tmp_path, show_frame=lambda live: shown.append((live, len(engine.asked))))
    capture_of(busy, tmp_path, engine, run=run, refine_camera=False, refine_path=False)
    first = shown[: len(busy.rgb)]
    assert [(live.frame, asked) for live, asked in first] == [(t, t + 1) for t in range(len(busy.rgb))]
    places = [len(live.pointers) for live, _ in first]
    assert places == sorted(places)
    assert places[0] >= 40
    to_world = busy.world_from_camera[0]
    for live, _ in first:
        camera = to_world @ live.world_from_camera
        assert np.abs(camera - busy.world_from_camera[live.frame]).max() < 0.02
        assert len(live.points) > 1000
    assert first[-1][0].dynamic.any()


def test_it_stops_at_a_frame(world, tmp_path):
    engine = OracleEngine(world)
    run = Run(work_dir=tmp_path, is_cancelled=lambda: len(engine.asked) >= 3)
    with pytest.raises(Cancelled):
        capture_of(world, tmp_path, engine, run=run, **PLAIN)
    assert engine.asked == [0, 1, 2]


def test_a_job_that_was_stopped_goes_on_from_the_state_after_its_last_piece(world, tmp_path, monkeypatch):
    """And its capture is the one of a job that nobody stopped, to the bit."""
    monkeypatch.setattr(passing, "PIECE", 3)
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)

    def job(engine: OracleEngine, **more) -> Capture:
        return capture_of(world, tmp_path, engine, run=Run(work_dir=tmp_path, memory=memory, **more), **PLAIN)

    stopped, rest, again = (OracleEngine(world) for _ in range(3))
    with pytest.raises(Cancelled):
        job(stopped, is_cancelled=lambda: len(stopped.asked) >= 5)
    resumed = job(rest)
    assert stopped.asked == [0, 1, 2, 3, 4]
    assert rest.asked == [3, 4, 5, 6, 7]
    arrays = ("world_from_camera", "intrinsics", "depth", "confidence")
    kept = {name: np.array(getattr(resumed, name)) for name in arrays}
    whole = capture_of(world, tmp_path, **PLAIN)
    for name in arrays:
        np.testing.assert_array_equal(kept[name], getattr(whole, name), err_msg=name)
    shown: list[LiveFrame] = []
    job(again, show_frame=shown.append)
    assert (again.asked, again.opened) == ([], 0)
    assert [live.frame for live in shown] == [*range(FRAMES)] * 2


@pytest.mark.slow
def test_the_refined_camera_has_its_errors_measured(world, tmp_path):
    capture = capture_of(world, tmp_path)
    assert capture.tracks is not None
    assert all(frame.reprojection_error_px < 1 for frame in capture.frames)
    assert pose_error(capture, world).rotation_deg_rmse < 0.3


def test_missing_weights_are_told_with_their_terms(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "weights"))
    settings = JobSettings("point3r", engine_settings=Point3RSettings())
    with pytest.raises(UserError, match=r"weights of Point3R are not on this machine.*no commercial use"):
        load_engine("point3r").check(settings)
