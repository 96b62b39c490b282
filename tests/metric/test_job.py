"""The scale as the last part of a job: in the capture, or a warning; weights and time in the estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from backend import pipeline
from backend.cost import Footage
from backend.estimate import cost_of
from backend.machine import Machine
from backend.metric import scale
from backend.metric.cost import STAGE, wants_scale
from backend.metric.job import with_scale
from backend.run import Run
from backend.wire import ClassicalSettings, JobSettings, MASt3RSettings, MonST3RSettings, UserError, read_capture
from tests.pair_oracle import Errors
from tests.worlds import World, as_capture, hand_held_room

from .test_scale import in_units

SCALED = JobSettings(engine_settings=ClassicalSettings(metric_scale="mast3r"))


@pytest.fixture(scope="module")
def world() -> World:
    return hand_held_room(6)


class UnitsEngine:
    """Makes captures whose unit is 4 m."""

    plan = (("Looking", 1.0),)

    def __init__(self, world: World) -> None:
        self.world = world

    def check(self, settings: JobSettings) -> None:
        pass

    def reconstruct(self, clip, settings: JobSettings, run: Run):
        with run.stage("Looking"):
            return replace(in_units(self.world, 4.0), settings=settings.to_json(), timings=())


@pytest.fixture
def job(world, monkeypatch, tmp_path):
    """Runs a job of the world with these settings, and returns its capture."""
    footage = tmp_path / "clip"
    footage.mkdir()
    for n, picture in enumerate(world.rgb):
        Image.fromarray(picture).save(footage / f"{n:04d}.png")
    monkeypatch.setattr(pipeline, "load_engine", lambda name: UnitsEngine(world))
    monkeypatch.setattr(pipeline, "CAPTURE_FILES", ())
    told: list[tuple[str, float]] = []

    def run_job(settings: JobSettings) -> Path:
        run = Run(report=lambda p: told.append((p.stage, p.fraction)), work_dir=tmp_path, reports_per_second=1e9)
        return pipeline.reconstruct(footage, tmp_path / "out", settings, run)

    run_job.told = told
    return run_job


@pytest.fixture
def weights_are_there(monkeypatch):
    monkeypatch.setattr("backend.metric.job.check_installed", lambda names: None)


def test_a_job_measures_the_scale_when_it_is_asked_to(world, job, knows, weights_are_there):
    knows(world, Errors(scale=0.03))
    capture = read_capture(job(SCALED))
    assert capture.scale.low < 4.0 < capture.scale.high
    assert not capture.metric
    assert STAGE in dict(capture.timings)
    stages = list(dict.fromkeys(stage for stage, _ in job.told))
    assert stages == ["Reading the clip", "Looking", "Following movers", STAGE, "Writing the capture"]
    assert max(fraction for _, fraction in job.told) == pytest.approx(1.0)


def test_nobody_asked_nothing_measured(job):
    capture = read_capture(job(JobSettings()))
    assert capture.scale is None
    assert STAGE not in dict(capture.timings)


def test_a_capture_without_a_scale_is_kept_and_says_why(world, job, knows, weights_are_there):
    knows(world, Errors(scale=1.5))
    capture = read_capture(job(SCALED))
    assert capture.scale is None
    assert capture.shot.warnings[-1].startswith("The scale could not be measured: The pairs of frames disagree")


def test_a_metric_capture_is_left_alone(world, monkeypatch):
    monkeypatch.setattr(scale, "measure_scale", None)
    exact = as_capture(world)
    assert with_scale(exact, Run()) is exact


def test_without_weights_the_job_does_not_begin(job, monkeypatch, tmp_path):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(UserError, match="weights get mast3r"):
        job(SCALED)
    assert not job.told


def test_the_estimate_knows_of_it():
    footage = Footage(1280, 720, tuple(n / 24 for n in range(50)))
    for options in (ClassicalSettings(metric_scale="mast3r"), MonST3RSettings(metric_scale="mast3r")):
        engine = "classical" if isinstance(options, ClassicalSettings) else "monst3r"
        for gpu_free in (None, 24 * 10**9):
            machine = Machine(cores=8, memory_free=64 * 10**9, gpu_free=gpu_free)
            plain = cost_of(footage, JobSettings(engine, engine_settings=type(options)()), machine)
            scaled = cost_of(footage, JobSettings(engine, engine_settings=options), machine)
            assert scaled.weights == (*plain.weights, "mast3r")
            assert scaled.seconds > plain.seconds + 10
            assert STAGE in scaled.stages
            assert STAGE not in plain.stages
            if gpu_free:
                assert scaled.gpu_bytes >= max(plain.gpu_bytes or 0, 2_754_600_000)
            else:
                assert scaled.memory_bytes >= max(plain.memory_bytes, 2_754_600_000)


def test_an_engine_in_metres_has_no_such_setting():
    assert not wants_scale(JobSettings("mast3r", engine_settings=MASt3RSettings()))
    assert not wants_scale(JobSettings())
