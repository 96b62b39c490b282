"""Retention: which jobs that have ended are forgotten, and when; never one that its client is just fetching.

Ages are told by the store's own clock (clock.py), so that a computer whose clock jumps a month ahead loses nothing.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .job import Kept

log = logging.getLogger(__name__)

DAY_S = 24 * 3600.0
GIB = 1024**3
SWEEP_S = 600.0
RECENT_S = 600.0  # a job that was used so short a time ago is left alone
AT_ONCE = 50  # jobs that are forgotten before clients are let in
ENDED_MAX = 1000  # of one client, besides what is pinned


@dataclass(frozen=True)
class Keeping:
    """What the server keeps: `keep_days` after a job ended or was last fetched, `quota_bytes` of each client (None: no
    limit), and how much of the disk stays free of jobs: none begins with less than `free_bytes`.
    """

    keep_days: float = 14.0
    quota_bytes: int | None = None
    free_bytes: int = GIB


def to_forget(kept: Iterable[Kept], now: float, keeping: Keeping) -> list[str]:
    """Ids of the jobs to forget, what was used longest ago first; `kept` are all that have ended, in that order.

    Pinned jobs stay and do not count.
    """
    loose = [job for job in kept if not job.pinned]
    held: defaultdict[str, int] = defaultdict(int)
    count: defaultdict[str, int] = defaultdict(int)
    for job in loose:
        held[job.owner] += job.bytes
        count[job.owner] += 1
    gone = []
    for job in loose:
        too_much = keeping.quota_bytes is not None and held[job.owner] > keeping.quota_bytes
        if now - job.used > RECENT_S and (
            now - job.used > keeping.keep_days * DAY_S or too_much or count[job.owner] > ENDED_MAX
        ):
            gone.append(job.id)
            held[job.owner] -= job.bytes
            count[job.owner] -= 1
    return gone


class Retention:
    """Looks for what is to be forgotten when the server starts and every SWEEP_S after.

    `look` tells the jobs to forget, `forget` forgets one: many when nobody waits yet, then one between other work.
    """

    def __init__(self, look: Callable[[], list[str]], forget: Callable[[str], None]) -> None:
        self._look, self._forget = look, forget
        self._due = 0.0
        self._waiting: deque[str] = deque()

    def sweep(self) -> None:
        """Look now, and forget what is old, or the first of it when that is much."""
        self._due = 0.0
        for _ in range(AT_ONCE):
            if not self.tick() or not self._waiting:
                return

    def tick(self) -> bool:
        """Do the next small piece, if there is one; a full disk puts it off, and the answer is False."""
        try:
            if time.monotonic() >= self._due:
                self._due = time.monotonic() + SWEEP_S
                self._waiting = deque(self._look())
            if self._waiting:
                self._forget(self._waiting.popleft())
        except (sqlite3.Error, OSError) as error:
            log.warning("what is old is not removed yet: %s", error)
            return False
        return True
