"""The launcher: finds, starts and stops the backend of this machine; see docs/protocol.md for the files it reads."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from .link import Lost, open_dealer
from .wire import paths
from .wire.connection import Connection
from .wire.errors import ProtocolError, UserError
from .wire.framing import decode, encode
from .wire.messages import check_reply

PING_S = 1.0
STOP_S = 5.0
START_S = 60.0


@dataclass
class LocalBackend:
    """A backend that was started here; `earlier` is the instance that the connection file named before."""

    process: subprocess.Popen[bytes]
    log_file: Path
    earlier: str
    started: float

    def poll(self) -> Connection | None:
        """Its connection once it listens, None until then. Raises UserError when it does not come up."""
        # Until the server listens there is no file, or still that of an earlier one.
        with contextlib.suppress(UserError):
            connection = Connection.read(paths.connection_file())
            if connection.instance != self.earlier:
                return connection
        if self.process.poll() is not None:
            raise UserError(f"The backend did not start: {self._last_line()}", f"see {self.log_file}")
        if time.monotonic() - self.started > START_S:
            self.process.kill()
            raise UserError(f"The backend did not start within {START_S:.0f} s", f"see {self.log_file}")
        return None

    def _last_line(self) -> str:
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {self.process.returncode}"


def find_running() -> Connection | None:
    """The connection of the backend that runs on this machine and answers, None when none does."""
    try:
        connection = Connection.read(paths.connection_file())
        with _talk(connection) as ask:
            ask("ping", PING_S)
        return connection
    except (UserError, Lost):
        return None


def start(python: Path | None = None, repo: Path | None = None) -> LocalBackend:
    """Start `python -m backend serve` in the checkout `repo`; both default to what was installed last.

    Raises UserError when no backend is installed or it cannot be run.
    """
    if python is None or repo is None:
        last_python, last_repo = installed()
        python, repo = python or last_python, repo or last_repo
    if not (repo / "backend" / "__main__.py").is_file():
        raise UserError(f"There is no backend in {repo}", "choose the folder of Kinora's checkout")
    log_file = paths.make_private(paths.logs_folder()) / "server.log"
    try:
        earlier = Connection.read(paths.connection_file()).instance
    except UserError:
        earlier = ""
    alone: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    # Blender's own Python must not leak into the backend's.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    command = [str(python), "-m", "backend", "serve"]
    try:
        with open(log_file, "wb") as log:
            process = subprocess.Popen(
                command, cwd=repo, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **alone
            )
    except OSError as error:
        raise UserError(f"{python} cannot be run ({error.strerror})", "install the backend again") from error
    return LocalBackend(process, log_file, earlier, time.monotonic())


def stop(connection: Connection) -> None:
    """Ask a backend of this machine, of any version, to end and wait a moment. Raises UserError when it declines."""
    try:
        with _talk(connection) as ask:
            ask("shutdown", STOP_S, how="now")
    except Lost:
        return  # it is gone already
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and _is_named(connection):
        time.sleep(0.05)


def _is_named(connection: Connection) -> bool:
    """Whether the connection file still names this very backend."""
    try:
        return Connection.read(paths.connection_file()).instance == connection.instance
    except UserError:
        return False


def installed() -> tuple[Path, Path]:
    """Interpreter and checkout of the backend that was installed last. Raises UserError when there is none."""
    pointer = paths.backend_pointer()
    hint = "run 'python3 install_deps.py backend' in Kinora's folder"
    try:
        data = json.loads(pointer.read_text(encoding="utf-8"))
        return Path(data["python"]), Path(data["repo"])
    except FileNotFoundError as error:
        raise UserError("No backend is installed on this machine", hint) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{pointer} cannot be read ({error})", hint) from error


@contextmanager
def _talk(connection: Connection) -> Iterator[Any]:
    """A function that asks one thing after the other and waits; Lost when no answer comes in time."""
    context = zmq.Context()
    try:
        socket = open_dealer(context, connection)
        numbers = iter(range(1, 1000))

        def ask(kind: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
            if not socket.poll(int(timeout_s * 1000), zmq.POLLOUT):
                raise Lost("The backend does not answer")
            socket.send_multipart(encode({"t": kind, "id": next(numbers), **fields}))
            if not socket.poll(int(timeout_s * 1000)):
                raise Lost("The backend does not answer")
            try:
                header, frames = decode(socket.recv_multipart())
                check_reply(header, frames)
            except ProtocolError as error:
                raise Lost(f"The backend answered with what this add-on does not know ({error})") from error
            if header["t"] == "error":
                raise UserError(header["message"], header["hint"])
            return header

        yield ask
    finally:
        context.destroy(linger=0)
