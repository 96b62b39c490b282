"""Work in threads keeps its order, reports, and stops when cancelled."""

import pytest

from backend.classical.parallel import in_threads
from backend.run import Run
from backend.wire import Cancelled


def test_results_come_in_order():
    assert list(in_threads(lambda t: t * t, 20, Run(threads=4))) == [t * t for t in range(20)]


def test_a_cancelled_job_leaves_most_work_undone():
    done = []
    run = Run(threads=2, is_cancelled=lambda: len(done) >= 5)
    with pytest.raises(Cancelled):
        list(in_threads(done.append, 1000, run))
    assert len(done) < 20


def test_an_error_in_a_thread_is_the_callers():
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda t: 1 / t, 3, Run()))
