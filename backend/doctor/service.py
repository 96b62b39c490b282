"""The server of this machine: whether it answers, its port, its keys, what was left behind, and the clock."""

from __future__ import annotations

import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from ..wire import Connection, UserError, paths
from .finding import Finding, note, ok, wrong

TCP_S = 1.0
ANSWER_S = 3.0
FUTURE_S = 3600.0
PARTIAL = ("jobs/*/scratch", "jobs/.*.partial-*", "jobs/*/.*.partial-*", "uploads/*.part", "cache/.*.partial-*")
SHARED_BITS = 0o077
WORKER_MARK = b"KINORA_WORKER="


def examine(home: Path, port: int = 0) -> Iterator[Finding]:
    """Everything about the server whose data is in `home`; `port` is to be free for it, or used by it."""
    connection = _connection(home)
    running = connection is not None and is_alive(connection.pid) and answers(*_place(connection))
    yield _server(home, connection, running)
    if running:
        yield _reach(*_place(connection))
    if port:
        yield _port(port, connection if running else None)
    yield from keys(home)
    yield from _left(home, running)
    yield clock(home)


def _server(home: Path, connection: Connection | None, running: bool) -> Finding:
    if connection is None:
        return ok("server", "none runs; the add-on starts it, or 'python -m backend serve'")
    if not running:
        if is_alive(connection.pid):
            words = f"process {connection.pid} does not listen at {connection.address}"
            return note("server", words, "it starts or stops at this moment, or the connection file is an old one")
        words = f"none runs; {paths.connection_file(home)} is left from one that was killed"
        return note("server", words, "the next start replaces it and goes on with its jobs")
    try:
        told = _asked(connection)
    except UserError as error:
        words = f"process {connection.pid} at {connection.address} does not answer ({error.message})"
        return wrong("server", words, "end that process; the next start goes on with its jobs")
    words = f"{told} at {connection.address}, process {connection.pid}"
    if told != f"Kinora {__version__}":
        return note("server", f"{words}, while this is Kinora {__version__}", "stop it, so that the new one is started")
    return ok("server", words)


def _asked(connection: Connection) -> str:
    """What the server says it is, asked with the keys of this machine. Raises UserError."""
    from ..cli.talk import talk  # here: nobody needs ZeroMQ to hear that no server runs

    with talk(connection, ANSWER_S) as ask:
        ask("ping")
        return ask("hello")["server"]


def _reach(host: str, port: int) -> Finding:
    """Whether the server can be reached by other addresses of this machine than its own loopback."""
    outer = outer_address()
    if outer and answers(outer, port):
        return ok("reach", f"other machines reach it at {outer}:{port}, unless a firewall is between")
    return ok("reach", "from this machine alone; 'serve --host 0.0.0.0 --port N --allow-remote' opens it to others")


def _port(port: int, running: Connection | None) -> Finding:
    if running is not None and _place(running)[1] == port:
        return ok("port", f"{port} is the server's")
    with socket.socket() as trial:
        if sys.platform != "win32":  # where it would let two listen on one port
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError as error:
            return wrong("port", f"{port} cannot be used ({error.strerror})", "choose another with 'serve --port'")
    return ok("port", f"{port} is free")


def keys(home: Path) -> Iterator[Finding]:
    """Whether others on this machine can read the keys; nothing of the keys themselves is told."""
    if not home.is_dir():
        return
    secrets = [home, paths.server_keys(home), paths.connection_file(home), paths.authorized_keys(home)]
    if sys.platform != "win32":
        for path in secrets:
            if path.exists() and stat.S_IMODE(path.stat().st_mode) & SHARED_BITS:
                mode = "700" if path.is_dir() else "600"
                yield wrong("keys", f"{path} can be read by others", f"chmod {mode} '{path}'; new keys are safer still")
            if path.exists() and path.stat().st_uid != os.getuid():
                yield wrong("keys", f"{path} belongs to another user", f"sudo chown $USER '{path}'")
    guests = paths.authorized_keys(home)
    known = [line for line in _lines(guests) if line.strip() and not line.startswith("# ")]
    there = "the server has its keys" if paths.server_keys(home).is_file() else "made when the server first starts"
    yield ok("keys", f"{there}; {len(known)} clients on other machines are let in")


def _left(home: Path, running: bool) -> Iterator[Finding]:
    """What killed processes left behind."""
    orphans = orphaned_workers()
    if orphans:
        told = ", ".join(map(str, orphans))
        yield wrong("leftovers", f"workers without a server: process {told}", f"kill -9 {told.replace(',', '')}")
    if running or not home.is_dir():
        return  # what looks unfinished is being worked on
    partial = [path for pattern in PARTIAL for path in home.glob(pattern)]
    if partial:
        yield note("leftovers", f"{len(partial)} unfinished folders and files in {home}", "the server clears them away")


def orphaned_workers(processes: Path = Path("/proc")) -> list[int]:
    """Workers of this user whose server is gone; only Linux tells."""
    orphans = []
    for place in processes.glob("[0-9]*"):
        try:
            is_worker = any(row.startswith(WORKER_MARK) for row in (place / "environ").read_bytes().split(b"\0"))
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            words = (place / "cmdline").read_bytes()
        except (OSError, ValueError, IndexError):  # it ended, or is another user's
            continue
        if is_worker and parent == 1 and b"backend.server.worker" in words:
            orphans.append(int(place.name))
    return sorted(orphans)


def clock(home: Path) -> Finding:
    """Whether the clock is behind the newest file that Kinora wrote or is made of."""
    now = time.time()
    ours = [Path(__file__), paths.server_keys(home), paths.jobs_database(home), paths.connection_file(home)]
    newest = max(path.stat().st_mtime for path in ours if path.exists())
    told = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now)) + " UTC"
    if newest > now + FUTURE_S:
        words = f"it is {told}, but files were written {(newest - now) / 3600:.0f} h later than that"
        return note("clock", words, "set the clock: the age of jobs, and what is deleted when, follow it")
    return ok("clock", told)


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=TCP_S).close()
    except OSError:
        return False
    return True


def outer_address() -> str:
    """The address of this machine that others would use; '' without a network. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation (RFC 5737): only the route is looked up
            return probe.getsockname()[0]
        except OSError:
            return ""


def is_alive(pid: int) -> bool:
    """Whether there is a process of this number; True where the system does not tell."""
    if pid <= 0 or sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _connection(home: Path) -> Connection | None:
    try:
        return Connection.read(paths.connection_file(home))
    except UserError:
        return None


def _place(connection: Connection) -> tuple[str, int]:
    host, _, port = connection.address.removeprefix("tcp://").rpartition(":")
    return host, int(port) if port.isdigit() else 0


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
