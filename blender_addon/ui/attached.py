"""The one backend that a session is attached to: started or found, left, lost, and found dead."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import bpy

from ..wire.errors import UserError
from .backend import Backend, Opening, leave
from .preferences import BackendChoice

if TYPE_CHECKING:
    from ..client import Client

log = logging.getLogger(__name__)

QUIT_S = 3.0  # longest that Blender waits for our threads when it quits


class Attached:
    """`state` is OFF, STARTING, CONNECTING, READY or LOST."""

    def __init__(self) -> None:
        self.state = "OFF"
        self.note = ""  # what the artist should know of the backend: its machine, or why it is not there
        self.hint = ""
        self.choice = BackendChoice()
        self.same_host = False  # the backend sees this computer's files
        self.lost_at = 0.0  # when the connection broke, by time.monotonic
        self.restarted_at: float | None = None  # when another run of the same backend answered
        self._instance = ""
        self._backend: Backend | None = None
        self._opening: Opening | None = None

    @property
    def connection(self):
        """The connection in use, or None."""
        return self._backend.connection if self._backend else None

    @property
    def started_here(self) -> bool:
        """The backend is a process that this Blender started and will stop."""
        return self._backend is not None and self._backend.local is not None

    @property
    def client(self) -> Client:
        """The client in use. Raises UserError when there is no backend."""
        if self._backend is None:
            raise UserError("The backend is not connected", "press Connect, or Start")
        return self._backend.client

    def _open(self, choice: BackendChoice) -> None:
        """Find or start a backend; returns at once. Raises UserError when the choice cannot be one."""
        choice.check()
        self.choice, self.state, self.note, self.hint = choice, "STARTING", "", ""
        self._opening = Opening(choice, bpy.app.online_access)

    def _leave(self) -> None:
        """Leave the backend, and stop it when it runs on this computer; returns at once."""
        opening, backend = self._opening, self._backend
        self._opening = self._backend = None
        self.same_host, self.restarted_at, self._instance = False, None, ""
        if opening is not None:
            opening.abandon()
        if backend is not None:
            leave(backend, stop=not self.choice.remote)

    def _quit(self) -> None:
        """Leave no thread and no process of ours behind; waits for them a little."""
        opening, backend = self._opening, self._backend
        self._opening = self._backend = None
        if opening is not None:
            opening.abandon(QUIT_S)
        if backend is not None:
            leave(backend, stop=backend.local is not None).join(QUIT_S)

    def _opened(self) -> bool:
        """Whether a backend stands that was not there before."""
        if self._opening is None:
            return False
        try:
            backend = self._opening.result()
        except UserError as error:
            self._opening = None
            self._lose(error.message, error.hint)
            return False
        except Exception as error:
            log.error("the backend could not be reached", exc_info=error)
            self._opening = None
            self._lose(f"The backend could not be started: {error}", "see the system console")
            return False
        if backend is not None:
            self._opening, self._backend, self.state = None, backend, "CONNECTING"
        return backend is not None

    def _check_local(self) -> None:
        """Notice that a backend of ours has died."""
        if self._backend is not None and self._backend.ended:
            backend, self._backend = self._backend, None
            leave(backend, stop=False)
            self._lose("The backend has ended by itself", f"start it again; its log is {backend.local.log_file}")

    def _lose(self, note: str, hint: str) -> None:
        """There is no backend any more, and `note` says why."""
        self.state, self.note, self.hint = "OFF", note, hint

    def _connected(self, server: dict) -> None:
        """The backend answers, for the first time or again; perhaps it is another run of it."""
        if self._instance and server["instance"] != self._instance:
            self.restarted_at = time.monotonic()
        self._instance = server["instance"]
        self.state, self.note, self.hint = "READY", machine(server), ""
        self.same_host = server["same_host"]

    def _disconnected(self, reason: str, hint: str) -> None:
        """The connection broke; the client tries again."""
        self.lost_at = self.lost_at if self.state == "LOST" else time.monotonic()
        self.state, self.note, self.hint = "LOST", reason, hint


def machine(server: dict) -> str:
    """The machine that a backend runs on, in few words."""
    return str(server.get("gpu") or "CPU")
