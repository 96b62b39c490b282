"""The MASt3R engine end to end, with an oracle in the network's place: a known world comes back, in metres."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.clip import Clip
from backend.engines import load_engine
from backend.engines.mast3r import MASt3REngine
from backend.geometry.trajectory import absolute_trajectory_error
from backend.known_cameras import KnownCameras
from backend.pipeline import reconstruct
from backend.run import Run
from backend.stage_memory import StageMemory
from backend.wire import (
    Cancelled,
    Capture,
    ClipSettings,
    JobSettings,
    LensSettings,
    LiveFrame,
    MASt3RSettings,
    UserError,
    read_capture,
)
from tests.mast3r_oracle import FRAMES, HEIGHT, PLATE, USUAL, WIDTH, OracleEngine, clip_of, set_of
from tests.pair_oracle import Errors
from tests.worlds import World, film, look


def capture_of(
    world: World,
    tmp_path: Path,
    engine: MASt3REngine | None = None,
    clip: Clip | None = None,
    lens: LensSettings | None = None,
    run: Run | None = None,
    **options,
) -> Capture:
    options = {"refine_camera": False, **options}
    job = JobSettings("mast3r", ClipSettings(long_side=WIDTH), lens or LensSettings(), MASt3RSettings(**options))
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
    return set_of()


@pytest.fixture(scope="module")
def exact(world, tmp_path_factory) -> Capture:
    return capture_of(world, tmp_path_factory.mktemp("work"))


# A set that stands still


def test_an_exact_network_gives_the_world_in_metres(exact, world):
    assert exact.metric
    error = pose_error(exact, world)
    assert error.compared == FRAMES
    assert error.ate_rmse < 0.01
    assert error.rotation_deg_rmse < 0.1
    assert pose_error(exact, world, with_scale=True).alignment.scale == pytest.approx(1, abs=0.01)
    assert depth_error(exact, world) < 0.004
    np.testing.assert_allclose(exact.plate_intrinsics[:, 0], world.intrinsics[:, 0] * PLATE, rtol=0.01)


def test_the_capture_says_what_made_it_and_what_it_does_not_look_for(exact):
    assert exact.engine.name == "mast3r"
    assert exact.engine.licence == "CC-BY-NC-SA-4.0"
    assert not exact.engine.commercial_use
    assert exact.engine.weights == ({"name": "oracle"},)
    assert all(frame.registered and not frame.interpolated for frame in exact.frames)
    assert exact.shot.focal_source == "solved"
    assert exact.shot.details["frames_placed"] == FRAMES
    assert exact.shot.details["pairs"] == FRAMES * (FRAMES - 1) // 2
    assert exact.shot.details["match_error_px"] < 0.6  # pixels of matches are whole ones
    assert exact.shot.details["size_spread"] < 0.01
    assert not exact.dynamic.any()
    assert any("Nothing is masked" in text for text in exact.shot.warnings)


def test_the_world_is_one_camera_s_own_frame(exact):
    off = np.abs(exact.world_from_camera - np.eye(4)).max(axis=(1, 2))
    assert off.min() < 1e-9


@pytest.mark.slow
def test_a_network_with_errors_gives_nearly_the_same(world, tmp_path):
    capture = capture_of(world, tmp_path, OracleEngine(world, USUAL, noise=0.1))
    assert pose_error(capture, world).ate_rmse < 0.012
    assert pose_error(capture, world, with_scale=True).alignment.scale == pytest.approx(1, abs=0.01)
    assert depth_error(capture, world) < 0.015
    np.testing.assert_allclose(capture.intrinsics[:, 0], world.intrinsics[:, 0], rtol=0.01)


def test_two_images_are_enough(world, tmp_path):
    pair = set_of(2)
    capture = capture_of(pair, tmp_path, clip=clip_of(pair, "images"))
    assert capture.has_camera.all()
    step = np.linalg.norm(np.diff(capture.world_from_camera[:, :3, 3], axis=0))
    assert step == pytest.approx(np.linalg.norm(np.diff(pair.world_from_camera[:, :3, 3], axis=0)), rel=0.02)


@pytest.mark.slow
def test_images_in_any_order_have_a_lens_each_and_are_never_interpolated(tmp_path):
    """A set of photographs with two lenses, one of which shows nothing of the rest."""
    focal = np.array([0.9, 0.9, 1.2, 0.9, 1.2])
    photographs = set_of(5, focal=focal)
    engine = OracleEngine(photographs, garbage=[3])
    capture = capture_of(photographs, tmp_path, engine, clip=clip_of(photographs, "images"))
    assert [frame.registered for frame in capture.frames] == [True, True, True, False, True]
    assert not any(frame.interpolated for frame in capture.frames)
    assert np.isnan(capture.world_from_camera[3]).all()
    assert not np.asarray(capture.depth)[3].any()
    assert any("1 of 5 frames could not be placed" in text for text in capture.shot.warnings)
    placed = [0, 1, 2, 4]
    np.testing.assert_allclose(capture.intrinsics[placed, 0], focal[placed] * WIDTH, rtol=0.02)


@pytest.mark.slow
def test_photographs_from_one_spot_are_told(tmp_path):
    turned = set_of(5, "rotation")
    capture = capture_of(turned, tmp_path, clip=clip_of(turned, "images"))
    assert capture.shot.kind == "rotation"
    assert any("parallax" in text for text in capture.shot.warnings)
    assert pose_error(capture, turned).rotation_deg_rmse < 0.2
    assert depth_error(capture, turned) < 0.01


@pytest.mark.slow
def test_a_network_that_knows_nothing_gives_no_capture(world, tmp_path):
    with pytest.raises(UserError, match="could be placed") as refusal:
        capture_of(world, tmp_path, OracleEngine(world, garbage=range(FRAMES)))
    assert refusal.value.hint


# A clip


@pytest.mark.slow
def test_a_frame_of_a_clip_that_does_not_fit_is_flagged_and_put_between_its_neighbours(world, tmp_path):
    capture = capture_of(world, tmp_path, OracleEngine(world, garbage=[3]))
    assert [frame.registered for frame in capture.frames] == [t != 3 for t in range(FRAMES)]
    assert capture.frames[3].interpolated
    assert not np.asarray(capture.depth)[3].any()
    assert pose_error(capture, world).ate_rmse < 0.02


def test_frames_that_are_not_solved_are_filled_in(world, tmp_path):
    engine = OracleEngine(world)
    capture = capture_of(world, tmp_path, engine, solve_every=2)
    assert {n for pair in engine.asked for n in pair} == {0, 2, 4}
    assert [frame.registered for frame in capture.frames] == [t in (0, 2, 4) for t in range(FRAMES)]
    assert all(frame.interpolated != frame.registered for frame in capture.frames)
    assert pose_error(capture, world).ate_rmse < 0.03
    assert (np.asarray(capture.depth)[1] > 0).mean() > 0.7


def test_a_locked_off_camera_is_seen_to_stand_still(tmp_path):
    still = set_of(4, "locked", mover=True)
    capture = capture_of(still, tmp_path, clip=clip_of(still, known_masks=plate_masks(still)))
    assert capture.shot.kind == "locked"
    np.testing.assert_allclose(capture.world_from_camera, np.tile(np.eye(4), (4, 1, 1)), atol=1e-9)
    assert depth_error(capture, still) < 0.005


def test_a_clip_has_one_lens(tmp_path):
    capture = capture_of(set_of(4), tmp_path, OracleEngine(set_of(4), Errors(focal=0.02)))
    assert np.ptp(capture.intrinsics[:, 0]) == 0


@pytest.mark.slow
def test_the_camera_is_refined_on_the_plate(world, tmp_path):
    rough = OracleEngine(world, USUAL, noise=0.1)
    capture = capture_of(world, tmp_path, rough, refine_camera=True)
    assert capture.tracks is not None
    assert all(frame.reprojection_error_px < 1 for frame in capture.frames)
    assert "Refining the camera" in dict(capture.timings)


# What is known


@pytest.mark.slow
def test_a_known_lens_is_kept(world, tmp_path):
    engine = OracleEngine(world, Errors(focal=0.05))
    capture = capture_of(world, tmp_path, engine, lens=LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36))
    np.testing.assert_allclose(capture.intrinsics[:, 0], 0.9 * WIDTH)
    assert capture.shot.focal_source == "user"


@pytest.mark.slow
def test_known_intrinsics_are_kept_with_their_principal_point(world, tmp_path):
    """A plate whose lens looks past its middle: 30 pixels to the left, as a crop makes it."""
    lens = world.intrinsics - [0, 0, 30 / PLATE, 0]
    seen = film(world.world_from_camera, lens, WIDTH, HEIGHT)
    clip = clip_of(seen, known_cameras=KnownCameras(plate_intrinsics=lens * PLATE))
    capture = capture_of(seen, tmp_path, clip=clip)
    np.testing.assert_allclose(capture.plate_intrinsics, lens * PLATE, rtol=1e-6)
    assert pose_error(capture, seen).rotation_deg_rmse < 0.1
    assert pose_error(capture, seen).ate_rmse < 0.01


@pytest.mark.slow
def test_known_poses_are_kept_and_give_world_and_scale(world, tmp_path):
    """In feet, and somewhere else: the capture is where the user's cameras are, and does not claim to be in metres."""
    there = look(0.4, 0.1, -0.2, (10.0, 3.0, -2.0)) @ world.world_from_camera
    there[:, :3, 3] *= 3.28
    given = there.copy()
    given[2] = np.nan
    clip = clip_of(world, known_cameras=KnownCameras(world_from_camera=given))
    capture = capture_of(world, tmp_path, clip=clip)
    kept = [0, 1, 3, 4]
    np.testing.assert_allclose(capture.world_from_camera[kept], there[kept], atol=1e-9)
    assert np.linalg.norm(capture.world_from_camera[2, :3, 3] - there[2, :3, 3]) < 0.05
    shown = np.asarray(capture.confidence, np.float32) > 1.5
    assert np.median(np.abs(np.asarray(capture.depth)[shown] / (3.28 * world.depth[shown]) - 1)) < 0.01
    assert not capture.metric


