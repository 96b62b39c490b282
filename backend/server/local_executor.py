"""LocalExecutor: jobs in worker processes on this machine, one at a time for each device."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..machine import nvidia
from ..wire import UserError
from .executor import Spec
from .process import WORKER_COMMAND, Outcome, WorkerProcess

AUTO = "auto"
VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"


class LocalExecutor:
    """One slot for each name in `devices` ('auto': whatever torch finds; 'cuda:1': that card alone; 'cpu').

    A worker sees no card but its own, so that all it takes there is its own and is free when it ends.
    """

    def __init__(self, command: Sequence[str] = WORKER_COMMAND, devices: Sequence[str] = (AUTO,)) -> None:
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
        self.free()  # forgets those that ended
        device = next(d for d in self._devices if d not in self._running)
        told, environment = seen_alone(device, os.environ)
        worker = WorkerProcess(
            spec if device == AUTO else {**spec, "device": told},
            log_file,
            command=self._command,
            environment=environment,
            notify=notify,
            cleanup=cleanup,
        )
        worker.where = "this machine" if device == AUTO else device
        self._running[device] = worker
        return worker

    def close(self) -> None:
        """Kill what runs."""
        for worker in self._running.values():
            worker.kill()
        for worker in self._running.values():
            worker.join(timeout_s=5)


def devices_of(text: str) -> list[str]:
    """The devices that `serve --devices` names: 'auto', 'cpu', 'cuda:0,cuda:1', or 'all' for every card here.

    Raises UserError for a name that is none of these, one that is given twice, and for a card that is not there as far
    as NVIDIA's tool knows.
    """
    cards = len(nvidia("index").splitlines())
    if text == "all":
        if not cards:
            raise UserError("NVIDIA's tool finds no graphics card here", "leave --devices out, or name them: cuda:0")
        return [f"cuda:{n}" for n in range(cards)]
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not re.fullmatch(r"auto|cpu|cuda:\d{1,2}", name):
            raise UserError(f"'{name}' is no device", "give auto, cpu, all, or cards such as cuda:0,cuda:1")
        if names.count(name) > 1 or (name == AUTO and len(names) > 1):
            raise UserError(f"The device {name} cannot share a server's devices ({text})", "name each card once")
        if name.startswith("cuda:") and cards and int(name[5:]) >= cards:
            raise UserError(f"There is no card {name}: this machine has {cards}", "cards count from cuda:0")
    return names


def seen_alone(device: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The name of a device in a process that sees it alone, and the variables that make it so.

    Cards are numbered as NVIDIA's tool does, or among those that this process may see itself.
    """
    if device == "cpu":
        return "cpu", {VISIBLE: ""}
    if not device.startswith("cuda:"):
        return device, {}
    number = int(device[5:])
    mine = [name for name in environment.get(VISIBLE, "").split(",") if name]
    card = mine[number] if number < len(mine) else str(number)
    return "cuda:0", {VISIBLE: card, ORDER: environment.get(ORDER, "PCI_BUS_ID")}
