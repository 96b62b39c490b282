"""kill -9 of worker, server and client at random times: no job lost, no byte wrong, no process left behind."""

import random
import sys

import pytest

from .storm import KINDS, Storm

JOBS = 25


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_25_jobs_survive_whatever_is_killed(tmp_path):
    """`python -m tests.chaos --jobs 500` is the same at length."""
    report = Storm(tmp_path, JOBS, seed := random.randrange(10**6), gap_s=0.7, limit_s=300, slots=2).run()
    print(report)
    assert report.misses == [], f"seed {seed}\n{report}"
    assert report.done == JOBS
    assert all(report.kills[kind] for kind in KINDS), report.kills
    assert report.begun >= 4 * JOBS, "nothing was handed out that had not been computed"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
def test_a_server_whose_workers_and_clients_die_is_as_small_afterwards(tmp_path):
    report = Storm(
        tmp_path, 12, seed := random.randrange(10**6), gap_s=0.7, limit_s=300, kinds=("worker", "client")
    ).run()
    print(report)
    assert report.misses == [], f"seed {seed}\n{report}"
    assert report.kills["worker"]
    assert report.kills["client"]
    assert report.growth < 8 * 2**20
