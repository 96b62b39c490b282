"""What a service manager is told: ready, still alive, stopping (systemd's sd_notify; without systemd, nothing)."""

from __future__ import annotations

import contextlib
import os
import socket
import time

BEAT_S = 5.0


class Supervisor:
    """The socket that the environment variable NOTIFY_SOCKET names, if any."""

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")  # not for the workers
        self._ready, self._next_beat = False, 0.0

    def tell(self, state: str) -> None:
        """Say one thing, such as READY=1; a manager that does not listen is no reason to stop."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(state.encode(), address)

    def beat(self) -> None:
        """The loop turns, so the server is ready. A manager with a watchdog restarts one that is not heard for long."""
        if not self._ready:
            self._ready = True
            self.tell("READY=1")
        now = time.monotonic()
        if now >= self._next_beat:
            self._next_beat = now + BEAT_S
            self.tell("WATCHDOG=1")