# Masks


@pytest.fixture(scope="module")
def busy() -> World:
    """A set with somebody in it who covers much of the picture."""
    return set_of(mover=True)


def plate_masks(world: World) -> np.ndarray:
    return np.kron(world.dynamic, np.ones((1, PLATE, PLATE), bool))


@pytest.mark.slow
def test_masked_movers_bend_nothing_and_stay_movers(busy, tmp_path):
    mine = plate_masks(busy)
    capture = capture_of(busy, tmp_path, clip=clip_of(busy, known_masks=mine))
    assert pose_error(capture, busy).ate_rmse < 0.01
    assert depth_error(capture, busy) < 0.005
    np.testing.assert_array_equal(capture.plate_masks, mine)
    np.testing.assert_array_equal(capture.dynamic, busy.dynamic)
    assert not any("Nothing is masked" in text for text in capture.shot.warnings)
    there = np.asarray(capture.depth)[busy.dynamic]
    assert np.median(np.abs(there / busy.depth[busy.dynamic] - 1)) < 0.02
    assert (np.asarray(capture.confidence)[busy.dynamic] > 1).mean() > 0.95


@pytest.mark.slow
def test_a_frame_that_is_masked_all_over_is_not_solved(world, tmp_path):
    mine = np.zeros((FRAMES, HEIGHT * PLATE, WIDTH * PLATE), bool)
    mine[2] = True
    capture = capture_of(world, tmp_path, clip=clip_of(world, known_masks=mine))
    assert [frame.registered for frame in capture.frames] == [t != 2 for t in range(FRAMES)]
    assert capture.frames[2].interpolated
    mine[1:] = True
    with pytest.raises(UserError, match="masks cover"):
        capture_of(world, tmp_path, clip=clip_of(world, known_masks=mine))


