"""A job with what earlier ones kept: bit for bit the capture of a job without, and only what changed is done again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.clip import Clip
from backend.engines import classical
from backend.engines.classical import ClassicalEngine
from backend.pipeline import with_movers
from backend.run import Run
from backend.stage_memory import StageMemory
from backend.wire import Capture, ClassicalSettings, ClipSettings, JobSettings, LensSettings, PlateMap
from tests.worlds import as_capture, room

WIDTH, HEIGHT, FRAMES = 192, 108, 6
LENS = LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36)
#: The stages of the classical engine that are kept.
STAGES = ("track_points", "solve_first", "neighbour_flows", "motion_masks", "solve_again", "dense_depth")


@pytest.fixture(scope="module")
def clip() -> Clip:
    world = room(FRAMES, WIDTH, HEIGHT, focal_px=0.9 * WIDTH)
    return Clip(as_capture(world).clip, world.rgb, PlateMap(1.0, 1.0))


@pytest.fixture(scope="module")
def masks() -> np.ndarray:
    """A part of the wall that the user says moves."""
    masks = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    masks[:, 10:50, 40:100] = True
    return masks


@pytest.fixture
def memory(tmp_path) -> StageMemory:
    return StageMemory(tmp_path / "cache", leave_free_bytes=0)


def made(clip: Clip, folder: Path, memory: StageMemory | None, **options: Any) -> Capture:
    """The classical engine's capture, with its movers, as the pipeline makes it."""
    settings = JobSettings(lens=LENS, clip=ClipSettings(long_side=WIDTH), engine_settings=ClassicalSettings(**options))
    run = Run(work_dir=folder, threads=1, memory=memory)
    return with_movers(ClassicalEngine().reconstruct(clip, settings, run), run)


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """The kept stages that are really done, in their order."""
    names: list[str] = []

    def counted(name: str, do: Callable) -> Callable:
        def deed(*args: Any, **more: Any) -> Any:
            names.append(name)
            return do(*args, **more)

        return deed

    for name in STAGES:
        monkeypatch.setattr(classical, name, counted(name, getattr(classical, name)))
    return names


def assert_same(a: Capture, b: Capture) -> None:
    """Bit for bit, in everything but the time it took."""
    for f in fields(Capture):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if f.name == "tracks":
            for name, values in vars(x).items():
                np.testing.assert_array_equal(values, getattr(y, name), err_msg=name)
        elif isinstance(x, np.ndarray):
            assert x.dtype == y.dtype, f.name
            np.testing.assert_array_equal(x, y, err_msg=f.name)
        elif f.name != "timings":
            assert x == y, f.name


def test_the_same_job_again_computes_nothing_and_gives_the_same(clip, memory, tmp_path, done):
    cold = made(clip, tmp_path, None)
    first = made(clip, tmp_path, memory)
    assert len(done) == 2 * len(["motion_masks", *STAGES])
    done.clear()
    warm = made(clip, tmp_path, memory)
    assert done == []
    assert_same(cold, first)
    assert_same(cold, warm)


@pytest.mark.slow
def test_with_other_masks_only_what_depends_on_them_is_done_again(clip, masks, memory, tmp_path, done):
    made(clip, tmp_path, memory)
    done.clear()
    warm = made(replace(clip, known_masks=masks), tmp_path, memory)
    assert done == ["solve_again", "motion_masks", "dense_depth"]
    assert_same(warm, made(replace(clip, known_masks=masks), tmp_path, None))
    assert warm.dynamic[:, 15:45, 45:95].all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "again"),
    [
        ({"max_features": 400}, {*STAGES} - {"neighbour_flows"}),
        ({"mover_threshold": 1.5}, {"motion_masks", "solve_again", "dense_depth"}),
        ({"fill_holes": False}, set()),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_counts_for_the_stages_that_read_it(clip, memory, tmp_path, done, options, again):
    made(clip, tmp_path, memory)
    done.clear()
    warm = made(clip, tmp_path, memory, **options)
    assert set(done) == again
    assert_same(warm, made(clip, tmp_path, None, **options))


@pytest.mark.slow
def test_other_footage_finds_nothing(clip, memory, tmp_path, done):
    made(clip, tmp_path, memory)
    count = len(done)
    frames = clip.frames.copy()
    frames[3, 20:60, 20:80] ^= 255
    made(replace(clip, frames=frames), tmp_path, memory)
    assert len(done) == 2 * count
