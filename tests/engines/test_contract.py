"""The contract of every engine: a known world goes in, an honest capture comes out.

Engines with weights get an oracle in their networks' place (tests/pair_oracle.py), whose errors are those of a network.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from backend.clip import Clip
from backend.engines import REGISTRY, Engine, load_engine
from backend.engines.mast3r import MASt3REngine
from backend.engines.monst3r import MonST3REngine
from backend.engines.point3r import Point3REngine
from backend.geometry.camera import unproject
from backend.geometry.trajectory import absolute_trajectory_error
from backend.known_cameras import KnownCameras
from backend.mast3r.models import LaterViews
from backend.pipeline import with_movers
from backend.point3r.models import LaterStream
from backend.run import Run
from backend.wire import (
    CONFIDENCE_MEASURED,
    ENGINES,
    TASKS,
    Cancelled,
    Capture,
    ClipSettings,
    JobSettings,
    LensSettings,
    LiveFrame,
    PlateMap,
    UserError,
    read_capture,
    write_capture,
)
from tests.pair_oracle import EXACT, Errors, FlowOracle, PairOracle
from tests.stream_oracle import StreamOracle
from tests.view_oracle import ViewOracle
from tests.worlds import World, as_capture, film, hand_held, look, sliding_box

WIDTH, HEIGHT, FRAMES = 320, 192, 12
FOCAL_PX = 0.9 * WIDTH
#: What networks see: half of the plate, a multiple of 16 both ways.
SEEN = 2
#: The same lens as a user would enter it.
LENS = LensSettings(focal_mm=36 * FOCAL_PX / WIDTH, sensor_width_mm=36)


@dataclass(frozen=True)
class Scene:
    """One scene on the plate and on the grid that networks see, with errors of their flow."""

    plate: World
    seen: World
    flow: Errors = field(default_factory=Errors)

    def clip(self, **more: Any) -> Clip:
        return Clip(info=as_capture(self.plate).clip, frames=self.plate.rgb, store_map=PlateMap(1.0, 1.0), **more)

    def first(self, count: int) -> Scene:
        """The same of the first frames alone."""

        def part(world: World) -> World:
            arrays = ("rgb", "depth", "dynamic", "world_from_camera", "intrinsics")
            return replace(world, **{name: getattr(world, name)[:count] for name in arrays})

        return replace(self, plate=part(self.plate), seen=part(self.seen))


def scene(motion: str = "moving") -> Scene:
    """The room, with a panel that slides. The principal point is where MonST3R's network takes it to be, which is a
    plate pixel beside the middle: an error that the classical engine must live with."""

    def filmed(width: int, height: int, shift: float) -> World:
        lens = [FOCAL_PX * width / WIDTH, FOCAL_PX * width / WIDTH, width / 2 + shift, height / 2 + shift]
        cameras = hand_held(FRAMES, motion)
        return film(cameras, np.tile(lens, (FRAMES, 1)), width, height, sliding_box(FRAMES))

    # Where the picture stands still, a flow between two equal pictures is nothing.
    flow = EXACT if motion == "locked" else Errors()
    return Scene(filmed(WIDTH, HEIGHT, 0.5 * SEEN), filmed(WIDTH // SEEN, HEIGHT // SEEN, 0.5), flow)


class MonST3RWithOracle(MonST3REngine):
    """MonST3R without its networks."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def pair_source(self, pictures, options, device, run, total):
        assert pictures.shape == self.scene.seen.rgb.shape  # else the oracle would tell of other pixels
        return PairOracle(self.scene.seen), ()

    def flow_source(self, pictures, options, run):
        return FlowOracle(self.scene.seen, self.scene.flow), ()


class MASt3RWithOracle(MASt3REngine):
    """MASt3R without its network."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def view_source(self, pictures, options, device, run):
        assert pictures.shape == self.scene.seen.rgb.shape  # else the oracle would tell of other pixels
        return LaterViews(lambda: ViewOracle(self.scene.seen)), ()


class Point3RWithOracle(Point3REngine):
    """Point3R without its network."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def stream_source(self, options, device):
        return LaterStream(lambda: StreamOracle(self.scene.seen)), ()


#: Engines whose networks see a smaller picture, with an oracle in their networks' place.
WITH_ORACLE = {"monst3r": MonST3RWithOracle, "mast3r": MASt3RWithOracle, "point3r": Point3RWithOracle}


