"""Run: progress, cancellation, device, seed and timings of one job, as one explicit argument."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .ladder import Ladder
from .sharing import Sharing
from .stage_memory import StageMemory, digest
from .wire import Cancelled, LiveFrame

Item = TypeVar("Item")
Result = TypeVar("Result")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a job is: the stage, its own fraction, the fraction of the whole, seconds left (None: unknown)."""

    stage: str
    stage_fraction: float
    fraction: float
    eta_s: float | None


@dataclass
class Run:
    """One job's progress and cancellation.

    `report` gets a `Progress` at most `reports_per_second` times a second (and at each stage's start and end);
    `is_cancelled` is asked at every step. `plan` lists (stage, expected share of the time). `memory` keeps results of
    costly stages from job to job; None for none.
    """

    report: Callable[[Progress], None] = lambda progress: None
    is_cancelled: Callable[[], bool] = lambda: False
    work_dir: Path | None = None  # scratch space that the caller deletes
    device: str = "cpu"  # a name of torch, or "auto" (see device.py)
    threads: int = 0  # 0: as many as the machine has
    seed: int = 0
    plan: Sequence[tuple[str, float]] = ()
    reports_per_second: float = 5.0
    memory: StageMemory | None = None
    timings: list[tuple[str, float]] = field(default_factory=list)
    show_frame: Callable[[LiveFrame], None] | None = None  # called from any thread; None: nobody watches
    ladder: Ladder | None = None  # how much at once fitted on earlier jobs' devices
    retried: Callable[[str], None] = lambda text: None  # gets what `retry` says
    decoding: Callable[[], AbstractContextManager[None]] = nullcontext  # limits for the time that footage is decoded
    sharing: Sharing | None = None  # with other processes that make pieces of the same stages; None: it is alone

    _stage: str = ""
    _done: float = 0.0
    _share: float = 0.0
    _fraction: float = 0.0
    _last_report: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    @property
    def workers(self) -> int:
        """How many threads may work at once."""
        return self.threads or os.cpu_count() or 1

    def check(self) -> None:
        """Raise Cancelled when the user asked for it."""
        if self.is_cancelled():
            raise Cancelled("Cancelled")

    def show(self, frames: Callable[[], Iterable[LiveFrame | None]]) -> None:
        """Let whoever watches see what is known of some frames now; `frames` makes them, and not for nobody.

        It is a favour: a frame may be dropped, and what fails here is logged and does not touch the job.
        """
        if self.show_frame is None:
            return
        try:
            for live in frames():
                if live is not None:
                    self.show_frame(live)
        except Exception:
            log.exception("a live frame could not be shown")
            self.show_frame = None

    @contextmanager
    def stage(self, name: str, part: float = 1.0) -> Iterator[None]:
        """A named part of the job: its time is kept, its share of the whole comes from `plan`.

        A stage that is entered several times says each time which `part` of it this is.
        """
        self.check()
        total = sum(share for _, share in self.plan) or 1.0
        self._stage, self._share = name, part * dict(self.plan).get(name, 0.0) / total
        began = time.monotonic()
        log.info("%s", name)
        self._send(0.0, force=True)
        yield
        self._send(1.0, force=True)
        self._done += self._share
        taken = time.monotonic() - began
        earlier = dict(self.timings)
        if name in earlier:
            self.timings[:] = [(n, t + taken if n == name else t) for n, t in self.timings]
        else:
            self.timings.append((name, taken))

    def steps(self, items: int | Iterable[Item], total: int | None = None) -> Iterator[Any]:
        """Iterate with progress: a number of steps or any sized iterable; checks for cancellation at each."""
        sequence: Iterable[Any] = range(items) if isinstance(items, int) else items
        count = total if total is not None else len(sequence)  # type: ignore[arg-type]
        for i, item in enumerate(sequence):
            self.check()
            self._send(i / max(count, 1))
            yield item
        self.check()

    def progress(self, stage_fraction: float) -> None:
        """Say how far the current stage is, for work that is not a loop; checks for cancellation."""
        self.check()
        self._send(stage_fraction)

    def retry(self, text: str) -> None:
        """Say that something did not fit and goes on in another way: `text` is for the user."""
        log.warning("%s", text, extra={"told": True})
        self.retried(text)

    def remember(
        self,
        what: str,
        made_from: Mapping[str, Any],
        compute: Callable[[], Result],
        types: Iterable[type] = (),
        least_s: float = 0.0,
    ) -> Result:
        """`compute()`, or what an earlier job had from it for the same `made_from`: everything that it reads.

        `types` are the dataclasses in the result; see `StageMemory.remember`.
        """
        if self.memory is None:
            return compute()
        return self.memory.remember(what, made_from, compute, types, self.check, least_s)

    def shares(self, frames: int, all_bytes: int) -> bool:
        """Whether a stage over so many frames, whose pieces take so many bytes, is made together with others."""
        if self.sharing is None or self.memory is None:
            return False
        return frames >= self.sharing.least_frames and all_bytes <= self.memory.limit_bytes // 2

    def pieces(
        self, what: str, made_from: Mapping[str, Any], count: int, compute: Callable[[int], Result]
    ) -> Iterator[tuple[int, Result]]:
        """(number, result) of the pieces of a stage that `shares`; a helper has only those that it makes itself.

        `compute(number)` makes one from `made_from`, and nothing else.
        """
        assert self.sharing is not None
        assert self.memory is not None
        for done, piece in enumerate(self.sharing.order(count)):
            self.progress(done / count)
            key = {**made_from, "piece": piece, "of": count}
            if self.sharing.helper is None or not self.memory.knows(what, key):
                yield piece, self.remember(what, key, partial(compute, piece))

    def ask_for_help(self, frames: int, what: str, made_from: Mapping[str, Any]) -> None:
        """Let others make pieces of a stage, where the clip is long enough and the whole stage is not known."""
        if self.shares(frames, 0) and not self.memory.knows(what, made_from):
            self.sharing.ask()

    def content(self, array: np.ndarray | None) -> str:
        """What an array holds, as text for `made_from` where it is asked for often; empty without a memory."""
        return "" if self.memory is None or array is None else digest(array, self.check)

    def _send(self, stage_fraction: float, force: bool = False) -> None:
        now = time.monotonic()
        if not force and now - self._last_report < 1.0 / self.reports_per_second:
            return
        self._last_report = now
        self._fraction = max(self._fraction, min(1.0, self._done + self._share * min(stage_fraction, 1.0)))
        elapsed = now - self._started
        eta_s = elapsed * (1 - self._fraction) / self._fraction if self._fraction > 0.03 else None
        self.report(Progress(self._stage, min(stage_fraction, 1.0), self._fraction, eta_s))
