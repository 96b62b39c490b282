"""Finding, starting and leaving a backend, in threads of its own: Blender's window never waits for it."""

from __future__ import annotations

import logging
import subprocess
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..wire.connection import Connection
from ..wire.errors import UserError
from .preferences import BackendChoice

if TYPE_CHECKING:
    from ..client import Client
    from ..launcher import LocalBackend

log = logging.getLogger(__name__)

END_S = 2.0


def is_loopback(address: str) -> bool:
    """True when `tcp://host:port` stays on this computer."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Backend:
    """A backend that stands, and the client that talks to it.

    `local` is the process when it was started from here; it ends with this Blender.
    """

    connection: Connection
    client: Client
    local: LocalBackend | None

    @property
    def ended(self) -> bool:
        """The process that was started here is no more."""
        return self.local is not None and self.local.process.poll() is not None

    def close(self, stop_backend: bool) -> None:
        """Leave the backend, and stop it as well when asked to; waits for both."""
        from .. import launcher

        self.client.stop()
        if not stop_backend:
            return
        try:
            launcher.stop(self.connection)
        except UserError as error:
            log.warning("%s", error)
        if self.local is not None:
            end(self.local.process)


def end(process: subprocess.Popen) -> None:
    """Wait for a process that was asked to end, and end it when it does not."""
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        log.warning("the backend did not end by itself")
        process.kill()
        process.wait()


def leave(backend: Backend, stop: bool) -> threading.Thread:
    """Close a backend in a thread of its own."""
    closing = threading.Thread(target=backend.close, args=(stop,), name="kinora-close", daemon=True)
    closing.start()
    return closing


class Opening:
    """A backend being found or started; `result` gives it once it stands."""

    def __init__(self, choice: BackendChoice, online_access: bool) -> None:
        self.choice = choice
        self._online_access = online_access
        self._abandoned = threading.Event()
        self._handing_over = threading.Lock()  # a backend is either taken by `result` or closed, whoever comes first
        self._backend: Backend | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._open, name="kinora-open", daemon=True)
        self._thread.start()

    def result(self) -> Backend | None:
        """The backend, or None while it is being made. Raises what went wrong, UserError for what the user can fix."""
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        return self._backend

    def abandon(self, timeout_s: float = 0.0) -> None:
        """Give up: what was started for it is stopped again, also when it stands and nobody has taken it yet."""
        with self._handing_over:
            self._abandoned.set()
            backend, self._backend = self._backend, None
        if backend is None:
            self._thread.join(timeout_s)
        else:
            leave(backend, stop=backend.local is not None).join(timeout_s)

    def _open(self) -> None:
        try:
            backend = self._remote() if self.choice.remote else self._local()
            with self._handing_over:
                if not self._abandoned.is_set():
                    self._backend, backend = backend, None
            if backend is not None:
                backend.close(stop_backend=backend.local is not None)
        except Exception as error:  # handed to whoever asks for the result
            self._error = error

    def _remote(self) -> Backend:
        connection = Connection.read(self.choice.connection_file)
        if not is_loopback(connection.address) and not self._online_access:
            hint = "allow online access in Preferences > System > Network, then try again"
            raise UserError("Blender is set to stay offline", hint)
        return self._enter(connection, None)

    def _local(self) -> Backend | None:
        from .. import launcher

        running = launcher.find_running()
        if running is not None:
            return self._enter(running, None)
        local = launcher.start(repo=self.choice.folder)
        while not self._abandoned.wait(0.1):
            connection = local.poll()
            if connection is not None:
                return self._enter(connection, local)
        local.process.terminate()  # it has no work yet
        end(local.process)
        return None

    def _enter(self, connection: Connection, local: LocalBackend | None) -> Backend:
        from ..client import Client

        compact = self.choice.remote and self.choice.compact
        client = Client(connection, encoding="compact" if compact else "exact")
        client.start()
        return Backend(connection, client, local)