@dataclass(frozen=True)
class Case:
    """How an engine is run here, and how far it may be off.

    `sure` is the confidence from which its depth counts as known; `parallax` says that it needs parallax for that,
    `takes_poses` that it works with cameras that the user knows, and `finds_movers` that it needs no masks.
    """

    settings: JobSettings
    sure: float
    depth_error: float
    mask_iou: float
    velocity_error: float
    parallax: bool
    takes_poses: bool
    finds_movers: bool = True

    def engine(self, scene: Scene) -> Engine:
        name = self.settings.engine
        return WITH_ORACLE[name](scene) if name in WITH_ORACLE else load_engine(name)

    def reconstruct(self, scene: Scene, run: Run, **clip: Any) -> Capture:
        masks = {} if self.finds_movers else {"known_masks": scene.plate.dynamic}
        return self.engine(scene).reconstruct(scene.clip(**{**masks, **clip}), self.settings, run)

    def grid(self, scene: Scene) -> World:
        """The truth on the engine's grid."""
        return scene.seen if self.settings.engine in WITH_ORACLE else scene.plate


def job(engine: str, long_side: int = 512, **options: Any) -> JobSettings:
    clip, engine_settings = ClipSettings(long_side=long_side), ENGINES[engine].settings(**options)
    return JobSettings(engine=engine, clip=clip, lens=LENS, engine_settings=engine_settings)