# As a job


def test_it_stops_between_pairs(world, tmp_path):
    engine = OracleEngine(world)
    run = Run(work_dir=tmp_path, is_cancelled=lambda: len(engine.asked) >= 2)
    with pytest.raises(Cancelled):
        capture_of(world, tmp_path, engine, run=run)
    assert len(engine.asked) == 2


def test_missing_weights_are_told_with_their_terms(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "weights"))
    settings = JobSettings("mast3r", engine_settings=MASt3RSettings())
    with pytest.raises(UserError, match=r"weights of MASt3R are not on this machine.*no commercial use") as refusal:
        load_engine("mast3r").check(settings)
    assert "python -m backend weights get mast3r" in refusal.value.hint


@pytest.mark.slow
def test_the_same_images_again_are_not_compared_again(world, tmp_path):
    """Another lens setting asks no network; other masks do, and so does another match confidence."""
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)

    def job(**more) -> tuple[OracleEngine, Capture]:
        engine = OracleEngine(world)
        run = Run(work_dir=tmp_path, memory=memory)
        return engine, capture_of(world, tmp_path, engine, run=run, **more)

    first, again, each = job(), job(), job(lenses="each")
    assert len(first[0].asked) == FRAMES * (FRAMES - 1) // 2
    assert again[0].asked == each[0].asked == []
    for name in ("world_from_camera", "intrinsics", "depth", "confidence"):
        np.testing.assert_array_equal(getattr(again[1], name), getattr(first[1], name), err_msg=name)
    mine = np.zeros((FRAMES, HEIGHT * PLATE, WIDTH * PLATE), bool)
    mine[:, :40, :40] = True
    assert job(clip=clip_of(world, known_masks=mine))[0].asked


