"""The ladder: how much at once fitted into a device's memory, remembered from job to job.

Work that runs out of memory goes on with less at once. That costs a failed attempt, and a later job on the same device
with pictures of the same size would pay it again; so it starts where the earlier one ended. A step is taken back when
clearly more memory is free than when it was taken: then it was another program that had the rest.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from .wire import UserError

log = logging.getLogger(__name__)

#: What cv2.error.code is when OpenCV got no memory (CV_StsNoMem).
OPENCV_NO_MEMORY = -4
#: What torch and the libraries below it say in errors of another class when an allocation failed.
ALLOCATION_FAILED = ("ALLOC_FAILED", "out of memory", "can't allocate memory", "not enough memory")
#: With so many times the free memory of then, more is tried again.
MORE_FREE = 1.25
#: Entries that are kept; the oldest go first.
ENTRIES_MOST = 500


class NoRoom(UserError):
    """An engine's own word that something does not fit into memory at this resolution."""


@dataclass(frozen=True)
class Ladder:
    """The steps in a small JSON `file`, {what: [size, bytes that were free]}; what cannot be read is forgotten."""

    file: Path

    def begin(self, what: str, planned: int, free: int) -> int:
        """How many at once to begin with: `planned`, or the fewer that an earlier job ended with."""
        size, free_then = self._entries().get(what, (planned, free))
        return planned if free > MORE_FREE * free_then else max(1, min(planned, size))

    def keep(self, what: str, size: int, free: int) -> None:
        """`size` at once fitted when `free` bytes were free before the work, and more did not."""
        entries = self._entries()
        entries.pop(what, None)
        entries[what] = (size, free)
        beside = self.file.with_name(f".{self.file.name}.partial-{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(dict(list(entries.items())[-ENTRIES_MOST:])), encoding="utf-8")
            os.replace(beside, self.file)
        except OSError as error:
            log.info("the step that fitted is not kept: %s", error)

    def _entries(self) -> dict[str, tuple[int, int]]:
        try:
            told = json.loads(self.file.read_text(encoding="utf-8"))
            return {str(what): (int(size), int(free)) for what, (size, free) in told.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def whose_memory(error: BaseException) -> str:
    """Whose memory an error says to have run out, '' when it says no such thing. torch is known by name alone."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "OutOfMemoryError" in names or ("RuntimeError" in names and any(t in text for t in ALLOCATION_FAILED)):
        return "the graphics card" if "CU" in text or "HIP" in text else "this machine"
    if "MemoryError" in names or getattr(error, "code", None) == OPENCV_NO_MEMORY:
        return "this machine"
    return ""
