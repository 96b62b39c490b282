"""`serve` and `invite`: the server, and keys for clients on other machines."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address

from ..server.broker import Broker
from ..server.keys import invite as make_invitation
from ..wire import Connection, UserError, paths
from .doctor import device

log = logging.getLogger(__name__)


def serve(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Run the server until it is stopped."""
    if not _is_loopback(options.host):
        if not options.allow_remote:
            raise UserError(
                f"{options.host} can be reached from other machines",
                "add --allow-remote if that is meant, or leave --host out and use 'ssh -L'",
            )
        log.warning("other machines can reach this server; only clients with an authorised key are let in")
    home = paths.make_private(paths.home())
    try:
        broker = Broker(home, options.host, options.port, worker_command=worker_command, gpu=device())
    except UserError as error:
        raise UserError(f"{error.message}{_running(home)}", error.hint) from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: broker.stop())
    print(f"Kinora listens on {broker.connection.address}; clients here find it by {paths.connection_file(home)}")
    sys.stdout.flush()
    broker.run()
    return 0


def invite(options: argparse.Namespace) -> int:
    """Write a connection file for a client on another machine."""
    home = paths.make_private(paths.home())
    if options.out.exists():
        raise UserError(f"{options.out} exists", "choose another name; an invitation is for one client")
    make_invitation(home, f"tcp://{options.host}:{options.port}").write(options.out.absolute())
    print(f"{options.out} lets one client in; bring it there by a safe way and choose it in the add-on's preferences")
    return 0


def _running(home) -> str:
    """Where the server that runs already is, for the message that refuses a second one."""
    try:
        running = Connection.read(paths.connection_file(home))
    except UserError:
        return ""
    return f" (process {running.pid}, {running.address})"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        return ip_address(socket.gethostbyname(host)).is_loopback
    except OSError as error:
        raise UserError(f"{host} is not an address of this machine ({error})", "leave --host out") from error
