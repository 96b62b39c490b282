"""The MonST3R engine end to end: with an oracle in the network's place, and with a small network on a video file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from backend import refine
from backend.clip import Clip
from backend.engines import monst3r as monst3r_engine
from backend.engines.monst3r import MonST3REngine
from backend.geometry.trajectory import absolute_trajectory_error
from backend.known_cameras import KnownCameras
from backend.monst3r.models import Later
from backend.nets.precision import EXACT as EXACT_NUMBERS
from backend.nets.predict import PairPredictor
from backend.pipeline import reconstruct
from backend.refinement import sightings
from backend.run import Run
from backend.sharing import Sharing
from backend.stage_memory import StageMemory
from backend.wire import (
    Capture,
    ClipSettings,
    JobSettings,
    LensSettings,
    MonST3RSettings,
    PlateMap,
    UserError,
    read_capture,
)
from tests import footage
from tests.fitted_network import fit, tiny_network
from tests.pair_oracle import EXACT, FlowOracle, PairOracle
from tests.worlds import World, as_capture, film, hand_held, sliding_box, square_intrinsics, zooming

WIDTH, HEIGHT, FRAMES, PLATE = 128, 80, 10, 2


class OracleEngine(MonST3REngine):
    """The engine with an oracle in the network's place, and another in the optical flow's."""

    def __init__(self, world: World, garbage: tuple[int, ...] = ()) -> None:
        self.world, self.garbage = world, garbage

    def pair_source(self, pictures, options, device, run, total):
        return Garbled(PairOracle(self.world), self.garbage), ({"name": "oracle"},)

    def flow_source(self, pictures, options, run):
        return (None, ()) if options.flow == "none" else (FlowOracle(self.world), ())


class Garbled:
    """An oracle that talks nonsense of some frames, as a network does of a black one."""

    def __init__(self, oracle: PairOracle, frames: tuple[int, ...]) -> None:
        self.oracle, self.frames = oracle, frames

    def predict(self, edges):
        found = self.oracle.predict(np.asarray(edges).tolist())
        bad = torch.isin(found.edges, torch.tensor(self.frames)).any(dim=1)
        noise = torch.randn(found.points_i.shape, generator=torch.Generator().manual_seed(0)).half()
        return replace(found, points_j=torch.where(bad[:, None, None, None], noise, found.points_j))


def world_of(frames: int = FRAMES, motion: str = "moving") -> World:
    lens = square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, frames)
    return film(hand_held(frames, motion), lens, WIDTH, HEIGHT, sliding_box(frames))


def clip_of(world: World, **more) -> Clip:
    """The world's plate, of twice the size of the grid."""
    lens = world.intrinsics * PLATE
    plate = film(world.world_from_camera, lens, WIDTH * PLATE, HEIGHT * PLATE, world.mover)
    return Clip(as_capture(world, (WIDTH * PLATE, HEIGHT * PLATE)).clip, plate.rgb, PlateMap(1.0, 1.0), **more)


def capture_of(
    world: World,
    tmp_path: Path,
    engine: MonST3REngine | None = None,
    clip=None,
    lens=None,
    memory: StageMemory | None = None,
    **options,
):
    job = JobSettings(
        "monst3r",
        ClipSettings(long_side=WIDTH),
        lens or LensSettings(),
        MonST3RSettings(**{"refine_camera": False, **options}),
    )
    run = Run(work_dir=tmp_path, memory=memory)
    return (engine or OracleEngine(world)).reconstruct(clip or clip_of(world), job, run)


def pose_error(capture: Capture, world: World):
    return absolute_trajectory_error(capture.world_from_camera, world.world_from_camera)


def depth_error(capture: Capture, world: World) -> float:
    """Mean relative error at the scale of the camera path, where the capture shows anything."""
    shown = np.asarray(capture.confidence, np.float32) >= capture.confidence_default
    scale = pose_error(capture, world).alignment.scale
    return float(np.abs(np.asarray(capture.depth)[shown] * scale / world.depth[shown] - 1).mean())


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.fixture(scope="module")
def world() -> World:
    return world_of()


@pytest.fixture(scope="module")
def solved(world, tmp_path_factory) -> Capture:
    return capture_of(world, tmp_path_factory.mktemp("work"))


# With an oracle of the fixtures' noise in the network's place


