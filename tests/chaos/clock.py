"""A wall clock that jumps, for a server under test: what a battery, a careless hand or a time server does."""

from __future__ import annotations

import os
import time
from pathlib import Path


def fake_wall_clock() -> None:
    """Shift `time.time` of this process by the seconds in the file KINORA_TEST_CLOCK, whenever that file changes.

    Nothing happens without the variable; `time.monotonic` stays true, as it does on a real machine.
    """
    named = os.environ.get("KINORA_TEST_CLOCK")
    if not named:
        return
    file, true_time = Path(named), time.time

    def jumped() -> float:
        try:
            return true_time() + float(file.read_text(encoding="ascii"))
        except (OSError, ValueError):  # just being written
            return true_time()

    time.time = jumped
