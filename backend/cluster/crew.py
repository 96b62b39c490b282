"""Who does what on the slots of a cluster: jobs first, and slots that are idle help a long job with its pieces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from .job import Job, Nodes

log = logging.getLogger(__name__)

#: More helpers than this wait for each other's pieces more than they make.
MOST_HELPERS = 7


class Crew:
    """The jobs of a server, by number, and the helpers of each; `begin` and `order` are called from one thread.

    `worker` are the arguments of the workers' interpreter, `share` says whether nodes may be found to see the server's
    folders, and clips of fewer than `least_frames` get no help.
    """

    def __init__(self, nodes: Nodes, worker: list[str], share: bool, least_frames: int) -> None:
        self._nodes, self._worker, self._share, self._least_frames = nodes, worker, share, least_frames
        self._jobs: dict[int, Job] = {}
        self._helpers: list[tuple[int, Job]] = []  # with the number of the job that they help
        self._lock = threading.Lock()

    def begin(self, number: int, spec: dict[str, Any], tell: Callable[..., None]) -> None:
        """Give a job a slot; a helper leaves its own when there is no other."""

        def told(kind: str, **fields: Any) -> None:
            if kind == "outcome":
                self._dismiss_helpers(number)
            tell(kind, **fields)

        job = Job(self._nodes, spec, self._worker, self._share, told, lambda: self._help(number, spec, tell))
        if self._nodes.slots > 1:
            job.sharing = {"least_frames": self._least_frames}
        with self._lock:
            self._forget_ended()
            if self._helpers and self._idle() < 1:
                self._helpers.pop()[1].kill()
            self._jobs[number] = job
        job.start()

    def order(self, number: int, order: str) -> None:
        """'cancel' or 'kill' a job; one that has ended does not mind."""
        with self._lock:
            job = self._jobs.get(number)
        if job is not None:
            getattr(job, order)()

    def _help(self, number: int, spec: dict[str, Any], tell: Callable[..., None]) -> None:
        """A job says that helpers would be of use: all idle slots are."""
        with self._lock:
            self._forget_ended()
            count = min(self._idle(), MOST_HELPERS)
            for helper in range(count):
                job = Job(self._nodes, spec, self._worker, self._share, lambda kind, **fields: None)
                job.sharing = {"least_frames": self._least_frames, "helper": helper, "helpers": count}
                self._helpers.append((number, job))
                job.start()
        if count:
            tell("log", level="info", text=f"{count} more {'worker helps' if count == 1 else 'workers help'} with it")

    def _dismiss_helpers(self, number: int) -> None:
        with self._lock:
            leaving = [job for of, job in self._helpers if of == number]
            self._helpers = [(of, job) for of, job in self._helpers if of != number]
        for job in leaving:
            job.kill()

    def _idle(self) -> int:
        return self._nodes.slots - len(self._jobs) - len(self._helpers)

    def _forget_ended(self) -> None:
        self._jobs = {number: job for number, job in self._jobs.items() if job.is_alive()}
        self._helpers = [(number, job) for number, job in self._helpers if job.is_alive()]
