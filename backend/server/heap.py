"""The heap while pieces of a megabyte come and go: kept by the process for a moment, not given back with each of them.

glibc returns each large buffer to the system when it is freed; getting its pages anew, zeroed, costs a transfer a third
of its speed. Elsewhere nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGE = 32 * 2**20  # the most that glibc takes
KEPT = 16 * 2**20
TRIM_S = 1.0


class Heap:
    """Makes the C library keep what is freed; `tick`, called often, gives it back once every TRIM_S."""

    def __init__(self) -> None:
        self._trimmed_at = time.monotonic()
        self._libc: ctypes.CDLL | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):  # not glibc
                libc = ctypes.CDLL(None)
                libc.malloc_trim.argtypes = [ctypes.c_size_t]
                libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
                libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
                self._libc = libc

    def tick(self) -> None:
        """Give back what nobody needs."""
        now = time.monotonic()
        if self._libc is not None and now - self._trimmed_at > TRIM_S:
            self._trimmed_at = now
            self._libc.malloc_trim(0)
