"""The scheduler: takes jobs from the queue to the executor, as many as it has room for, and records how they go."""

from __future__ import annotations

import errno
import logging
import math
import shutil
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .executor import Executor, Running
from .job import Job
from .job_folder import LOG_NAME, besides, folder_bytes, has_files, tidy, worker_spec
from .jobs import JobStore
from .metrics import Metrics
from .process import Outcome
from .trash import Trash

log = logging.getLogger(__name__)

EVENTS_MAX = 500  # of each kind in one attempt; the job's log has the rest
RETRY_S = 1.0
FAULTS_MAX = 4  # lost workers of one job, in whatever stages
FULL_RETRY_S = 600.0  # a job that found the disk full is tried again after so long, whatever is free
GIB = 1024**3
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))

IDLE = {"stage": "", "stage_fraction": 0.0, "fraction": 0.0}


@dataclass
class _Active:
    job: Job
    worker: Running
    progress: dict[str, Any] = field(default_factory=lambda: dict(IDLE))
    told: Counter[str] = field(default_factory=Counter)  # events by kind
    live: dict[int, int] = field(default_factory=dict)  # frame -> number of its newest version
    cancelled: bool = False  # by its owner
    parked: bool = False  # by the server, which ends
    ended: bool = False
    alone: bool = False  # no other job ran beside it when it ended


