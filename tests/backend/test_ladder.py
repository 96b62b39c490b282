"""The ladder: what fitted into a device's memory is remembered, told, and forgotten when there is more room."""

from __future__ import annotations

import logging

import pytest
import torch

from backend.ladder import ENTRIES_MOST, Ladder
from backend.nets import memory
from backend.nets.memory import Chunks
from backend.run import Run

GIB = 2**30


@pytest.fixture
def ladder(tmp_path) -> Ladder:
    return Ladder(tmp_path / "cache" / "ladder.json")


@pytest.fixture
def free(monkeypatch) -> list[int]:
    """Bytes that the device has free; tests change them."""
    amount = [8 * GIB]
    monkeypatch.setattr(memory, "free_bytes", lambda device: amount[0])
    return amount


def done(ladder: Ladder | None, item: str = "512x288", fits: int = 3, planned: int = 8) -> tuple[list[int], list[str]]:
    """How much a job did at once, and what it told, on a device that has room for `fits` items at once."""
    sizes: list[int] = []
    told: list[str] = []

    def work(chunk) -> None:
        if len(chunk) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(chunk))

    run = Run(ladder=ladder, retried=told.append)
    list(Chunks(planned, "cpu", "pair", run=run, item=item).over(range(8), work))
    return sizes, told


def test_the_first_job_steps_down_and_says_so_the_next_begins_there(ladder, free):
    assert done(ladder) == (
        [2, 2, 2, 2],
        [
            "Out of memory with 8 pairs at once; going on with 4",
            "Out of memory with 4 pairs at once; going on with 2",
        ],
    )
    assert done(Ladder(ladder.file)) == ([2, 2, 2, 2], [])


def test_pictures_of_another_size_begin_anew(ladder, free):
    done(ladder)
    assert done(ladder, item="256x144", fits=8) == ([8], [])


def test_with_clearly_more_room_more_is_tried_again(ladder, free):
    """Then it was another program that had the rest of the memory."""
    done(ladder)
    free[0] = 9 * GIB
    assert done(ladder, fits=8)[0] == [2, 2, 2, 2]
    free[0] = 12 * GIB
    assert done(ladder, fits=8)[0] == [8]


def test_a_plan_that_is_smaller_stays(ladder, free):
    done(ladder)
    assert done(ladder, planned=1)[0] == [1] * 8


def test_what_fits_at_once_leaves_no_trace(ladder, free):
    done(ladder, fits=8)
    assert not ladder.file.exists()


def test_without_a_ladder_each_job_finds_out_anew(free):
    assert len(done(None)[1]) == 2
    assert len(done(None)[1]) == 2


@pytest.mark.parametrize("content", ["", "[1]", '{"a": 1}', '{"a": ["x", 2]}', "\x00"])
def test_a_damaged_file_is_as_none(ladder, free, content):
    ladder.file.parent.mkdir()
    ladder.file.write_text(content)
    assert ladder.begin("a", 8, GIB) == 8
    done(ladder)
    assert done(ladder)[1] == []


def test_a_folder_that_cannot_be_written_only_costs_the_next_job(tmp_path, free, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "file").touch()
    assert done(Ladder(tmp_path / "file" / "ladder.json"))[0] == [2, 2, 2, 2]
    assert "not kept" in caplog.text


def test_only_the_newest_steps_are_kept(ladder):
    for n in range(ENTRIES_MOST + 5):
        ladder.keep(f"place {n}", 1, GIB)
    assert (ladder.begin("place 4", 8, GIB), ladder.begin("place 5", 8, GIB)) == (8, 1)