@pytest.mark.slow
def test_few_answers_are_held_at_a_time(world, tmp_path):
    """A long set fits: of a pair's maps nothing is left once the next pairs come."""
    alive, most = set(), 0

    class Watched(OracleEngine):
        def predict(self, pairs):
            nonlocal most
            for pair in super().predict(pairs):
                key = (pair.i, pair.j)
                alive.add(key)
                weakref.finalize(pair.ij.descriptors, alive.discard, key)
                most = max(most, len(alive))
                yield pair
                del pair

    capture_of(world, tmp_path, Watched(world))
    assert most <= 2


@pytest.mark.slow
def test_aligned_frames_are_shown_before_the_capture_is_done(world, tmp_path):
    shown: list[LiveFrame] = []
    run = Run(work_dir=tmp_path, show_frame=shown.append)
    capture = capture_of(world, tmp_path, run=run)
    assert [live.frame for live in shown] == [*range(FRAMES)] * 2
    for live in shown:
        np.testing.assert_allclose(live.world_from_camera, capture.world_from_camera[live.frame], atol=1e-6)
        assert len(live.points) > 1000


# From files


def photographs(folder: Path, world: World, turned: int) -> Path:
    """The world's plates as JPEG files; one is stored on its side and says so."""
    folder.mkdir()
    for n, rgb in enumerate(clip_of(world).frames):
        picture, exif = Image.fromarray(rgb), Image.Exif()
        if n == turned:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
            exif[0x0112] = 6
        picture.save(folder / f"IMG_{n:04d}.jpg", quality=95, exif=exif)
    return folder


@pytest.mark.slow
def test_a_folder_of_photographs_becomes_a_capture(tmp_path, monkeypatch):
    two = set_of(2)
    monkeypatch.setattr("backend.pipeline.load_engine", lambda name: OracleEngine(two))
    settings = JobSettings("mast3r", ClipSettings(long_side=WIDTH), engine_settings=MASt3RSettings())
    folder = photographs(tmp_path / "set", two, turned=1)
    out = reconstruct(folder, tmp_path / "capture", settings, Run(work_dir=tmp_path))
    capture = read_capture(out)
    assert capture.frame_count == 2
    assert capture.metric
    assert capture.clip.kind == "images"
    assert depth_error(capture, two) < 0.01
    assert np.abs(np.asarray(capture.rgb, int)[1] - two.rgb[1]).mean() < 25  # upright
    assert {"capture.json", "depth.npy", "scene.glb", "pred_traj.txt"} <= {p.name for p in out.iterdir()}


def test_one_photograph_is_refused(world, tmp_path, monkeypatch):
    monkeypatch.setattr("backend.pipeline.load_engine", lambda name: OracleEngine(world))
    folder = photographs(tmp_path / "set", set_of(2), turned=-1)
    (folder / "IMG_0001.jpg").unlink()
    settings = JobSettings("mast3r", ClipSettings(long_side=WIDTH), engine_settings=MASt3RSettings())
    with pytest.raises(UserError, match="1 frame") as refusal:
        reconstruct(folder, tmp_path / "capture", settings, Run(work_dir=tmp_path))
    assert "at least 2" in f"{refusal.value.message} {refusal.value.hint}"
    assert not (tmp_path / "capture").exists()