@pytest.mark.slow
def test_cameras_depth_and_masks_are_near_the_truth(solved, world):
    error = pose_error(solved, world)
    assert error.compared == FRAMES
    assert error.ate_relative < 0.006
    assert error.rotation_deg_rmse < 0.15
    assert depth_error(solved, world) < 0.015
    assert iou(solved.dynamic, world.dynamic) > 0.9


@pytest.mark.slow
def test_the_camera_is_given_on_the_plate_as_well(solved, world):
    width = WIDTH * PLATE
    assert solved.clip.plate_size == (width, HEIGHT * PLATE)
    assert solved.plate_masks.shape == (FRAMES, HEIGHT * PLATE, width)
    np.testing.assert_allclose(solved.plate_intrinsics[:, 0], world.intrinsics[:, 0] * PLATE, rtol=0.01)
    # Half a pixel of the grid beside its middle, as MonST3R's family has it.
    np.testing.assert_allclose(solved.plate_intrinsics[:, 2], (WIDTH / 2 + 0.5) * PLATE)


@pytest.mark.slow
def test_the_capture_says_what_made_it(solved):
    assert solved.engine.name == "monst3r"
    assert not solved.engine.commercial_use
    assert solved.engine.weights == ({"name": "oracle"},)
    assert all(frame.registered and not frame.interpolated for frame in solved.frames)


@pytest.mark.slow
def test_windows_give_nearly_what_one_solve_gives(world, solved, tmp_path):
    long = world_of(18)
    whole = capture_of(long, tmp_path, neighbours=1)
    parts = capture_of(long, tmp_path, neighbours=1, window_frames=10)
    assert pose_error(parts, long).ate_relative < max(0.008, 1.5 * pose_error(whole, long).ate_relative)
    assert depth_error(parts, long) < depth_error(whole, long) + 0.005


@pytest.mark.slow
def test_frames_that_are_not_solved_are_filled_in(world, tmp_path):
    capture = capture_of(world, tmp_path, solve_every=3)
    assert [f.registered for f in capture.frames] == [t % 3 == 0 for t in range(FRAMES)]
    assert all(f.interpolated != f.registered for f in capture.frames)
    assert pose_error(capture, world).ate_relative < 0.02
    assert (np.asarray(capture.depth)[1] > 0).mean() > 0.7
    assert iou(capture.dynamic, world.dynamic) > 0.7


@pytest.mark.slow
def test_a_frame_that_does_not_fit_is_flagged_and_interpolated(world, solved, tmp_path):
    capture = capture_of(world, tmp_path, OracleEngine(world, garbage=(4,)))
    assert not capture.frames[4].registered
    assert capture.frames[4].interpolated
    assert sum(f.registered for f in capture.frames) == FRAMES - 1
    assert any("1 of 10 frames could not be placed" in text for text in capture.shot.warnings)
    assert pose_error(capture, world).ate_relative < 0.02


@pytest.mark.slow
def test_a_known_lens_is_kept(world, tmp_path):
    capture = capture_of(world, tmp_path, lens=LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36))
    np.testing.assert_allclose(capture.intrinsics[:, 0], 0.9 * WIDTH)
    assert capture.shot.focal_source == "user"


@pytest.mark.slow
def test_known_intrinsics_are_kept_with_their_principal_point(world, tmp_path):
    """A plate whose lens looks past its middle: 30 pixels to the left, as a crop makes it."""
    lens = world.intrinsics - [0, 0, 30 / PLATE, 0]
    seen = film(world.world_from_camera, lens, WIDTH, HEIGHT, world.mover)
    clip = clip_of(seen, known_cameras=KnownCameras(plate_intrinsics=lens * PLATE))
    capture = capture_of(seen, tmp_path, clip=clip)
    np.testing.assert_allclose(capture.plate_intrinsics, lens * PLATE, rtol=1e-6)
    assert pose_error(capture, seen).rotation_deg_rmse < 0.15


@pytest.mark.slow
def test_known_poses_are_kept_and_give_the_scale(world, tmp_path):
    clip = clip_of(world, known_cameras=KnownCameras(world_from_camera=world.world_from_camera))
    capture = capture_of(world, tmp_path, clip=clip)
    np.testing.assert_allclose(capture.world_from_camera, world.world_from_camera, atol=1e-9)
    shown = np.asarray(capture.confidence, np.float32) > 1.5
    assert np.median(np.abs(np.asarray(capture.depth)[shown] / world.depth[shown] - 1)) < 0.02


