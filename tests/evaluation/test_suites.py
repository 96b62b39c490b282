"""Suites on benchmarks' folders of known worlds: captures with known errors get the figures that follow from them."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend.__main__ import main
from backend.cli.reconstruct import INTERRUPTED
from backend.engines.mast3r import MASt3REngine
from backend.engines.monst3r import MonST3REngine
from backend.engines.point3r import Point3REngine
from backend.evaluation import measures
from backend.evaluation.benchmarks import BENCHMARKS, chosen_takes
from backend.evaluation.measures import (
    Measured,
    frames_of,
    measure_pose,
    measure_reconstruction,
    measure_single_depth,
    measure_video_depth,
    middle_pixels,
    stand_in_name,
)
from backend.evaluation.suites import TABLES, Result, Row, measure_all, papers_table
from backend.geometry.rigid import Similarity
from backend.run import Run
from backend.server.process import Outcome
from backend.singles import single_depths
from backend.streaming.frames import StreamedFrame
from backend.wire import ENGINES, JobSettings, PlateMap, UserError, read_capture, write_capture
from tests.evaluation.benchmark_folders import WRITE
from tests.evaluation.benchmark_pipeline import CAPTURE, FRAMES, HEIGHT, WIDTH, WORLD, of_frames
from tests.pair_oracle import EXACT, PairOracle
from tests.serving import worker_of
from tests.view_oracle import ViewOracle
from tests.worlds import as_capture, film

#: Of clouds in millimetres, compared as float32.
NEAR = 2e-3


def take_of(root, benchmark, suite, every=1):
    WRITE[benchmark](root, WORLD)
    (read,) = chosen_takes(root, benchmark, suite, tuple(reads_of(root, benchmark)), every).values()
    return read()


def reads_of(root, benchmark):
    from backend.evaluation import layouts

    return getattr(layouts, BENCHMARKS[benchmark].layout)(root)


def named(take, capture):
    """The capture with the names of the take's pictures."""
    names = tuple(frame.image.name for frame in take.frames)
    return replace(capture, clip=replace(capture.clip, image_names=names))


# Video depth


@pytest.mark.parametrize("benchmark", ["sintel", "kitti"])
def test_depth_that_is_ten_percent_off_has_abs_rel_of_a_tenth_unless_aligned(tmp_path, benchmark):
    take = take_of(tmp_path, benchmark, "video-depth")
    frames = list(range(FRAMES))[-len(take.frames) :]
    capture = named(take, of_frames(frames, depth=1.1 * WORLD.depth[frames]))
    got = measure_video_depth(take, capture, BENCHMARKS[benchmark].max_depth)
    assert got.frames == len(frames)
    figures = got.figures
    assert figures["seen"] == 1
    assert figures["metric_abs_rel"] == pytest.approx(0.1, abs=NEAR)
    assert figures["metric_delta_125"] == 1
    for alignment in ("scale", "scale_shift", "median"):
        assert figures[f"{alignment}_abs_rel"] == pytest.approx(0, abs=NEAR)


def test_a_shift_is_undone_by_scale_and_shift_alone_and_what_is_not_metric_is_not_measured_so(tmp_path):
    take = take_of(tmp_path, "sintel", "video-depth")
    figures = measure_video_depth(take, replace(CAPTURE, depth=2 * WORLD.depth + 10, metric=False), 70).figures
    assert figures["scale_shift_abs_rel"] == pytest.approx(0, abs=1e-5)
    assert figures["scale_abs_rel"] > 0.05
    assert np.isnan(figures["metric_abs_rel"])


def test_what_is_beyond_the_limit_counts_in_nothing(tmp_path):
    take = take_of(tmp_path, "sintel", "video-depth")
    depth = np.where(WORLD.depth < 4, WORLD.depth, 50)
    figures = measure_video_depth(take, replace(CAPTURE, depth=depth), 4).figures
    assert figures["metric_abs_rel"] == pytest.approx(0, abs=0.02)  # next to the limit depth is interpolated
    assert measure_video_depth(take, replace(CAPTURE, depth=depth), 70).figures["metric_abs_rel"] > 1


