"""Checkpoints: a job that is killed goes on from its last finished stage, to the same bits as one that never was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend import clip as clip_module
from backend import stage_memory
from backend.clip import open_clip
from backend.run import Run
from backend.server.process import Outcome, WorkerProcess
from backend.stage_memory import StageMemory
from backend.wire import ClassicalSettings, ClipSettings, JobSettings, LensSettings
from tests.footage import index_of, pictures, write_video
from tests.worlds import room

WIDTH, HEIGHT, FRAMES = 192, 108, 6
SETTINGS = JobSettings(
    lens=LensSettings(focal_mm=36 * 0.9, sensor_width_mm=36),
    clip=ClipSettings(long_side=WIDTH),
    engine_settings=ClassicalSettings(),
).to_json()
#: Stages of the classical engine, and what each leaves behind for a later job; the others take next to nothing.
LEFT = {
    "Reading the clip": "",
    "Tracking points": "Tracks",
    "Solving the camera": "First camera",
    "Optical flow": "Flow",
    "Finding movers": "Motion masks",
    "Solving without movers": "Camera",
    "Measuring depth": "Depth",
    "Filling": "",
    "Following movers": "Flow to the next frame",
    "Writing the capture": "",
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for n, picture in enumerate(room(FRAMES, WIDTH, HEIGHT, focal_px=0.9 * WIDTH).rgb):
        Image.fromarray(picture).save(folder / f"{n:04d}.png")
    return folder


class Attempt:
    """One worker at the job; `until` kills it a random while after a stage began."""

    def __init__(self, clip: Path, work: Path, cache: Path | None) -> None:
        spec = {
            "clip": {"path": str(clip)},
            "masks": None,
            "settings": SETTINGS,
            "out": str(work / "capture"),
            "scratch": str(work / "scratch"),
            "log": str(work / "log.txt"),
            "cache": str(cache) if cache else None,
            "device": "cpu",
            "replace": True,
        }
        self.worker = WorkerProcess(spec, work / "log.txt")
        self.stages: list[str] = []
        self.known: set[str] = set()

    def until(self, stage: str, wait_s: float) -> Outcome:
        """Go on until `stage` has begun, and `wait_s` longer; then the process is killed. Its end."""
        while True:
            event = self.worker.events.get(timeout=120)
            if isinstance(event, Outcome):
                return event
            if event["t"] == "log" and "known from an earlier job" in event["text"]:
                self.known.add(event["text"].partition(":")[0])
            if event["t"] == "progress" and event["stage"] not in self.stages:
                self.stages.append(event["stage"])
                if event["stage"] == stage:
                    time.sleep(wait_s)
                    with contextlib.suppress(ProcessLookupError):  # it was done by then
                        os.kill(self.worker.pid, signal.SIGKILL)

    def finish(self) -> Outcome:
        return self.until("", 0)


def content(capture: Path) -> dict[str, object]:
    """Every file of a capture, without the time that it took and the moment it was made."""
    files: dict[str, object] = {p.name: p.read_bytes() for p in capture.iterdir() if p.name != "capture.json"}
    told = json.loads((capture / "capture.json").read_text())
    # Bundle adjustment adds up on several threads: this one number is not rounded, and differs in its 13th digit.
    told["shot"]["solver_disagreement"] = round(told["shot"]["solver_disagreement"], 12)
    return {**files, **{k: v for k, v in told.items() if k not in ("timings", "created", "created_at")}}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_job_that_is_killed_in_every_stage_loses_that_stage_alone(clip, tmp_path):
    """The seed says when within each stage; a stage may be over by then, and the next one is hit instead."""
    seed = random.randrange(1000)
    print(f"seed {seed}")
    chance = random.Random(seed)
    assert Attempt(clip, tmp_path / "calm", None).finish().state == "done"
    finished: set[str] = set()
    for stage in LEFT:
        attempt = Attempt(clip, tmp_path / "stormy", tmp_path / "cache")
        end = attempt.until(stage, chance.uniform(0, 0.15))
        assert finished <= attempt.known | {""}, f"killed in {stage}"
        finished |= {LEFT[name] for name in attempt.stages[:-1]} - {""}
        if end.state == "done":  # it was over before the blow fell
            break
        assert end.cause == "crash"
    last = Attempt(clip, tmp_path / "stormy", tmp_path / "cache")
    assert last.finish().state == "done"
    assert last.known == {left for left in LEFT.values() if left}
    assert content(tmp_path / "stormy" / "capture") == content(tmp_path / "calm" / "capture")


# The decoded frames


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Opens a clip as one job after the other does, each with a scratch folder of its own; all are kept."""
    monkeypatch.setattr(clip_module, "KEPT_FROM_S", 0.0)
    memory = StageMemory(tmp_path / "cache", leave_free_bytes=0)
    count = iter(range(100))

    def open_it(path: Path, decoding=nullcontext, **settings):
        work = tmp_path / f"work-{next(count)}"
        work.mkdir()
        return open_clip(path, ClipSettings(**settings), Run(work_dir=work, memory=memory, decoding=decoding))

    return open_it


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """A note for each time that a clip is really decoded."""
    notes: list[str] = []
    decode = clip_module._decode

    def noted(*arguments):
        notes.append("decoded")
        return decode(*arguments)

    monkeypatch.setattr(clip_module, "_decode", noted)
    return notes