@pytest.mark.slow
def test_a_zoom_is_followed(tmp_path):
    world = zooming(10, WIDTH, HEIGHT)
    capture = capture_of(world, tmp_path, zoom=True)
    np.testing.assert_allclose(capture.intrinsics[:, 0], world.intrinsics[:, 0], rtol=0.05)


@pytest.mark.slow
def test_a_locked_off_camera_is_seen_to_stand_still(tmp_path):
    world = world_of(8, "locked")
    capture = capture_of(world, tmp_path)
    assert capture.shot.kind == "locked"
    np.testing.assert_allclose(capture.world_from_camera, np.tile(np.eye(4), (8, 1, 1)), atol=1e-9)
    assert iou(capture.dynamic, world.dynamic) > 0.85


@pytest.mark.slow
def test_masks_of_the_user_are_added_or_stand_alone(world, tmp_path):
    mine = np.zeros((FRAMES, HEIGHT * PLATE, WIDTH * PLATE), bool)
    mine[:, :40, :40] = True
    added = capture_of(world, tmp_path, clip=clip_of(world, known_masks=mine))
    assert (added.plate_masks & mine).sum() == mine.sum()
    assert iou(added.dynamic[:, 24:], world.dynamic[:, 24:]) > 0.9
    alone = capture_of(world, tmp_path, clip=clip_of(world, known_masks=mine), user_masks="replace")
    np.testing.assert_array_equal(alone.plate_masks, mine)


@pytest.mark.slow
def test_without_flow_there_is_a_rougher_camera_and_no_mover_and_it_says_so(world, tmp_path):
    capture = capture_of(world, tmp_path, flow="none")
    assert pose_error(capture, world).ate_relative < 0.1
    assert not capture.dynamic.any()
    assert any("Without optical flow" in text for text in capture.shot.warnings)


def test_the_preview_is_rough_and_says_so(world, tmp_path):
    capture = capture_of(world, tmp_path, mode="preview")
    assert pose_error(capture, world).ate_relative < 0.2
    assert any("preview" in text for text in capture.shot.warnings)


@pytest.mark.slow
def test_too_few_frames_that_fit_are_an_error(world, tmp_path):
    with pytest.raises(UserError, match="could be placed for only"):
        capture_of(world, tmp_path, OracleEngine(world, garbage=tuple(range(1, FRAMES))))


def test_black_and_frozen_clips_are_refused(world, tmp_path):
    clip = clip_of(world)
    with pytest.raises(UserError, match="black"):
        capture_of(world, tmp_path, clip=replace(clip, frames=np.zeros_like(clip.frames)))
    with pytest.raises(UserError, match="same picture"):
        capture_of(world, tmp_path, clip=replace(clip, frames=np.repeat(clip.frames[:1], FRAMES, axis=0)))


# With a small network, from a video file


class SmallEngine(MonST3REngine):
    """The engine with a small network that is fitted to the clip, and the classic flow."""

    world: World

    def check(self, settings):
        """Its weights come from no file."""

    def pair_source(self, pictures, options, device, run, total):
        pairs = [(i, j) for i in range(len(pictures)) for j in range(len(pictures)) if 0 < abs(i - j) < 4]
        network = fit(tiny_network((WIDTH, HEIGHT)), pictures, PairOracle(self.world, EXACT).predict(pairs))
        return PairPredictor(network, pictures, device, EXACT_NUMBERS, run, total), ({"name": "small"},)


@pytest.mark.slow
def test_from_a_video_file_to_a_whole_capture(tmp_path, monkeypatch):
    world = world_of(6)
    plate = clip_of(world).frames
    video = footage.write_video(tmp_path / "clip.mp4", plate)
    monkeypatch.setattr(SmallEngine, "world", world, raising=False)
    monkeypatch.setattr("backend.pipeline.load_engine", lambda name: SmallEngine())
    options = MonST3RSettings(flow="classical", refine_camera=False, neighbours=2)
    settings = JobSettings("monst3r", ClipSettings(long_side=WIDTH), engine_settings=options)
    out = reconstruct(video, tmp_path / "capture", settings, Run(work_dir=tmp_path))
    capture = read_capture(out)
    assert capture.frame_count == 6
    assert capture.has_camera.all()
    assert pose_error(capture, world).ate_relative < 0.1
    assert {"capture.json", "depth.npy", "conf.npy", "dynamic.npy", "pred_traj.txt"} <= {p.name for p in out.iterdir()}
    assert (capture.objects is None) == (capture.velocity is None) == (not capture.dynamic.any())
    assert [name for name, _ in capture.timings][:4] == [
        "Reading the clip",
        "Preparing pictures",
        "Loading the network",
        "Comparing frames",
    ]