class Scheduler:
    """Runs queued jobs in turn. `changed` collects the ids of jobs whose state or progress moved.

    `cache` is where jobs keep results of stages for each other; None for nowhere. A job begins when `keep_free` bytes
    and twice its footage are free on the disk.
    """

    def __init__(
        self,
        store: JobStore,
        jobs: Path,
        executor: Executor,
        trash: Trash,
        notify: Callable[[], None] = lambda: None,
        cache: Path | None = None,
        metrics: Metrics | None = None,
        keep_free: int = 0,
    ) -> None:
        self.changed: set[str] = set()
        self.accepting = True
        self._store, self._jobs, self._executor, self._trash, self._notify = store, jobs, executor, trash, notify
        self._cache, self._keep_free = cache, keep_free
        self._metrics = metrics or Metrics()
        self._active: dict[str, _Active] = {}
        # What is not recorded yet. On a full disk it waits here, and the next job with it.
        self._unrecorded: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0
        self._stands_still = False
        self._told: set[str] = set()  # jobs that know why they wait
        self._ran_full: dict[str, tuple[int, float]] = {}  # job -> bytes that were not enough, until when that counts

    @property
    def busy(self) -> bool:
        """Whether a job runs, or what became of one is still to be recorded."""
        return bool(self._active or self._unrecorded)

    def folder(self, job: str) -> Path:
        """The job's folder on the server's disk."""
        return self._jobs / job

    def has_capture(self, job: Job) -> bool:
        """Whether the result of a finished job is still on the disk, each file in its length."""
        return has_files(self.folder(job.id), job.files)

    def begin(self) -> None:
        """Queue again what ran when the last server ended."""
        for job in self._store.running():
            self._unrecorded.append(partial(self._resume, job))
        self.tick()

    def tick(self) -> None:
        """Record what the workers told, and start the next jobs where there is room for them."""
        for active in self._active.values():
            while not active.worker.events.empty():
                self._take(active, active.worker.events.get())
        if time.monotonic() < self._retry_at:
            return
        try:
            self._record()
            self._active = {job: active for job, active in self._active.items() if not active.ended}
            if self.accepting:
                self._start_waiting()
            self._stands_still = False
        except (sqlite3.Error, OSError) as error:  # a full disk is an OperationalError of SQLite's
            if not self._stands_still:
                log.error("the queue stands still and goes on by itself: %s", error)
            self._stands_still = True
            self._retry_at = time.monotonic() + RETRY_S

    def record(self, deed: Callable[[], None]) -> None:
        """Do something to the store now, or as soon as the disk takes it."""
        self._unrecorded.append(deed)
        self.tick()

    def status(self, job: Job) -> dict[str, Any]:
        """The fields of a `status` reply."""
        active = self._active.get(job.id)
        progress = {**active.progress, "where": active.worker.where[:200]} if active is not None else IDLE
        if job.state == "done":
            progress = {**IDLE, "stage_fraction": 1.0, "fraction": 1.0}
        position = self._store.position(job)
        return {"job": job.id, "state": job.state, "position": position, "last": job.last, **progress}

    def live(self, job: Job) -> list[tuple[int, int]]:
        """(number, frame) of the newest version of each frame that the job shows, in order; only while it runs."""
        active = self._active.get(job.id)
        return sorted((n, frame) for frame, n in active.live.items()) if active is not None else []

    def cancel(self, job: Job) -> None:
        """Stop the job wherever it is; a running one is told cancelled once its process and its files are gone."""
        active = self._active.get(job.id)
        if active is not None:
            active.cancelled = True
            active.worker.cancel()
        elif job.state in ("queued", "running"):  # 'running' until it is recorded that the last server's end stopped it
            self._clear(job.id)
            self._store.end(job.id, "cancelled")
            self._told.discard(job.id)
            self._ran_full.pop(job.id, None)
            self.changed.add(job.id)

    def park(self) -> None:
        """Ask what runs to stop at its next step; `busy` until it has. It is queued again, without any blame."""
        self.accepting = False
        for active in self._active.values():
            active.parked = True
            active.worker.cancel()

    def stop(self) -> None:
        """Kill the running workers without an outcome: their jobs are queued again when the server next starts."""
        self.accepting = False
        self._executor.close()

    def _start_waiting(self) -> None:
        for job_id in self._store.order():
            if job_id in self._active:
                continue
            job = self._store.find(job_id)
            if job is None or self._executor.free() < 1:
                return
            free = shutil.disk_usage(self._jobs).free
            if self._has_room(job, free):
                self._start(job)
            elif free < self._keep_free or job_id in self._ran_full:  # for nobody; else one that needs less goes first
                return

    def _start(self, job: Job) -> None:
        folder = self.folder(job.id)
        folder.mkdir(parents=True, exist_ok=True)
        self._clear(job.id)
        spec = worker_spec(job, folder, self._cache)
        try:
            worker = self._executor.start(spec, folder / LOG_NAME, notify=self._notify, cleanup=partial(tidy, folder))
        except OSError as error:
            if error.errno not in DISK_FULL:
                self._tell_why(job, f"The job cannot be begun yet ({error}); it is tried again and again")
            raise
        log.info("job %s runs on %s", job.id, worker.where)
        self._active[job.id] = _Active(job, worker)
        self._told.discard(job.id)
        self._ran_full.pop(job.id, None)
        self.changed.add(job.id)
        self._unrecorded.append(partial(self._store.start, job.id))
        self._record()

    def _has_room(self, job: Job, free: int) -> bool:
        """Whether `free` bytes of the disk are enough for the job; it is told once when they are not."""
        needed = self._keep_free + 2 * int(job.spec.get("footage_bytes", 0))
        not_enough, until = self._ran_full.get(job.id, (0, 0.0))
        if time.monotonic() < until:
            needed = max(needed, not_enough + not_enough // 10 + 1)
        if free < needed:
            text = f"The job waits: {free / GIB:.1f} GiB of the backend's disk are free, it needs {needed / GIB:.1f}"
            self._tell_why(job, text, "delete jobs that you do not need")
        return free >= needed

    def _tell_why(self, job: Job, text: str, hint: str = "") -> None:
        """Tell once why a job does not begin."""
        if job.id not in self._told:
            log.warning("job %s: %s", job.id, text)
            self._store.add_event(job.id, "log", text, "warning", hint)
            self._told.add(job.id)
            self.changed.add(job.id)

    def _take(self, active: _Active, event: dict[str, Any] | Outcome) -> None:
        """One event of the worker: progress is kept as the newest value, everything else becomes a numbered event."""
        self.changed.add(active.job.id)
        if isinstance(event, Outcome):
            self._end(active, event)
            return
        try:
            if event["t"] == "progress":
                stage = str(event["stage"])[:200]
                if stage != active.progress["stage"]:
                    self._tell(active, "stage", stage)
                eta_s = event["eta_s"]
                active.progress = {
                    "stage": stage,
                    "stage_fraction": _fraction(event["stage_fraction"]),
                    "fraction": _fraction(event["fraction"]),
                    **({} if eta_s is None or not 0 <= eta_s <= 1e10 else {"eta_s": float(eta_s)}),
                }
            elif event["t"] == "live":
                active.live[int(event["frame"])] = int(event["n"])
            elif event["t"] == "log":
                self._tell(active, "log", event["text"], event["level"])
            elif event["t"] == "retry":
                self._tell(active, "retry", event["text"], "warning")
        except (KeyError, TypeError, ValueError):
            log.error("job %s: its worker said %.200r", active.job.id, event)

    def _tell(self, active: _Active, kind: str, text: str, level: str = "info") -> None:
        active.told[kind] += 1
        if active.told[kind] <= EVENTS_MAX:
            self._unrecorded.append(partial(self._store.add_event, active.job.id, kind, str(text), str(level)))

    def _end(self, active: _Active, outcome: Outcome) -> None:
        active.alone = all(other.ended for other in self._active.values() if other is not active)
        active.ended = True
        self._unrecorded.append(partial(self._settle, active, outcome))
        if outcome.cause == "disk_full":  # looked at now: it may be recorded only when there is room again
            free = shutil.disk_usage(self._jobs).free
            self._ran_full[active.job.id] = (free, time.monotonic() + FULL_RETRY_S)
        self._metrics.ended(active.job.engine, outcome)

    def _settle(self, active: _Active, outcome: Outcome) -> None:
        """Record the end of an attempt. What its owner said meanwhile counts, whatever the worker did."""
        job, state = active.job, outcome.state
        if active.cancelled and state != "cancelled":
            self._clear(job.id)
            state = "cancelled"
        log.info("job %s: %s %s", job.id, state, outcome.message)
        if active.parked and not active.cancelled and (state == "cancelled" or outcome.cause):
            self._store.requeue(job.id, "queued", "The backend was stopped")
        elif outcome.cause == "disk_full" and state == "failed":
            text = f"{outcome.message}; the job waits for room and goes on from its last finished stage"
            self._store.requeue(job.id, "retry", text, outcome.hint)
            self.changed.add(job.id)
        elif outcome.cause and state == "failed":
            self._lost(job, active.progress["stage"], outcome, active.alone)
        elif state == "done":
            self._store.end(job.id, state, files=outcome.files, size=folder_bytes(self.folder(job.id)))
        else:
            text, hint = (outcome.message, outcome.hint) if state == "failed" else ("", "")
            self._store.end(job.id, state, text, hint, size=folder_bytes(self.folder(job.id)))

    def _lost(self, job: Job, stage: str, outcome: Outcome, alone: bool) -> None:
        """A worker was lost in a stage: the job is tried once more, but not where it was lost before.

        Nor when it ran out of memory although it had the machine to itself: it would again.
        """
        faults = {**job.faults, stage: job.faults.get(stage, 0) + 1}
        where = f" in '{stage}'" if stage and f"'{stage}'" not in outcome.message else ""
        hopeless = outcome.cause == "out_of_memory" and alone
        self.changed.add(job.id)
        if hopeless or faults[stage] > 1 or sum(faults.values()) >= FAULTS_MAX:
            again = " again" if faults[stage] > 1 else ""
            text = f"{outcome.message}{where}{again}"
            self._store.end(job.id, "failed", text, outcome.hint, size=folder_bytes(self.folder(job.id)))
        else:
            text = f"{outcome.message}{where}; the job goes on from its last finished stage"
            self._store.requeue(job.id, "retry", text, outcome.hint, faults)

    def _resume(self, job: str) -> None:
        known = self._store.find(job)
        if known is not None and known.state == "running":  # it may have been cancelled meanwhile
            self._store.requeue(job, "queued", "The backend was restarted")

    def _record(self) -> None:
        while self._unrecorded:
            self._unrecorded[0]()
            self._unrecorded.popleft()

    def _clear(self, job: str) -> None:
        """Leave nothing in a job's folder but its log."""
        for path in besides(self.folder(job), (LOG_NAME,)):
            self._trash.take(path)


def _fraction(value: Any) -> float:
    value = float(value)
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0