def test_what_the_capture_does_not_know_is_said(tmp_path):
    take = take_of(tmp_path, "sintel", "video-depth")
    depth = WORLD.depth.copy()
    depth[:, :, : WIDTH // 4] = 0
    assert measure_video_depth(take, replace(CAPTURE, depth=depth), 70).figures["seen"] == pytest.approx(0.75)
    with pytest.raises(UserError, match="no depth where the truth has one"):
        measure_video_depth(take, replace(CAPTURE, depth=np.zeros_like(depth)), 70)


def test_frames_are_found_by_their_files_names_or_else_by_their_number_in_the_whole_sequence(tmp_path):
    take = take_of(tmp_path, "sintel", "video-depth", every=2)

    def found(numbers, *names):
        clip = replace(CAPTURE.clip, frame_indices=numbers, image_names=names, timestamps=(0.0,) * len(numbers))
        frames = frames_of(take, of_frames([0, 1, 2], clip=clip))
        return [None if frame is None else take.frames.index(frame) for frame in frames]

    assert found((0, 1, 2), "frame_0003.png", "frame_0004.png", "frame_0005.png") == [1, None, 2]
    assert found((0, 1, 2), *(stand_in_name(k, Path("a.png")) for k in (0, 2, 4))) == [0, 1, 2]
    assert found((0, 1, 2), *(stand_in_name(k, Path("a.png")) for k in (0, 1, 2))) == [0, None, 1]
    assert found((0, 2, 4)) == [0, 1, 2]
    with pytest.raises(UserError, match="none of the frames that are taken of alley_2"):
        found((1, 3, 7))
    with pytest.raises(UserError, match="of pictures of"):
        frames_of(take, as_capture(WORLD, plate_size=(128, 96)))


def test_frames_that_the_suite_does_not_take_count_in_nothing(tmp_path):
    take = take_of(tmp_path, "sintel", "pose", every=2)
    path, depth = WORLD.world_from_camera.copy(), WORLD.depth.copy()
    path[1::2, 0, 3] += 1
    depth[1::2] *= 2
    capture = replace(CAPTURE, world_from_camera=path, depth=depth)
    assert measure_pose(take, capture).figures["ate"] == pytest.approx(0, abs=1e-5)
    assert measure_pose(take, capture).frames == 3
    assert measure_video_depth(take, capture, 70).figures["metric_abs_rel"] == pytest.approx(0, abs=1e-5)


# Single images


def test_each_picture_has_a_scale_of_its_own(tmp_path):
    take = take_of(tmp_path, "nyu", "mono-depth")
    scales = np.linspace(0.3, 3, FRAMES)
    singles = [(scale * depth, PlateMap(1.0, 1.0)) for scale, depth in zip(scales, WORLD.depth)]
    got = measure_single_depth(take, singles, np.inf)
    assert got.frames == FRAMES
    assert got.figures["abs_rel"] == pytest.approx(0, abs=NEAR)
    half = [(np.where(np.arange(HEIGHT)[:, None] < 24, 1.0, 1.6) * depth, grid) for depth, grid in singles]
    assert measure_single_depth(take, half, np.inf).figures["delta_125"] < 0.8


WORLD_FIELDS = ("rgb", "depth", "dynamic", "world_from_camera", "intrinsics")


class FirstFrames:
    """A stream that knows each next picture of a world, so long as it is the first after a reset."""

    def __init__(self, world):
        self.world, self.seen, self.fresh = world, 0, False

    def reset(self):
        self.fresh = True

    def push(self, rgb):
        assert self.fresh
        assert rgb.shape == self.world.rgb[0].shape
        k, self.seen, self.fresh = self.seen, self.seen + 1, False
        depth = self.world.depth[k]
        ones = np.ones_like(depth)
        points = np.stack([0 * depth, 0 * depth, 2.5 * depth], axis=-1)
        return StreamedFrame(0, points, ones, points, ones, np.eye(4), 1)


def doubled(world):
    """Each frame of a world twice, as pairs of pictures with themselves are asked for."""
    return replace(world, **{name: np.repeat(getattr(world, name), 2, 0) for name in WORLD_FIELDS})


ORACLES = {
    "monst3r": (MonST3REngine, "pair_source", lambda world: PairOracle(world, EXACT)),
    "mast3r": (MASt3REngine, "view_source", lambda world: ViewOracle(doubled(world), EXACT)),
    "point3r": (Point3REngine, "stream_source", FirstFrames),
}


@pytest.mark.parametrize("engine", ORACLES)
def test_networks_are_asked_about_each_picture_alone_squeezed_and_not_cropped(tmp_path, monkeypatch, engine):
    """The picture of 64 x 48 becomes 128 x 96; the oracle knows that world."""
    take = take_of(tmp_path, "nyu", "mono-depth").only(0, 3, None)
    large = film(WORLD.world_from_camera[::3], 2 * WORLD.intrinsics[::3], 128, 96)
    cls, source, oracle = ORACLES[engine]
    monkeypatch.setattr(cls, source, lambda self, *asked: (oracle(large), ()))
    monkeypatch.setattr(cls, "check", lambda self, settings: None)
    settings = JobSettings(engine=engine, engine_settings=ENGINES[engine].settings())
    settings = replace(settings, clip=replace(settings.clip, long_side=128))
    singles = list(single_depths([frame.image for frame in take.frames], settings, Run()))
    assert [depth.shape for depth, _ in singles] == [(96, 128)] * 2
    assert singles[0][1] == PlateMap(2.0, 2.0)
    assert measure_single_depth(take, singles, np.inf).figures["abs_rel"] < 0.02  # of edges


def test_an_engine_without_a_network_tells_no_depth_from_one_picture(tmp_path):
    with pytest.raises(UserError, match="Classic engine tells no depth from one picture"):
        single_depths([tmp_path / "a.png"], JobSettings(), Run())


# Pose


@pytest.mark.parametrize("benchmark", ["sintel", "tum", "scannet"])
def test_the_true_path_in_another_world_has_no_error(tmp_path, benchmark):
    take = take_of(tmp_path, benchmark, "pose")
    other = Similarity(0.2, translation=np.ones(3))
    frames = [0, *range(2, FRAMES)] if benchmark == "tum" else list(range(FRAMES))
    path = other.apply_to_poses(WORLD.world_from_camera[frames])
    got = measure_pose(take, named(take, of_frames(frames, world_from_camera=path)))
    assert got.frames == FRAMES - (benchmark != "sintel")  # one has no pose, or is lost
    assert got.figures == pytest.approx({"ate": 0, "rpe": 0, "rpe_deg": 0}, abs=2e-5)


def test_a_path_that_shakes_by_a_centimetre_is_a_centimetre_off(tmp_path):
    take = take_of(tmp_path, "sintel", "pose")
    path = WORLD.world_from_camera.copy()
    path[:, 1, 3] += 0.01 * (-1.0) ** np.arange(FRAMES)
    figures = measure_pose(take, replace(CAPTURE, world_from_camera=path)).figures
    assert figures["ate"] == pytest.approx(0.01, rel=0.1)
    assert figures["rpe"] == pytest.approx(0.02, rel=0.1)
    still = np.tile(path[:1], (FRAMES, 1, 1))
    with pytest.raises(UserError, match="no extent to align by"):
        measure_pose(take, replace(CAPTURE, world_from_camera=still))


# Reconstruction


@pytest.mark.parametrize("benchmark", ["7scenes", "nrgbd"])
def test_the_true_points_in_another_world_and_size_are_accurate_and_complete(tmp_path, benchmark):
    take = take_of(tmp_path, benchmark, "reconstruction", every=2)
    other = Similarity(3.0, translation=np.array([1.0, 2, 3]))
    path = other.apply_to_poses(WORLD.world_from_camera[::2])
    capture = of_frames([0, 2, 4], world_from_camera=path, depth=3 * WORLD.depth[::2], metric=False)
    got = measure_reconstruction(take, capture)
    assert got.frames == 3
    figures = got.figures
    for name in ("accuracy", "accuracy_median", "completeness", "completeness_median"):
        assert figures[name] < NEAR
    assert figures["normals"] > 0.99
    x, _ = middle_pixels(HEIGHT, WIDTH)
    assert figures["points"] == 3 * x.size  # all pixels of the middle square


def test_a_camera_that_is_wrong_costs_what_it_moves_and_one_that_is_missing_is_told(tmp_path):
    take = take_of(tmp_path, "7scenes", "reconstruction", every=2)
    path = WORLD.world_from_camera[::2].copy()
    path[2, 2, 3] += 0.5
    wrong = measure_reconstruction(take, of_frames([0, 2, 4], world_from_camera=path))
    assert wrong.figures["accuracy"] > 0.03
    path[2] = np.nan
    without = measure_reconstruction(take, of_frames([0, 2, 4], world_from_camera=path))
    assert without.frames == 2
    assert without.figures["accuracy"] < NEAR
    path[:] = np.nan
    with pytest.raises(UserError, match="No frame has a camera and depth"):
        measure_reconstruction(take, of_frames([0, 2, 4], world_from_camera=path))


def test_clouds_that_are_too_large_are_thinned_and_say_so(tmp_path, monkeypatch):
    take = take_of(tmp_path, "7scenes", "reconstruction", every=2)
    whole = measure_reconstruction(take, of_frames([0, 2, 4])).figures
    monkeypatch.setattr(measures, "MOST_POINTS", 3 * measures.SQUARE**2 // 4)
    thin = measure_reconstruction(take, of_frames([0, 2, 4])).figures
    assert thin["points"] == pytest.approx(whole["points"] / 4, rel=0.1)
    assert thin["accuracy"] < NEAR


def test_the_middle_is_that_of_224_pixels_at_512(tmp_path):
    x, y = middle_pixels(480, 640)
    assert x.shape == (224, 224)
    assert (x.min(), x.max(), y.min(), y.max()) == (180, 459, 100, 379)  # 280 of 640 pixels
    x, y = middle_pixels(48, 64)
    assert (x.min(), x.max(), y.min(), y.max()) == (18, 45, 10, 37)


# Tables


def rows(tmp_path):
    """Three sequences, of which one has depth that is 10 % off, one of twice the frames 25 %, one no capture."""
    for name in ("alley_1", "alley_2", "cave_2"):
        WRITE["sintel"](tmp_path, WORLD, name)
    captures = {
        "alley_1": of_frames([0, 1], depth=1.1 * WORLD.depth[:2]),
        "alley_2": of_frames([0, 1, 2, 3], depth=1.25 * WORLD.depth[:4]),
    }

    def measure(take):
        if take.name not in captures:
            raise UserError("There is no capture", "make one")
        return measure_video_depth(take, captures[take.name], 70)

    told = []
    takes = chosen_takes(tmp_path, "sintel", "video-depth")
    return measure_all(takes, measure, told.append), told


def test_the_mean_is_by_pixels_and_names_what_failed(tmp_path):
    measured, told = rows(tmp_path)
    assert told == ["alley_1, 1 of 3", "alley_2, 2 of 3", "cave_2, 3 of 3"]
    result = Result(TABLES["video-depth"], "Sintel", measured)
    assert result.failed == 1
    assert result.mean("metric_abs_rel") == pytest.approx((2 * 0.1 + 4 * 0.25) / 6, abs=1e-4)
    lines = result.table().splitlines()
    assert lines[0] == "Video depth, Sintel"
    assert lines[1].split("  ")[-1].strip() == "metric"
    assert lines[2].split() == ["frames", "compared", *["Abs", "Rel", "<", "1.25"] * 3]
    figures = ["0.0000", "100.0%", "0.0000", "100.0%", "0.1000", "100.0%"]
    assert lines[3].split() == ["alley_1", "2", "of", "6", "100.0%", *figures]
    assert lines[5].split() == ["cave_2", "failed"]
    assert lines[6].startswith("mean by pixels, 2 of 3")
    assert lines[6].split()[-2:] == ["0.2000", f"{result.mean('metric_delta_125'):.1%}"]
    assert lines[7:] == [
        "1 of 3 sequences failed, the mean is of the others alone:",
        "  cave_2: There is no capture; make one",
    ]


def test_the_json_has_every_figure_and_no_nan(tmp_path):
    measured, _ = rows(tmp_path)
    written = json.loads(json.dumps(Result(TABLES["video-depth"], "Sintel", measured).to_json(), allow_nan=False))
    assert [row["failed"] for row in written["sequences"]] == [None, None, "There is no capture; make one"]
    assert written["sequences"][0]["figures"]["median_abs_rel"] == pytest.approx(0, abs=1e-5)
    assert (written["failed"], written["mean_of"], written["mean_weighted_by"]) == (1, 2, "pixels")
    assert written["mean"]["metric_abs_rel"] == pytest.approx(0.2, abs=1e-4)


def test_nothing_measured_is_no_figure():
    measured = measure_all({"a": partial(take_nothing)}, lambda take: None, lambda text: None)
    result = Result(TABLES["pose"], "Sintel", measured)
    assert np.isnan(result.mean("ate"))
    assert "mean, 0 of 1" in result.table()
    assert result.to_json()["mean"] == {}


def take_nothing():
    raise UserError("There is no sequence a")


def test_benchmarks_stand_side_by_side_as_in_papers_with_a_line_for_each_alignment(tmp_path):
    measured, _ = rows(tmp_path)
    sintel = Result(TABLES["video-depth"], "Sintel", measured).to_json()
    bonn = Result(TABLES["video-depth"], "Bonn", measured[:1]).to_json()
    lines = papers_table(TABLES["video-depth"], [sintel, bonn]).splitlines()
    assert lines[0] == "Video depth"
    assert lines[1].split() == ["Sintel", "(2", "of", "3)", "Bonn"]
    assert lines[2].split() == ["mean", *["Abs", "Rel", "<", "1.25"] * 2]
    assert [line[:13].strip() for line in lines[3:]] == ["scale", "scale & shift", "metric"]
    delta = f"{sintel['mean']['metric_delta_125']:.1%}"
    assert lines[5].split() == ["metric", "0.2000", delta, "0.1000", "100.0%"]


def test_paths_and_clouds_have_one_line_for_all_benchmarks():
    row = Row("chess/seq-03", 5, Measured({"ate": 0.1, "rpe": 0.02, "rpe_deg": 0.5}, 5))
    tables = [Result(TABLES["pose"], name, (row,)).to_json() for name in ("ScanNet", "Sintel")]
    lines = papers_table(TABLES["pose"], tables).splitlines()
    assert lines[1].split() == ["ScanNet", "Sintel"]
    assert lines[2].split("  ")[-1].strip() == "RPE rot, deg"
    assert lines[3].split() == ["0.100", "0.020", "0.500"] * 2


# The command


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))


