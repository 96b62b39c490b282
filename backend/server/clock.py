"""A clock for ages: seconds that have passed for certain, whatever happens to the computer's own clock."""

from __future__ import annotations

import time

#: A computer that was off is believed this much, once for each start: its clock may have jumped meanwhile. What is
#: kept for two weeks is so kept through a clock that is a month ahead, and only longer over a holiday.
GAP_MOST_S = 24 * 3600.0


class AgeClock:
    """Never runs faster than time, never backwards, and goes on across restarts from what is passed in.

    `believed` is what an earlier clock said last, and `wall` the time of day then (Unix seconds).
    """

    def __init__(self, believed: float = 0.0, wall: float | None = None) -> None:
        gap = 0.0 if wall is None else time.time() - wall
        self._base = believed + min(max(gap, 0.0), GAP_MOST_S)
        self._began = time.monotonic()

    def now(self) -> float:
        """Seconds since the first of these clocks was made."""
        return self._base + time.monotonic() - self._began
