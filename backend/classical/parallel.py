"""Frames worked on by several threads at once, with progress, stopping early when the job is cancelled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from ..run import Run

Result = TypeVar("Result")


def in_threads(
    work: Callable[[int], Result], count: int, run: Run, begin: float = 0.0, end: float = 1.0
) -> Iterator[Result]:
    """Results of `work(t)` for t in 0..count-1, in order; reports the stage's progress from `begin` to `end`.

    NumPy and OpenCV let go of the interpreter while they compute, so threads do. Only a few results are made ahead
    of their use, as they are large. Raises Cancelled between frames; what has not begun by then never does.
    """
    ahead: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(run.workers)
    try:
        for t in range(count):
            while len(ahead) < min(2 * run.workers, count - t):
                ahead.append(pool.submit(work, t + len(ahead)))
            run.progress(begin + (end - begin) * t / count)
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