def test_captures_that_are_there_are_measured_and_missing_ones_fail(home, tmp_path, capsys):
    root, out = tmp_path / "mpi", tmp_path / "captures"
    for name in ("alley_2", "cave_2"):
        WRITE["sintel"](root, WORLD, name)
    write_capture(replace(CAPTURE, depth=1.1 * WORLD.depth), out / "alley_2")
    arguments = [str(root), "--benchmark", "sintel", "--out", str(out), "--sequences", "alley_2,cave_2"]
    assert main(["evaluate", "--suite", "video-depth", *arguments]) == 1
    told = capsys.readouterr().out
    assert "cave_2: There is no capture in" in told
    assert "0.1000" in told
    written = json.loads((out / "video-depth-sintel.json").read_text())
    assert written["sequences"][0]["figures"]["metric_abs_rel"] == pytest.approx(0.1, abs=1e-4)
    WRITE["kitti"](tmp_path / "kitti", WORLD, "2011_09_26_drive_0002_sync")
    depth = ["--benchmark", "kitti", "--out", str(out), "--suite", "video-depth"]
    clip = replace(CAPTURE.clip, image_names=tuple(f"{k:010d}.png" for k in range(FRAMES)))
    write_capture(replace(CAPTURE, clip=clip), out / "2011_09_26_drive_0002_sync")
    assert main(["evaluate", str(tmp_path / "kitti"), *depth]) == 0
    assert "Sintel (1 of 2)" in capsys.readouterr().out
    assert main(["evaluate", "--suite", "pose", *arguments[:-1], "alley_2"]) == 0
    assert json.loads((out / "pose-sintel.json").read_text())["mean"]["ate"] == pytest.approx(0, abs=1e-5)
    files = ["pose-sintel.json", "video-depth-kitti.json", "video-depth-sintel.json"]
    assert sorted(p.name for p in out.iterdir()) == ["2011_09_26_drive_0002_sync", "alley_2", *files]


