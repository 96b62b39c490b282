"""Pulse: whether a worker that says nothing still works, by what the kernel tells of its process.

A worker's heartbeat comes from a thread, so it falls silent in every call that keeps the interpreter's lock: loading
torch from a slow disk, or a solver written in C++. Such a call uses the processor, or waits for the disk, and must not
be killed. A process that does neither and says nothing is stopped, or waits for what never comes. One that burns the
processor for ever without a word looks like a very long call, so it gets very long.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

#: A worker says something at least so often.
HEARTBEAT_S = 1.0
#: The parent looks so often, and at the process itself after so much silence.
LOOK_S = 1.0
QUIET_S = 3.0
#: Without a word and without a sign of life for so long, a worker hangs: seen within 15 s.
STILL_MOST_S = 8.0
#: Without a word, though with signs of life.
SILENT_MOST_S = 900.0
#: Where the kernel tells nothing of a process (not Linux), silence alone must do.
SILENT_BLIND_S = 180.0
#: Processor seconds a second that are work; threads of libraries that only look around use less.
WORKING = 0.05


@dataclass(frozen=True)
class Signs:
    """What a process has used so far, and what its threads are at now.

    `cpu_s` is processor time, `disk` counts pages and bytes that came from the disk; `wants` is whether a thread runs,
    waits for a processor or for the disk; `stopped` whether a signal stopped it.
    """

    cpu_s: float
    disk: int
    wants: bool
    stopped: bool


def signs_of(pid: int) -> Signs | None:
    """The signs of a process; None where the system does not tell, or it is gone. proc(5) has the fields."""
    if sys.platform != "linux":
        return None
    import os

    folder = Path(f"/proc/{pid}")
    try:
        whole = _stat(folder / "stat")
        states = {_stat(thread / "stat")[0] for thread in (folder / "task").iterdir()}
    except (OSError, IndexError):
        return None
    try:
        io = dict(line.split(": ") for line in (folder / "io").read_text().splitlines())
        moved = int(io["read_bytes"]) + int(io["write_bytes"])
    except (OSError, ValueError, KeyError):  # another user's, or a kernel that does not count
        moved = 0
    cpu_s = (int(whole[11]) + int(whole[12])) / os.sysconf("SC_CLK_TCK")
    return Signs(cpu_s, int(whole[9]) + moved, bool(states & {"R", "D"}), "T" in states)


def _stat(path: Path) -> list[str]:
    """The fields after the name, which may hold anything: the state first."""
    return path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


class Pulse:
    """Watches one worker: `heard` at each word of it, `look` every LOOK_S."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._silent_s = self._still_s = 0.0
        self._before: Signs | None = None

    def heard(self) -> None:
        """The worker said something."""
        self._silent_s = self._still_s = 0.0
        self._before = None

    def look(self, passed_s: float) -> str:
        """'' while the worker may be at work, else what is wrong; `passed_s` is the time since the last look."""
        passed_s = min(passed_s, 2 * LOOK_S)  # more: the parent itself was stopped, and the worker may have been too
        self._silent_s += passed_s
        if self._silent_s < QUIET_S:
            return ""
        now, before = signs_of(self.pid), self._before
        self._before = now
        if now is None:
            return f"it said nothing for {self._silent_s:.0f} s" if self._silent_s > SILENT_BLIND_S else ""
        if self._silent_s > SILENT_MOST_S:
            return f"it worked on without a word for {self._silent_s / 60:.0f} minutes"
        works = before is None or now.cpu_s - before.cpu_s >= WORKING * passed_s or now.disk > before.disk
        # A first look has nothing to compare with: at a standstill it is one second late, no more.
        self._still_s = 0.0 if not now.stopped and (works or now.wants) else self._still_s + passed_s
        if self._still_s < STILL_MOST_S:
            return ""
        return "it was stopped from outside" if now.stopped else f"it did nothing at all for {self._silent_s:.0f} s"
