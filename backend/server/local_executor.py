"""LocalExecutor: jobs in worker processes on this machine, one at a time for each device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .executor import Spec
from .process import WORKER_COMMAND, Outcome, WorkerProcess


class LocalExecutor:
    """One slot for each name in `devices` ('auto': whatever torch finds; 'cuda:1': that card alone)."""

    def __init__(self, command: Sequence[str] = WORKER_COMMAND, devices: Sequence[str] = ("auto",)) -> None:
        self._command, self._devices = command, list(devices)
        self._running: dict[str, WorkerProcess] = {}

    def free(self) -> int:
        """How many more jobs could be begun now."""
        self._running = {device: worker for device, worker in self._running.items() if worker.alive}
        return len(self._devices) - len(self._running)

    def start(
        self, spec: Spec, log_file: Path, *, notify: Callable[[], None], cleanup: Callable[[Outcome], None]
    ) -> WorkerProcess:
        """Begin a job on the first free device. Raises OSError when no process can be made."""
        device = next(d for d in self._devices if d not in self._running)
        told = spec if device == "auto" else {**spec, "device": device}
        worker = WorkerProcess(told, log_file, command=self._command, notify=notify, cleanup=cleanup)
        worker.where = "this machine" if device == "auto" else device
        self._running[device] = worker
        return worker

    def close(self) -> None:
        """Kill what runs."""
        for worker in self._running.values():
            worker.kill()
        for worker in self._running.values():
            worker.join(timeout_s=5)