def test_missing_captures_are_made_of_the_frames_that_the_suite_takes(home, tmp_path, capsys):
    root, out, worker = tmp_path / "scannet", tmp_path / "captures", worker_of("tests.evaluation.benchmark_pipeline")
    WRITE["scannet"](root, WORLD)
    arguments = ["evaluate", str(root), "--suite", "pose", "--benchmark", "scannet", "--out", str(out), "--every", "2"]
    arguments += ["--engine", "classical", "--max-features", "1234"]
    assert main(arguments, worker) == 0
    capture = read_capture(out / "scene0707_00")
    assert capture.settings["engine_settings"]["max_features"] == 1234
    assert capture.frame_count == 3
    assert "mean, 1 of 1" in capsys.readouterr().out
    (sequence,) = json.loads((out / "pose-scannet.json").read_text())["sequences"]
    assert sequence["made_by"]["settings"]["engine"] == "classical"
    assert sequence["made_by"]["engine"]["name"] == "synthetic"

    cv2.imwrite(str(root / "scene0707_00" / "color" / "0.jpg"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert main(arguments, ("false",)) == 0  # what is there is not made again
    assert main([*arguments, "--replace"], worker) == 1
    assert "scene0707_00: The first picture is black; choose another" in capsys.readouterr().out
    assert read_capture(out / "scene0707_00").frame_count == 3  # the earlier one


def test_a_run_that_is_stopped_keeps_the_captures_that_are_whole(home, tmp_path, monkeypatch, capsys):
    root, out = tmp_path / "mpi", tmp_path / "captures"
    for name in ("alley_2", "cave_2"):
        WRITE["sintel"](root, WORLD, name)
    write_capture(CAPTURE, out / "alley_2")
    monkeypatch.setattr("backend.cli.evaluate.in_worker", lambda *given: (Outcome("cancelled"), Path()))
    arguments = [str(root), "--benchmark", "sintel", "--out", str(out), "--engine", "classical"]
    assert main(["evaluate", "--suite", "video-depth", *arguments]) == INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["alley_2"]


def test_weights_that_are_missing_are_one_line_and_not_one_for_each_sequence(home, tmp_path, capsys):
    WRITE["sintel"](tmp_path / "mpi", WORLD)
    command = ["evaluate", str(tmp_path / "mpi"), "--benchmark", "sintel", "--out", str(tmp_path / "out")]
    for suite in ("pose", "mono-depth"):
        assert main([*command, "--suite", suite, "--engine", "point3r"]) == 1
        told = capsys.readouterr()
        assert "weights get point3r" in told.err
        assert len(told.err.strip().splitlines()) == 1
        assert not told.out
    assert main([*command, "--suite", "mono-depth"]) == 1
    assert "Depth of single pictures needs a network; choose an --engine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--benchmark", "sintel"], "There is no folder"),
        (["--benchmark", "nyu"], "NYU-v2 is no benchmark of pose"),
        (["--benchmark", "tum", "--every", "-1"], "Frames cannot be counted backwards"),
    ],
)
def test_what_a_user_can_fix_is_one_line(home, tmp_path, capsys, arguments, says):
    command = ["evaluate", str(tmp_path / "nowhere"), "--suite", "pose", "--out", str(tmp_path / "out"), *arguments]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert says in told
    assert len(told.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
