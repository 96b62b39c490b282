"""The heap while pieces of a megabyte come and go: kept by the process, and given back to the system once it is quiet.

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
KEPT = 256 * 2**20
QUIET_S = 1.0


class Heap:
    """Makes the C library keep what is freed; `tick`, called often, gives it back when `used` was not for a while."""

    def __init__(self) -> None:
        self._used_at: float | None = None
        self._libc: ctypes.CDLL | None = None
        if sys.platform == "linux":
            with contextlib.suppress(OSError, AttributeError):  # not glibc
                libc = ctypes.CDLL(None)
                libc.malloc_trim.argtypes = [ctypes.c_size_t]
                libc.mallopt(_M_MMAP_THRESHOLD, LARGE)
                libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
                self._libc = libc

    def used(self) -> None:
        """A large message was there."""
        self._used_at = time.monotonic()

    def tick(self) -> None:
        """Give back what nobody needed for QUIET_S."""
        if self._used_at is not None and time.monotonic() - self._used_at > QUIET_S:
            self._used_at = None
            if self._libc is not None:
                self._libc.malloc_trim(0)
