"""The scheduler: takes jobs from the queue to a worker process, one at a time, and records what becomes of them."""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .executor import Executor, Running
from .jobs import Job, JobStore
from .metrics import Metrics
from .process import Outcome

log = logging.getLogger(__name__)

LOG_NAME = "log.txt"
CAPTURE = "capture"
LIVE = "live"
LOG_EVENTS_MAX = 500  # of one attempt; the job's log has the rest
RETRY_S = 1.0

IDLE = {"stage": "", "stage_fraction": 0.0, "fraction": 0.0}


@dataclass
class _Active:
    job: Job
    worker: Running
    progress: dict[str, Any] = field(default_factory=lambda: dict(IDLE))
    log_events: int = 0
    live: dict[int, int] = field(default_factory=dict)  # frame -> number of its newest version
    cancelled: bool = False
    ended: bool = False


class Scheduler:
    """Runs queued jobs in the order they came. `changed` collects the ids of jobs whose state or progress moved.

    `cache` is where jobs keep results of stages for each other; None for nowhere.
    """

    def __init__(
        self,
        store: JobStore,
        jobs: Path,
        executor: Executor,
        notify: Callable[[], None] = lambda: None,
        cache: Path | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.changed: set[str] = set()
        self.accepting = True
        self._store, self._jobs, self._executor, self._notify = store, jobs, executor, notify
        self._cache = cache
        self._metrics = metrics or Metrics()
        self._active: _Active | None = None
        # What is not recorded yet. On a full disk it waits here, and the next job with it.
        self._unrecorded: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0

    @property
    def busy(self) -> bool:
        """Whether a job runs, or its end is still to be recorded."""
        return self._active is not None or bool(self._unrecorded)

    def folder(self, job: str) -> Path:
        """The job's folder on the server's disk."""
        return self._jobs / job

    def has_capture(self, job: str) -> bool:
        """Whether the result of a finished job is still on the disk."""
        return (self.folder(job) / CAPTURE / "capture.json").is_file()

    def tick(self) -> None:
        """Record what the worker told, and start the next job when there is none."""
        active = self._active
        if active is not None:
            while not active.worker.events.empty():
                self._take(active, active.worker.events.get())
        if time.monotonic() < self._retry_at:
            return
        try:
            self._record()
            if active is not None and active.ended:
                self._active = None
            if self._active is None and self.accepting and self._executor.free():
                self._start_next()
        except (sqlite3.Error, OSError):  # a full disk is an OperationalError of SQLite's
            log.exception("the queue stands still; trying again")
            self._retry_at = time.monotonic() + RETRY_S

    def status(self, job: Job) -> dict[str, Any]:
        """The fields of a `status` reply."""
        active = self._active
        progress = active.progress if active is not None and active.job.id == job.id else IDLE
        if job.state == "done":
            progress = {**IDLE, "stage_fraction": 1.0, "fraction": 1.0}
        position = self._store.position(job)
        return {"job": job.id, "state": job.state, "position": position, "last": job.last, **progress}

    def live(self, job: Job) -> list[tuple[int, int]]:
        """(number, frame) of the newest version of each frame that the job shows, in order; only while it runs."""
        active = self._active
        return sorted((n, f) for f, n in active.live.items()) if active is not None and active.job.id == job.id else []

    def cancel(self, job: Job) -> None:
        """Stop the job wherever it is; a running one is told cancelled once its process and its files are gone."""
        active = self._active
        if active is not None and active.job.id == job.id:
            active.cancelled = True
            active.worker.cancel()
        elif job.state == "queued":
            clear(self.folder(job.id), keep=(LOG_NAME,))
            self._store.end(job.id, "cancelled")
            self.changed.add(job.id)

    def stop(self) -> None:
        """Kill the running worker without an outcome: its job is queued again when the server next starts."""
        self.accepting = False
        self._executor.close()

    def _start_next(self) -> None:
        job = self._store.next_queued()
        if job is None:
            return
        folder = self.folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        clear(folder, keep=(LOG_NAME,))
        spec = {
            **job.spec,
            "out": str(folder / CAPTURE),
            "scratch": str(folder / "scratch"),
            "log": str(folder / LOG_NAME),
            "cache": str(self._cache) if self._cache else None,
            "live": str(folder / LIVE),
            "replace": True,
        }
        self._store.start(job.id)
        try:
            worker = self._executor.start(spec, folder / LOG_NAME, notify=self._notify, cleanup=partial(_tidy, folder))
        except OSError as error:
            self._store.end(job.id, "failed", f"The worker process cannot be started ({error})", "restart the backend")
            return
        log.info("job %s runs on %s", job.id, worker.where)
        self._active = _Active(job, worker)
        self.changed.add(job.id)

    def _take(self, active: _Active, event: dict[str, Any] | Outcome) -> None:
        """One event of the worker: progress is kept as the newest value, everything else becomes a numbered event."""
        job = active.job.id
        self.changed.add(job)
        if isinstance(event, Outcome):
            self._end(active, event)
        elif event["t"] == "progress":
            stage, eta_s = str(event["stage"]), event["eta_s"]
            if stage != active.progress["stage"]:
                self._unrecorded.append(lambda: self._store.add_event(job, "stage", stage))
            active.progress = {
                "stage": stage,
                "stage_fraction": float(event["stage_fraction"]),
                "fraction": float(event["fraction"]),
                **({} if eta_s is None else {"eta_s": float(eta_s)}),
            }
        elif event["t"] == "live":
            active.live[int(event["frame"])] = int(event["n"])
        elif event["t"] == "log" and active.log_events < LOG_EVENTS_MAX:
            active.log_events += 1
            self._unrecorded.append(lambda: self._store.add_event(job, "log", event["text"], event["level"]))

    def _end(self, active: _Active, outcome: Outcome) -> None:
        job = active.job.id
        active.ended = True
        if active.cancelled and outcome.state == "done":  # it finished while the user cancelled: the user's word counts
            clear(self.folder(job), keep=(LOG_NAME,))
            outcome = Outcome("cancelled")
        self._metrics.ended(active.job.engine, outcome)
        log.info("job %s: %s %s", job, outcome.state, outcome.message)
        self._unrecorded.append(
            lambda: self._store.end(job, outcome.state, outcome.message, outcome.hint, outcome.files)
        )

    def _record(self) -> None:
        while self._unrecorded:
            self._unrecorded[0]()
            self._unrecorded.popleft()


def _tidy(folder: Path, outcome: Outcome) -> None:
    clear(folder, keep=(LOG_NAME, CAPTURE) if outcome.state == "done" else (LOG_NAME,))


def clear(folder: Path, keep: Sequence[str] = ()) -> None:
    """Remove everything in a job's folder but what `keep` names."""
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