# With what earlier jobs kept


class CountingEngine(OracleEngine):
    """Counts what the oracles are asked."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.pairs, self.flows = 0, 0

    def pair_source(self, *args):
        source, stamps = super().pair_source(*args)
        return Later(lambda: _Counted(source, self, "pairs")), stamps

    def flow_source(self, *args):
        source, stamps = super().flow_source(*args)
        return Later(lambda: _Counted(source, self, "flows")), stamps


@dataclass
class _Counted:
    source: Any
    engine: CountingEngine
    name: str

    def predict(self, edges):
        setattr(self.engine, self.name, getattr(self.engine, self.name) + len(edges))
        return self.source.predict(edges)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"solve_every": 2}], ids=str)
def test_other_masks_ask_no_network_again(tmp_path, options):
    """And the capture is bit for bit that of a job that asks. A preview, which compares other frames, does ask."""
    world = world_of(5)
    mine = np.zeros((5, HEIGHT * PLATE, WIDTH * PLATE), bool)
    mine[:, :40, :40] = True
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)
    cold, warm, other = (CountingEngine(world) for _ in range(3))
    capture_of(world, tmp_path, cold, memory=memory, **options)
    assert cold.pairs > 0
    assert cold.flows > 0
    clip = clip_of(world, known_masks=mine)
    remembered = capture_of(world, tmp_path, warm, clip=clip, memory=memory, **options)
    assert (warm.pairs, warm.flows) == (0, 0)
    computed = capture_of(world, tmp_path, clip=clip, **options)
    for name in ("world_from_camera", "intrinsics", "depth", "confidence", "dynamic", "plate_masks"):
        np.testing.assert_array_equal(getattr(remembered, name), getattr(computed, name), err_msg=name)
    assert remembered.engine == computed.engine
    capture_of(world, tmp_path, other, memory=memory, mode="preview")
    assert other.pairs > 0


@pytest.mark.slow
def test_what_helpers_asked_is_not_asked_again(tmp_path):
    """Two helpers on other cards make all windows' answers; the job's capture is bit for bit that of one alone."""
    world = world_of(14)
    options = {"neighbours": 1, "window_frames": 10, "refine_camera": False}
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)
    job = JobSettings("monst3r", ClipSettings(long_side=WIDTH), LensSettings(), MonST3RSettings(**options))
    asked = []
    for helper in (1, 0):
        engine = CountingEngine(world)
        sharing = Sharing(helper=helper, helpers=2)
        engine.help(clip_of(world), job, Run(work_dir=tmp_path, memory=memory, sharing=sharing))
        asked.append(engine.pairs)
    assert asked[0] > 0
    assert asked[1] == 0
    engine = CountingEngine(world)
    shared = capture_of(world, tmp_path, engine, memory=memory, **options)
    assert engine.pairs == 0
    alone = capture_of(world, tmp_path, **options)
    for name in ("world_from_camera", "intrinsics", "depth", "confidence", "dynamic", "plate_masks"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name), err_msg=name)


@pytest.mark.slow
def test_the_same_clip_again_is_neither_aligned_nor_refined_again(tmp_path, monkeypatch):
    """A job that was killed after its alignment goes on behind it, to the same bits."""
    world = world_of(5)
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)
    first = capture_of(world, tmp_path, memory=memory, refine_camera=True)
    for place, name in ((monst3r_engine, "align"), (refine, "best_camera"), (sightings, "track_points")):
        monkeypatch.setattr(place, name, None)
    again = capture_of(world, tmp_path, memory=memory, refine_camera=True)
    for name in ("world_from_camera", "intrinsics", "depth", "confidence", "dynamic", "plate_masks"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name), err_msg=name)
    assert (again.shot, again.frames) == (first.shot, first.frames)


def test_answers_that_would_fill_the_memory_are_not_kept(world, tmp_path):
    memory = StageMemory(tmp_path / "cache", limit_bytes=100_000, leave_free_bytes=0)
    engine = CountingEngine(world)
    capture_of(world, tmp_path, engine, mode="preview", memory=memory)
    assert not memory.folder.exists()
    assert engine.pairs == FRAMES