def test_a_clip_is_decoded_once_for_all_jobs_that_use_the_same_frames(opened, decoded, tmp_path):
    video = write_video(tmp_path / "a.mp4", pictures(12), fps=25)
    first, second = opened(video), opened(video)
    assert decoded == ["decoded"]
    assert second.info == first.info
    assert (second.store_map, second.warnings, second.focal_35mm) == (first.store_map, first.warnings, first.focal_35mm)
    np.testing.assert_array_equal(second.frames, first.frames)
    assert [index_of(frame) for frame in second.frames] == list(range(12))
    opened(video, first_frame=2)
    opened(write_video(tmp_path / "b.mp4", pictures(13), fps=25))
    assert len(decoded) == 3


def test_the_kept_frames_are_the_store_itself_and_no_copy(opened, tmp_path):
    clip = opened(write_video(tmp_path / "a.mp4", pictures(12)))
    (kept,) = (tmp_path / "cache").glob("frames.*/0.npy")
    assert kept.samefile(clip.frames.filename)
    np.testing.assert_array_equal(np.load(kept), clip.frames)


def test_the_limit_on_decoding_is_not_one_on_kept_frames(opened, tmp_path, monkeypatch):
    """Mapped frames count as data of the process, and may be far larger than what a decoder needs."""
    limited: list[bool] = [False]
    seen: list[tuple[str, bool]] = []

    @contextmanager
    def decoding():
        limited[0] = True
        yield
        limited[0] = False

    def noting(place, name: str) -> None:
        do = getattr(place, name)

        def deed(*arguments, **options):
            seen.append((name, limited[0]))
            return do(*arguments, **options)

        monkeypatch.setattr(place, name, deed)

    noting(stage_memory, "_read")
    noting(clip_module, "open_footage")
    noting(clip_module, "_Grid")
    video = write_video(tmp_path / "a.mp4", pictures(12))
    for _ in range(2):
        opened(video, decoding=decoding)
    made, known = [("open_footage", True), ("_read", False)], [("_Grid", False)]
    assert seen == [*made, ("_Grid", True), *known, *made, *known]


def test_a_cut_file_s_frames_and_warnings_are_kept_as_they_were(opened, decoded, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 96, 160, 3), np.uint8)
    video = write_video(tmp_path / "a.mkv", list(noise))
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    first, second = opened(video), opened(video)
    assert decoded == ["decoded"]
    assert any("is cut" in text for text in first.warnings)
    assert (second.info, second.warnings) == (first.info, first.warnings)
    np.testing.assert_array_equal(second.frames, first.frames)


def test_images_are_known_by_name_and_content(opened, decoded, clip, tmp_path):
    other = tmp_path / "renamed"
    other.mkdir()
    for n, path in enumerate(sorted(clip.iterdir())):
        (other / f"{2 * n:04d}.png").write_bytes(path.read_bytes())
    assert opened(clip).info == opened(clip).info
    opened(other)
    assert len(decoded) == 2


def test_frames_that_are_quickly_decoded_are_not_kept(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(clip_module, "KEPT_FROM_S", 60.0)
    opened(write_video(tmp_path / "a.mp4", pictures(12)))
    assert not (tmp_path / "cache").exists()
