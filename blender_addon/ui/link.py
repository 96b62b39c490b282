"""Finding, starting and leaving a backend, in threads of its own: Blender's window never waits for it."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..wire.connection import Connection
from ..wire.errors import UserError
from .preferences import Backend

if TYPE_CHECKING:
    from ..client import Client
    from ..launcher import LocalBackend

log = logging.getLogger(__name__)


def is_loopback(address: str) -> bool:
    """True when `tcp://host:port` stays on this computer."""
    host = urlsplit(address).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Link:
    """An open way to a backend. `local` is the process when it was started from here, and ends with Blender."""

    connection: Connection
    client: Client
    local: LocalBackend | None

    def close(self, stop_backend: bool) -> None:
        """Leave the backend; stop it as well when asked to. Waits for the client's thread."""
        from .. import launcher

        self.client.stop()
        if stop_backend:
            launcher.stop(self.connection)


class Opening:
    """A backend being found or started; `result` gives the link once it stands."""

    def __init__(self, choice: Backend, online_access: bool) -> None:
        self.choice = choice
        self._online_access = online_access
        self._abandoned = threading.Event()
        self._link: Link | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._open, name="kinora-open", daemon=True)
        self._thread.start()

    def result(self) -> Link | None:
        """The link, or None while it is being made. Raises what went wrong, UserError for what the user can fix."""
        if self._thread.is_alive():
            return None
        if self._error is not None:
            raise self._error
        return self._link

    def abandon(self, timeout_s: float = 0.0) -> None:
        """Give up: what was started for it is stopped again."""
        self._abandoned.set()
        self._thread.join(timeout_s)

    def _open(self) -> None:
        try:
            link = self._remote() if self.choice.remote else self._local()
            if self._abandoned.is_set() and link is not None:
                link.close(stop_backend=link.local is not None)
                link = None
            self._link = link
        except Exception as error:  # handed to whoever asks for the result
            self._error = error

    def _remote(self) -> Link:

        self.choice.check()
        connection = Connection.read(self.choice.connection_file)
        if not connection.is_loopback and not self._online_access:
            raise UserError(
                "Blender is set to stay offline",
                "allow online access in Preferences > System > Network, then try again",
            )
        return self._link_to(connection, None)

    def _local(self) -> Link | None:
        from .. import launcher

        running = launcher.find_running()
        if running is not None:
            return self._link_to(running, None)
        local = launcher.start(repo=self.choice.folder)
        while not self._abandoned.is_set() or local.process.poll() is None:
            connection = local.poll()
            if connection is not None:
                return self._link_to(connection, local)
            self._abandoned.wait(0.1)
        return None

    def _link_to(self, connection: Connection, local: LocalBackend | None) -> Link:
        from ..client import Client

        client = Client(connection)
        client.start()
        return Link(connection, client, local)
