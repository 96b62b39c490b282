"""Executor: where jobs run. The scheduler gives it one job at a time and hears of each through a `Running`."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .process import Outcome

Spec = dict[str, Any]


class Running(Protocol):
    """A job that an executor has begun.

    `events` gets what the worker says (dictionaries with "t": progress, log, live, retry) and at last exactly one
    Outcome, after its process is gone. `where` names the device and machine in words.
    """

    events: queue.SimpleQueue[dict[str, Any] | Outcome]
    where: str

    def cancel(self) -> None:
        """Ask the job to stop; it is killed when it does not in time."""

    def kill(self) -> None:
        """End the job now, with everything it started."""

    def join(self, timeout_s: float) -> None:
        """Wait until the outcome is told."""


class Executor(Protocol):
    """Runs jobs in processes of their own, here or on other machines."""

    def free(self) -> int:
        """How many more jobs could be begun now."""

    def start(
        self, spec: Spec, log_file: Path, *, notify: Callable[[], None], cleanup: Callable[[Outcome], None]
    ) -> Running:
        """Begin a job (worker.py says what `spec` holds); its output goes to `log_file`.

        `notify` is called from any thread after each event, `cleanup` once the process is gone, before the outcome is
        told. Raises OSError when it cannot be begun.
        """

    def close(self) -> None:
        """Let go of what the executor holds; running jobs are killed."""
