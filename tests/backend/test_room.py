"""An engine for which memory is not enough: run again with less, told while it runs and kept in the result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from backend import room
from backend.clip import Clip
from backend.ladder import Ladder, NoRoom, whose_memory
from backend.pipeline import reconstruct
from backend.room import reconstruct_in_room
from backend.run import Run
from backend.wire import ClipSettings, JobSettings, PlateMap, UserError, read_capture
from tests.footage import pictures, write_video
from tests.worlds import as_capture
from tests.worlds import room as room_world

GIB = 2**30


class Engine:
    """One that has memory for pictures up to `fits` pixels long, and remembers what it was asked."""

    plan = (("Thinking", 1.0),)

    def __init__(self, fits: int, error: Exception | None = None) -> None:
        self.fits, self.asked = fits, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def check(self, settings: JobSettings) -> None: ...

    def reconstruct(self, clip, settings, run):
        self.asked.append(settings.clip.long_side)
        if settings.clip.long_side > self.fits:
            raise self.error
        capture = as_capture(room_world(frames=3, width=32, height=24))
        return replace(capture, settings=settings.to_json())


@pytest.fixture(autouse=True)
def free(monkeypatch) -> list[int]:
    """Bytes that are free; tests change them."""
    amount = [8 * GIB]
    monkeypatch.setattr(room, "_free", lambda run: amount[0])
    return amount


@pytest.fixture(scope="module")
def clip() -> Clip:
    world = room_world(frames=3, width=32, height=24)
    return Clip(as_capture(world).clip, world.rgb, PlateMap(1.0, 1.0))


def made(engine: Engine, clip: Clip, ladder: Ladder | None = None, long_side: int = 512):
    """The capture, and what was told meanwhile."""
    told: list[str] = []
    settings = JobSettings(clip=ClipSettings(long_side=long_side))
    return reconstruct_in_room(engine, clip, settings, Run(retried=told.append, ladder=ladder)), told


def test_what_fits_is_done_as_asked(clip):
    engine = Engine(fits=512)
    capture, told = made(engine, clip)
    assert (engine.asked, told, capture.shot.warnings) == ([512], [], ())


def test_a_lower_resolution_is_told_warned_of_and_stored(clip):
    engine = Engine(fits=300)
    capture, told = made(engine, clip)
    assert engine.asked == [512, 384, 288]
    assert told == [
        "The memory of the graphics card ran out at 512 pixels; going on with 384",
        "The memory of the graphics card ran out at 384 pixels; going on with 288",
    ]
    assert capture.shot.warnings == ("Resolution was lowered from 512 to 288 pixels, for which memory was enough",)
    assert capture.settings["clip"]["long_side"] == 288


def test_when_nothing_fits_the_error_itself_comes_out(clip):
    engine = Engine(fits=0)
    with pytest.raises(torch.OutOfMemoryError):
        made(engine, clip)
    assert engine.asked == [512, 384, 288]
    engine = Engine(fits=0, error=NoRoom("The memory of a card is not enough for one pair", "lower Resolution"))
    with pytest.raises(UserError, match="not enough for one pair"):
        made(engine, clip, long_side=128)
    assert engine.asked == [128]


@pytest.mark.parametrize("error", [UserError("The camera never moves"), ZeroDivisionError(), RuntimeError("shapes")])
def test_other_errors_are_not_tried_again(clip, error):
    engine = Engine(fits=0, error=error)
    with pytest.raises(type(error)):
        made(engine, clip)
    assert engine.asked == [512]


def test_the_next_job_of_that_size_begins_where_it_fitted(clip, tmp_path, free):
    ladder = Ladder(tmp_path / "ladder.json")
    made(Engine(fits=300), clip, ladder)
    engine = Engine(fits=300)
    capture, told = made(engine, clip, ladder)
    assert engine.asked == [288]
    assert told == ["A job like this ran out of memory at 512 pixels; going on with 288"]
    assert "lowered from 512 to 288" in capture.shot.warnings[0]
    free[0] = 16 * GIB
    engine = Engine(fits=512)
    assert made(engine, clip, ladder)[0].shot.warnings == ()
    assert engine.asked == [512]


def test_the_pipeline_keeps_the_warning_in_the_capture(tmp_path, monkeypatch):
    monkeypatch.setattr("backend.pipeline.load_engine", lambda name: Engine(fits=400))
    video: Path = write_video(tmp_path / "a.mp4", pictures(4))
    reconstruct(video, tmp_path / "out", JobSettings(), Run(work_dir=tmp_path))
    capture = read_capture(tmp_path / "out")
    assert "lowered from 512 to 384" in capture.shot.warnings[0]
    assert capture.settings["clip"]["long_side"] == 384


def test_every_way_of_saying_that_memory_ran_out_is_understood():
    assert whose_memory(MemoryError()) == "this machine"
    assert whose_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")) == "the graphics card"
    assert whose_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")) == "this machine"
    assert whose_memory(RuntimeError("CUDA error: an illegal memory access was encountered")) == ""
    assert whose_memory(ValueError("out of memory")) == ""
    with pytest.raises(MemoryError) as numpy_s:
        np.empty(2**60, np.uint8)
    assert whose_memory(numpy_s.value) == "this machine"
    failed = cv2.error("Insufficient memory")
    failed.code = -4
    assert whose_memory(failed) == "this machine"
