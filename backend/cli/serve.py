"""`serve`: run the server."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from ipaddress import ip_address

from .. import logs
from ..cluster import ray_executor
from ..machine import described
from ..server.broker import Broker
from ..server.executor import Executor
from ..server.keys import load_keys
from ..server.local_executor import LocalExecutor, devices_of
from ..server.retention import Keeping
from ..server.supervisor import Supervisor
from ..wire import Connection, UserError, paths

log = logging.getLogger(__name__)

#: What --on-stop says -> what the broker is told.
HOW = {"finish": "drain", "park": "park"}


def serve(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Run the server until it is stopped."""
    remote = not _is_loopback(options.host)
    if remote and not options.allow_remote:
        raise UserError(
            f"{options.host} can be reached from other machines",
            "add --allow-remote if that is meant, or leave --host out and use 'ssh -L'",
        )
    home, supervisor = paths.make_private(paths.home()), Supervisor()
    try:
        broker = Broker(
            home,
            options.host,
            options.port,
            executor=executor(options, worker_command),
            gpu=described(),
            beat=supervisor.beat,
            keeping=keeping(options),
        )
    except UserError as error:
        where = _running(home) if "runs already" in error.message else ""
        raise UserError(f"{error.message}{where}", error.hint) from error
    keys = load_keys(home)
    logs.conceal(keys.server_secret, keys.client_secret)
    to_file = logs.to_file(home)
    if remote:
        log.warning("other machines can reach this server; only clients with an authorised key are let in")
    _stop_on_signals(broker, options.on_stop, supervisor)
    print(f"Kinora listens on {broker.connection.address}; clients here find it by {paths.connection_file(home)}")
    sys.stdout.flush()
    with contextlib.suppress(RuntimeError, OSError):  # nothing to tell it to
        faulthandler.enable()  # a watchdog aborts a server that hangs: where it hung is told
    try:
        broker.run()
    finally:
        supervisor.tell("STOPPING=1")
        logging.getLogger().removeHandler(to_file)
        to_file.close()
    return 0


def executor(options: argparse.Namespace, worker_command: Sequence[str]) -> Executor:
    """Where the options let jobs run. Raises UserError for devices or a cluster that are not there."""
    if options.executor == "ray":
        return ray_executor(options.ray_address, worker_command)
    return LocalExecutor(worker_command, devices_of(options.devices))


def keeping(options: argparse.Namespace) -> Keeping:
    """For how long and how much the options let the server keep. Raises UserError for what cannot be meant."""
    if not 0 < options.keep_days < 36500 or (options.quota_gb is not None and not 0 < options.quota_gb < 1e6):
        raise UserError("--keep-days and --quota-gb have to be above 0", "leave them out for 14 days and no limit")
    quota = None if options.quota_gb is None else int(options.quota_gb * 1024**3)
    return Keeping(keep_days=options.keep_days, quota_bytes=quota)


def _stop_on_signals(broker: Broker, on_stop: str, supervisor: Supervisor) -> None:
    """The first signal to stop finishes or parks the running jobs, the second one ends them."""
    heard: list[int] = []

    def stop(number: int, _frame: object) -> None:
        heard.append(number)
        how = HOW[on_stop] if len(heard) == 1 else "now"
        supervisor.tell("STOPPING=1")
        broker.stop(how)

    for name in ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP"):  # a closed console is a reason to stop as well
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores SIGHUP: let it
            signal.signal(number, stop)


def _running(home) -> str:
    """Where the server that runs already is, for the message that refuses a second one."""
    try:
        running = Connection.read(paths.connection_file(home))
    except UserError:
        return ""
    return f" (process {running.pid}, {running.address})"


def _is_loopback(host: str) -> bool:
    if ":" in host:
        raise UserError(f"{host} is an IPv6 address, and the server listens on IPv4 alone", "give one of those")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        return ip_address(socket.gethostbyname(host)).is_loopback
    except OSError as error:
        raise UserError(f"{host} is not an address of this machine ({error})", "leave --host out") from error
