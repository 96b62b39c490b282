"""`ping` and `stop`: whether the server answers, and asking it to end."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..wire import Connection, UserError, paths
from .talk import talk

GONE_S = {"now": 15.0, "park": 120.0, "drain": float("inf")}  # how long the server may take
LOOK_S = 0.1


def ping(options: argparse.Namespace) -> int:
    """Say who answers and how fast. Raises UserError when nobody does."""
    connection = chosen(options.connection)
    with talk(connection) as ask:
        began = time.monotonic()
        ask("ping")
        took_ms = 1000 * (time.monotonic() - began)
        hello = ask("hello")
    print(f"{hello['server']} at {connection.address} answers in {took_ms:.0f} ms; protocol {hello['ver']}")
    return 0


def stop(options: argparse.Namespace) -> int:
    """Ask the server to end and wait until it has. Raises UserError when there is none or it does not end."""
    connection = chosen(options.connection)
    with talk(connection, greet=False) as ask:
        ask("shutdown", how=options.how)
    words = {"now": "ends", "park": "parks its jobs", "drain": "finishes the jobs that run"}[options.how]
    print(f"The server at {connection.address} {words}", flush=True)
    deadline = time.monotonic() + GONE_S[options.how]
    while _is_there(connection):
        if time.monotonic() > deadline:
            raise UserError("The server has not ended", "try 'python -m backend stop --now', and look at its log")
        time.sleep(LOOK_S)
    return 0


def chosen(file: Path | None) -> Connection:
    """The connection in a file, or that of the server on this machine. Raises UserError when there is none."""
    return Connection.read(file or paths.connection_file())


def _is_there(connection: Connection) -> bool:
    """Whether the connection file of this machine still names this run of the server."""
    try:
        return bool(connection.instance) and Connection.read(paths.connection_file()).instance == connection.instance
    except UserError:
        return False
