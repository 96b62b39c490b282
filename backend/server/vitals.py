"""What a worker tells of itself: a heartbeat with its memory, and at the end what the job took."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..machine import memory_free
from ..run import Progress, Run
from .pulse import HEARTBEAT_S

#: A picture of a clip that takes longer to decode than this was made to.
PICTURE_MOST_S = 300.0


class Heart:
    """Calls `beat(memory_bytes, memory_free)` every HEARTBEAT_S from a thread, and `stuck` once a clip stops it.

    `report` must see each progress report.
    """

    def __init__(self, reading: str, beat: Callable[[int, int], None], stuck: Callable[[], None]) -> None:
        self._reading, self._beat, self._stuck = reading, beat, stuck
        self._stage, self._at = "", time.monotonic()
        threading.Thread(target=self._work, name="kinora-heart", daemon=True).start()

    def report(self, progress: Progress) -> None:
        """The job went on."""
        self._stage, self._at = progress.stage, time.monotonic()

    def _work(self) -> None:
        while True:
            with contextlib.suppress(MemoryError):  # the limit on decoding holds for this thread as well
                self._beat(memory_of_process("VmRSS"), memory_free())
                if self._stage == self._reading and time.monotonic() - self._at > PICTURE_MOST_S:
                    self._stuck()
            time.sleep(HEARTBEAT_S)


def taken(run: Run) -> dict[str, Any]:
    """Outcome.report: peak memory, peak memory of the graphics card when torch used one, seconds of each stage."""
    report: dict[str, Any] = {"stages": [[name, round(seconds, 3)] for name, seconds in run.timings]}
    if peak := memory_of_process("VmHWM"):
        report["peak_memory_bytes"] = peak
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        cards = range(torch.cuda.device_count())
        report["peak_gpu_bytes"] = sum(torch.cuda.max_memory_reserved(card) for card in cards)
    return report


def memory_of_process(field: str) -> int:
    """Bytes that this process holds ('VmRSS') or once held ('VmHWM'); where Linux's list is missing, the latter."""
    status = Path("/proc/self/status")
    if status.exists():
        rows = dict(row.split(":", 1) for row in status.read_text(encoding="utf-8").splitlines())
        return 1024 * int(rows[field].split()[0])
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
