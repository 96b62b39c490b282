"""The memory of stage results: what was made from the same comes back the same, and nothing else ever does."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

import numpy as np
import pytest

from backend import stage_memory
from backend.run import Run
from backend.stage_memory import ENTRY, StageMemory, digest
from backend.wire import Cancelled


@dataclass(frozen=True)
class Inner:
    numbers: np.ndarray
    name: str


@dataclass(frozen=True)
class Outer:
    inner: Inner
    by_offset: dict[int, np.ndarray]
    words: tuple[str, ...]
    limit: float | None


TYPES = (Inner, Outer)
FRAMES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def result(seed: int = 0) -> Outer:
    rng = np.random.default_rng(seed)
    large = rng.normal(size=(600, 600)).astype(np.float32)
    return Outer(Inner(large, "ä"), {-2: large[:3, ::2], 6: np.zeros((0, 2))}, ("a", "b"), None)


class Stage:
    """Something costly that counts how often it is done."""

    def __init__(self, memory: StageMemory | None) -> None:
        self.run, self.times = Run(memory=memory), 0

    def __call__(self, frames=FRAMES, **settings):
        def compute():
            self.times += 1
            return result(self.times)

        return self.run.remember("A Stage", {"frames": frames, **settings}, compute, TYPES)


@pytest.fixture
def memory(tmp_path) -> StageMemory:
    return StageMemory(tmp_path / "cache", leave_free_bytes=0)


@pytest.fixture
def stage(memory) -> Stage:
    return Stage(memory)


def assert_same(a: Outer, b: Outer) -> None:
    np.testing.assert_array_equal(a.inner.numbers, b.inner.numbers)
    assert a.inner.numbers.dtype == b.inner.numbers.dtype
    assert a.by_offset.keys() == b.by_offset.keys()
    for k, value in a.by_offset.items():
        np.testing.assert_array_equal(value, b.by_offset[k])
    assert (a.inner.name, a.words, a.limit) == (b.inner.name, b.words, b.limit)


def test_a_later_job_gets_what_an_earlier_one_computed(memory, stage):
    first = stage(strength=0.5)
    later = Stage(StageMemory(memory.folder))
    assert_same(first, later(strength=0.5))
    assert (stage.times, later.times) == (1, 0)
    assert isinstance(later(strength=0.5).inner.numbers, np.memmap)


@pytest.mark.parametrize(
    "other",
    [
        {"strength": 0.25},
        {"frames": FRAMES + 1},
        {"frames": FRAMES.astype(np.int8)},
        {"frames": FRAMES.reshape(2, 4, 3)},
        {"strength": 0.5, "more": None},
        {"strength": 0.5, "at": (1, 2)},
    ],
    ids=str,
)
def test_what_is_made_from_something_else_is_computed(stage, other):
    stage(strength=0.5, at=[1, 2])
    stage(**other)
    assert stage.times == 2


def test_another_method_or_library_finds_nothing_of_before(memory, stage, monkeypatch):
    stage()
    monkeypatch.setattr(stage_memory, "_version", lambda library: "0.0")
    later = Stage(StageMemory(memory.folder))
    later()
    assert later.times == 1


def test_writing_into_what_was_remembered_changes_no_entry(stage):
    stage()
    stage().inner.numbers[:] = 7
    assert not (stage().inner.numbers == 7).all()
    assert stage.times == 1


def test_without_a_memory_everything_is_computed():
    stage = Stage(None)
    stage()
    stage()
    assert stage.times == 2
    assert stage.run.content(FRAMES) == ""


def entry(memory: StageMemory):
    (path,) = (p for p in memory.folder.iterdir() if not p.name.startswith("."))
    return path


@pytest.mark.parametrize("name", ["0.npy", ENTRY])
@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
def test_a_damaged_entry_is_computed_again_and_replaced(memory, stage, name, how, caplog):
    caplog.set_level(logging.INFO)
    first = stage()
    file = entry(memory) / name
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content[:-1] if how == "cut" else content)
    stage()
    assert stage.times == 2
    assert how == "gone" or "damaged" in caplog.text
    assert_same(result(2), stage())
    assert stage.times == 2
    assert first.inner.numbers.any()


def test_the_entries_used_longest_ago_make_room(memory):
    one = 2 * result().inner.numbers.nbytes
    memory.limit_bytes = int(3.5 * one)
    stage = Stage(memory)
    for n in range(3):
        stage(n=n)
    for seconds, path in enumerate(sorted(memory.folder.iterdir(), key=lambda p: (p / ENTRY).stat().st_mtime)):
        os.utime(path / ENTRY, (seconds, seconds))
    stage(n=0)  # used again
    for n in range(3, 7):
        stage(n=n)
    assert stage.times == 7
    used = sum(f.stat().st_size for f in memory.folder.rglob("*") if f.is_file())
    assert used <= memory.limit_bytes
    stage(n=6)
    assert stage.times == 7
    stage(n=1)
    assert stage.times == 8


def test_what_is_too_large_is_not_kept_and_nothing_else_goes_for_it(memory, stage, caplog):
    caplog.set_level(logging.INFO)
    stage()
    memory.limit_bytes = result().inner.numbers.nbytes
    stage(n=1)
    assert "not kept for later jobs" in caplog.text
    stage()
    assert stage.times == 2


def test_a_disk_that_is_nearly_full_is_left_alone(memory, stage, caplog):
    caplog.set_level(logging.INFO)
    memory.leave_free_bytes = 2**60
    stage()
    assert "nearly full" in caplog.text
    assert list(memory.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_costs_only_the_memory(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    stage = Stage(StageMemory(tmp_path / "file" / "cache"))
    assert_same(stage(), result(1))
    assert "not kept" in caplog.text


def test_a_cancelled_job_leaves_no_half_entry(memory):
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 4

    run = Run(memory=memory, is_cancelled=cancelled)
    with pytest.raises(Cancelled):
        run.remember("A Stage", {"n": 1}, result, TYPES)
    assert list(memory.folder.iterdir()) == []


def test_what_a_killed_job_left_is_cleared_away_later(memory, stage):
    memory.folder.mkdir()
    for name, age_s in ((".old.partial-1", 2 * 86400), (".new.partial-2", 60)):
        (memory.folder / name).mkdir()
        os.utime(memory.folder / name, (os.path.getmtime(memory.folder) - age_s,) * 2)
    stage()
    assert {p.name for p in memory.folder.iterdir() if p.name.startswith(".")} == {".new.partial-2"}


def test_an_entry_holds_no_code(memory, stage):
    """Plain arrays and JSON: no pickle is written, and none would be read."""
    stage()
    told = json.loads((entry(memory) / ENTRY).read_text().split("\n", 1)[1])
    assert told["tree"]["of"] == "Outer"
    with pytest.raises(TypeError, match="cannot hold a function"):
        stage.run.remember("Another", {}, lambda: digest)
