"""Chunks of work that go on when memory runs out."""

from __future__ import annotations

import logging

import pytest
import torch

from backend.nets.memory import Chunks, chunk_size, free_bytes, is_out_of_memory
from backend.wire import UserError


def test_a_chunk_takes_most_of_what_is_free_and_at_least_one():
    assert chunk_size(free=1000, bytes_each=100, most=16) == 7
    assert chunk_size(free=1000, bytes_each=10, most=16) == 16
    assert chunk_size(free=50, bytes_each=100, most=16) == 1


def test_the_machine_says_what_is_free():
    assert 2**20 < free_bytes("cpu") < 2**50


def worker(limit: int):
    """Work that can do `limit` items at once, and the list of what it did."""
    did: list[list[int]] = []

    def work(chunk):
        if len(chunk) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        did.append(list(chunk))

    return work, did


def test_work_that_is_too_much_at_once_is_done_in_halves_and_says_so(caplog):
    work, did = worker(limit=3)
    chunks = Chunks(8, "cpu", "pair")
    with caplog.at_level(logging.WARNING):
        assert list(chunks.over(range(10), work)) == [2, 4, 6, 8, 10]
    assert did == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert [record.message for record in caplog.records] == [
        "Out of memory with 8 pairs at once; going on with 4",
        "Out of memory with 4 pairs at once; going on with 2",
    ]


def test_the_next_work_begins_with_what_fitted():
    chunks = Chunks(8, "cpu", "pair")
    list(chunks.over(range(8), worker(limit=3)[0]))
    work, did = worker(limit=3)
    list(chunks.over(range(4), work))
    assert did == [[0, 1], [2, 3]]


def test_one_item_that_is_too_much_is_the_user_s_to_know():
    work, did = worker(limit=0)
    with pytest.raises(UserError, match="not enough for one pair") as caught:
        list(Chunks(4, "cpu", "pair").over(range(4), work))
    assert "Resolution" in caught.value.hint
    assert did == []


def test_what_can_be_made_again_is_let_go_before_giving_up():
    kept = ["maps"]

    def work(chunk):
        if kept:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def relieve() -> bool:
        had = bool(kept)
        kept.clear()
        return had

    assert list(Chunks(1, "cpu", "pair", relieve).over([5], work)) == [1]


def test_other_errors_are_not_taken_for_a_want_of_memory():
    def work(chunk):
        raise RuntimeError("shapes do not agree")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Chunks(4, "cpu", "pair").over(range(4), work))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] . DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_every_way_of_saying_it_is_understood(error):
    assert is_out_of_memory(error)


def test_a_real_refusal_of_memory_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