CASES = {
    "classical": Case(
        job("classical"),
        sure=CONFIDENCE_MEASURED - 1e-3,
        depth_error=0.02,
        mask_iou=0.5,
        velocity_error=0.4,  # the panel's foot is out of the picture, so its card stands too far away
        parallax=True,
        takes_poses=False,
    ),
    "monst3r": Case(
        job("monst3r", long_side=WIDTH // SEEN, neighbours=3),
        sure=1.5,
        depth_error=0.02,
        mask_iou=0.9,
        velocity_error=0.15,
        parallax=False,
        takes_poses=True,
    ),
    "mast3r": Case(
        job("mast3r", long_side=WIDTH // SEEN, scene_graph="swin", neighbours=3),
        sure=1.5,
        depth_error=0.02,
        mask_iou=0.99,
        velocity_error=0.15,
        parallax=False,
        takes_poses=True,
        finds_movers=False,
    ),
    "point3r": Case(
        job("point3r", long_side=WIDTH // SEEN),
        sure=1.5,
        depth_error=0.03,
        mask_iou=0.7,
        velocity_error=0.2,
        parallax=False,
        takes_poses=True,
    ),
}
each_engine = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


slow_engines = [pytest.param(name, marks=pytest.mark.slow) for name in WITH_ORACLE]

#: Live frames that an engine showed while it made `made`, in order.
SHOWN: dict[str, list[LiveFrame]] = {}


@pytest.fixture(scope="module")
def moving() -> Scene:
    return scene()


@pytest.fixture(scope="module", params=["classical", *slow_engines])
def made(request, moving, tmp_path_factory):
    """(case, its capture of the scene, the stages it reported); what it showed meanwhile is in SHOWN."""
    stages = []
    SHOWN[request.param] = []
    run = Run(
        work_dir=tmp_path_factory.mktemp("work"),
        report=lambda p: stages.append(p.stage),
        show_frame=SHOWN[request.param].append,
    )
    case = CASES[request.param]
    return case, case.reconstruct(moving, run), stages


def test_every_engine_of_the_panel_exists_and_is_held_to_this():
    assert set(REGISTRY) == set(ENGINES) | set(TASKS)
    assert set(CASES) == set(ENGINES)


def test_the_camera_follows_the_true_path(made, moving):
    _, capture, _ = made
    assert capture.has_camera.all()
    error = absolute_trajectory_error(capture.world_from_camera, moving.plate.world_from_camera)
    assert error.ate_relative < 0.01
    assert error.rotation_deg_rmse < 0.3


def test_known_depth_is_near_the_truth_at_the_scale_of_the_path(made, moving):
    case, capture, _ = made
    true = case.grid(moving)
    scale = absolute_trajectory_error(capture.world_from_camera, true.world_from_camera).alignment.scale
    assert capture.processed_size == true.size
    known = (np.asarray(capture.confidence, np.float32) >= case.sure) & ~true.dynamic
    off = np.abs(np.asarray(capture.depth) * scale / true.depth - 1)[known]
    assert known.mean() > 0.5
    assert off.mean() < case.depth_error


def test_what_moves_is_in_the_mask(made, moving):
    case, capture, _ = made
    assert capture.plate_masks.shape == (FRAMES, HEIGHT, WIDTH)
    found, true = np.asarray(capture.plate_masks), moving.plate.dynamic
    assert (found & true).sum() / (found | true).sum() > case.mask_iou


def test_what_moves_is_one_mover_with_its_true_velocity(made, moving, tmp_path):
    """The pipeline's last step, with what an engine found: masks, depth and cameras that are not exact."""
    case, capture, _ = made
    capture = with_movers(capture, Run(work_dir=tmp_path))
    true = case.grid(moving)
    alignment = absolute_trajectory_error(capture.world_from_camera, true.world_from_camera).alignment
    found = np.asarray(capture.velocity, np.float64)[true.dynamic] @ alignment.rotation.T * alignment.scale
    velocity = (true.mover.centres[1] - true.mover.centres[0]) * 24
    known = (found != 0).any(axis=1)
    missed = np.linalg.norm(found[known] - velocity, axis=1) / np.linalg.norm(velocity)
    assert known.mean() > 0.5
    assert np.median(missed) < case.velocity_error
    assert (capture.objects[true.dynamic & capture.dynamic] == 1).mean() > 0.95


def test_nothing_is_claimed_without_a_depth(made):
    _, capture, _ = made
    depth, confidence = np.asarray(capture.depth), np.asarray(capture.confidence)
    assert np.isfinite(depth).all()
    assert (depth >= 0).all()
    assert (confidence[depth == 0] == 0).all()
    assert (confidence[depth > 0] > 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all() or "1" in capture.confidence_meaning


def test_what_it_shows_while_it_works_is_in_the_captures_world(made):
    """Each frame is shown early and again at the end, with a camera and points near those of the capture."""
    case, capture, _ = made
    shown = SHOWN[case.settings.engine]
    versions = [sum(live.frame == t for live in shown) for t in range(FRAMES)]
    assert min(versions) >= 2
    newest = {live.frame: live for live in shown}
    for t, live in newest.items():
        assert live.clip_frame == t
        assert live.plate_size == (WIDTH, HEIGHT)
        assert np.allclose(live.world_from_camera, capture.world_from_camera[t], atol=0.02)
        assert np.allclose(live.plate_intrinsics, capture.plate_intrinsics[t], rtol=0.01)
        points = unproject(capture.depth[t], capture.intrinsics[t], capture.world_from_camera[t])
        known = points[capture.depth[t] > 0]
        assert len(live.points)
        some = live.points[:: max(1, len(live.points) // 50)]
        nearest = np.linalg.norm(known[None] - some[:, None], axis=-1).min(axis=1)
        assert np.median(nearest) < 0.02


def test_every_frame_and_the_shot_are_reported(made):
    case, capture, _ = made
    assert capture.engine.name == case.settings.engine
    assert capture.engine.licence == ENGINES[case.settings.engine].licence
    assert capture.shot.kind == "moving"
    assert capture.shot.focal_source == "user"
    assert all(f.registered and f.reprojection_error_px < 1 for f in capture.frames)
    assert capture.tracks is not None


def test_the_given_lens_is_kept(made):
    _, capture, _ = made
    plate = capture.plate_map.intrinsics_to_plate(capture.intrinsics)
    np.testing.assert_allclose(plate[:, :2], FOCAL_PX, rtol=1e-6)


def test_progress_names_the_stages_of_the_plan(made, moving):
    case, _, stages = made
    assert set(stages) == {stage for stage, _ in case.engine(moving).plan}


def test_the_capture_can_be_written_and_read(made, tmp_path):
    _, capture, _ = made
    again = read_capture(write_capture(capture, tmp_path / "capture"))
    assert again.frames == capture.frames
    assert again.engine == capture.engine
    np.testing.assert_allclose(again.world_from_camera, capture.world_from_camera)
    np.testing.assert_array_equal(again.depth, capture.depth)


@each_engine
@pytest.mark.parametrize("kind", ["locked", "rotation"])
@pytest.mark.slow
def test_a_camera_that_does_not_travel_is_told(case, kind, tmp_path):
    """No parallax: the camera is usable and a warning says so. Depth that comes from parallax is marked as a guess."""
    still = scene(kind)
    capture = case.reconstruct(still, Run(work_dir=tmp_path))
    assert capture.shot.kind == kind
    assert capture.shot.warnings
    turn = np.swapaxes(still.plate.world_from_camera[:, :3, :3], 1, 2) @ still.plate.world_from_camera[:1, :3, :3]
    solved = np.swapaxes(capture.world_from_camera[:, :3, :3], 1, 2) @ capture.world_from_camera[:1, :3, :3]
    np.testing.assert_allclose(solved, turn, atol=0.01)
    known = np.asarray(capture.confidence, np.float32) >= case.sure
    if case.parallax:
        assert not known.any()
        return
    true = case.grid(still)
    ratio = (np.asarray(capture.depth) / true.depth)[known & ~true.dynamic]
    assert np.abs(ratio / np.median(ratio) - 1).mean() < 2 * case.depth_error


@each_engine
@pytest.mark.slow
def test_known_masks_are_kept(case, moving, tmp_path):
    """What the user says moves is in the capture's mask, where the footage alone would not show it."""
    part = moving.first(6)
    masks = np.zeros((6, HEIGHT, WIDTH), bool)
    masks[:, 20:60, 20:80] = True
    capture = case.reconstruct(part, Run(work_dir=tmp_path), known_masks=masks)
    assert np.asarray(capture.plate_masks)[:, 25:55, 25:75].mean() > 0.99


@each_engine
@pytest.mark.slow
def test_known_poses_are_kept_or_refused(case, moving, tmp_path):
    """Given cameras come back as they are, and the rest is in their world and at their scale; or the engine says no."""
    part = moving.first(6)
    true = case.grid(part)
    poses = true.world_from_camera.copy()
    poses[3] = np.nan
    known = KnownCameras(world_from_camera=poses)
    if not case.takes_poses:
        with pytest.raises(UserError, match="camera"):
            case.reconstruct(part, Run(work_dir=tmp_path), known_cameras=known)
        return
    capture = case.reconstruct(part, Run(work_dir=tmp_path), known_cameras=known)
    given = np.isfinite(poses[:, 0, 0])
    np.testing.assert_allclose(capture.world_from_camera[given], poses[given], atol=1e-9)
    step = np.linalg.norm(true.world_from_camera[4, :3, 3] - true.world_from_camera[3, :3, 3])
    missed = np.linalg.norm(capture.world_from_camera[3, :3, 3] - true.world_from_camera[3, :3, 3])
    assert missed < 0.2 * step
    known_depth = (np.asarray(capture.confidence, np.float32) >= case.sure) & ~true.dynamic
    assert np.abs(np.asarray(capture.depth) / true.depth - 1)[known_depth].mean() < 2 * case.depth_error


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in CASES.values() if c.takes_poses], ids=lambda c: c.settings.engine)
@pytest.mark.slow
def test_known_poses_of_a_camera_that_stands_still_are_kept(case, tmp_path):
    """What the picture shows, that nothing moves, is no reason to drop where the user says that the camera is."""
    part = scene("locked").first(5)
    known = KnownCameras(world_from_camera=np.tile(look(0.3, 0.1, 0, (1, 2, 3)), (5, 1, 1)))
    capture = case.reconstruct(part, Run(work_dir=tmp_path), known_cameras=known)
    np.testing.assert_allclose(capture.world_from_camera, known.world_from_camera, atol=1e-9)


@pytest.mark.slow
@each_engine
def test_the_same_job_gives_the_same_capture(case, moving, tmp_path):
    part = moving.first(5)
    one, two = (case.reconstruct(part, Run(work_dir=tmp_path, seed=3, threads=1)) for _ in range(2))
    for name in ("world_from_camera", "intrinsics", "depth", "confidence", "dynamic", "plate_masks"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert one.frames == two.frames
    assert one.shot == two.shot


@each_engine
def test_an_empty_picture_is_refused_with_a_reason(case, moving, tmp_path):
    clip = replace(moving.clip(), frames=np.full_like(moving.plate.rgb, 128))
    with pytest.raises(UserError) as refusal:
        case.engine(moving).reconstruct(clip, case.settings, Run(work_dir=tmp_path))
    assert refusal.value.hint


@each_engine
def test_cancelling_stops_within_the_first_stage(case, moving, tmp_path):
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Cancelled):
        case.reconstruct(moving, Run(work_dir=tmp_path, is_cancelled=cancelled))


@pytest.mark.parametrize(
    ("engine", "options", "missing"),
    [
        ("monst3r", {}, "monst3r raft_large"),
        ("monst3r", {"flow": "none"}, "monst3r"),
        ("monst3r", {"mode": "preview"}, "monst3r"),
        ("mast3r", {}, "mast3r"),
        ("point3r", {}, "point3r"),
        ("point3r", {"flow": "raft_small"}, "point3r raft_small"),
    ],
)
def test_missing_weights_are_told_together_before_anything_begins(engine, options, missing, tmp_path, monkeypatch):
    """As installed, without an oracle: an engine whose weights are not there never goes on without them."""
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "weights"))
    settings = job(engine, long_side=WIDTH // SEEN, **options)
    with pytest.raises(UserError, match="not on this machine") as refusal:
        load_engine(engine).check(settings)
    assert f"python -m backend weights get {missing}" in refusal.value.hint
