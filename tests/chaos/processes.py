"""Servers and clients as real processes that can be killed at any moment, and a look at what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import zmq

from backend.wire import Connection, UserError, framing, paths
from blender_addon.link import open_dealer

ROOT = Path(__file__).resolve().parents[2]
MARK = "KINORA_CHAOS_MARK"  # in the environment of everything that a test starts, so that no orphan hides
PATIENCE_S = 90.0
GROWTH_MOST = 32 * 2**20  # bytes that a server may hold more after a fault than when it was fresh


def new_mark() -> str:
    """A name for all processes of one test."""
    return uuid.uuid4().hex


def marked(mark: str) -> list[psutil.Process]:
    """The processes, other than this one, that carry the mark and are not dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark and not _is_dead(process):
                found.append(process)
    return found


def left_behind(mark: str, patience_s: float = 5.0) -> list[str]:
    """The command lines of the processes that are still there after a moment; none should be."""
    deadline = time.monotonic() + patience_s
    while (there := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [_words(process) for process in there]


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


class ServerProcess:
    """A server of its own data folder, with a port that stays when it is started again."""

    def __init__(
        self,
        home: Path,
        mark: str,
        pipeline: str = "tests.chaos.pipeline",
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.home, self.mark, self.port = home, mark, free_port()
        self.log = home.with_name(home.name + "-server.log")
        self._arguments = arguments
        self._environment = {"KINORA_TEST_PIPELINE": pipeline, **(environment or {})}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Begin; `answers` tells when it is there."""
        home = {"KINORA_HOME": str(self.home), MARK: self.mark, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.chaos.serve", "--port", str(self.port), *self._arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **home, **self._environment},
                stdin=subprocess.PIPE,  # it ends with this process
                stdout=log,
                stderr=log,
            )

    @property
    def connection(self) -> Connection:
        return Connection.read(paths.connection_file(self.home))

    def answers(self, patience_s: float = PATIENCE_S) -> float:
        """Wait for the answer to a ping; how many seconds that took. Raises AssertionError when none comes."""
        began = time.monotonic()
        while time.monotonic() - began < patience_s:
            with contextlib.suppress(UserError):  # no file yet on a first start, or one of an earlier server
                if self.connection.address.endswith(f":{self.port}") and ping(self.connection, 1.0):
                    return time.monotonic() - began
            assert self.alive, f"the server ended with code {self.process.returncode}:\n{self.tail()}"
            time.sleep(0.02)
        raise AssertionError(f"the server does not answer:\n{self.tail()}")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def stop(self, patience_s: float = PATIENCE_S) -> int:
        """End it as an operator does; its exit code."""
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience_s)

    def workers(self) -> list[psutil.Process]:
        """The processes of its jobs."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "backend.server.worker" in _words(child)]
        return []

    def rss(self) -> int:
        """Resident bytes of the server's own process."""
        return psutil.Process(self.process.pid).memory_info().rss

    def tail(self, most: int = 4000) -> str:
        """The end of its log."""
        return self.log.read_bytes()[-most:].decode(errors="replace") if self.log.exists() else ""


@contextlib.contextmanager
def server_process(home: Path, **options) -> Iterator[ServerProcess]:
    """A server that answers, is as small afterwards as before, and then gone with everything that it started."""
    it = ServerProcess(home, new_mark(), **options)
    it.start()
    try:
        it.answers()
        fresh = it.rss()
        yield it
        assert it.rss() - fresh < GROWTH_MOST
        it.stop()
        assert left_behind(it.mark) == []
    finally:
        for process in marked(it.mark):
            with contextlib.suppress(psutil.Error):
                process.kill()
        it.process.wait()


class ClientProcess:
    """tests/chaos/client.py with some orders; `said` collects its lines over all its lives."""

    def __init__(self, connection: Path, orders: list[dict], folder: Path, mark: str, *, far: bool) -> None:
        self._file = folder / "orders.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(orders))
        self._command = [sys.executable, "-m", "tests.chaos.client", str(connection), str(self._file)]
        self._command += ["--far"] if far else []
        self.log, self._mark = folder / "client.log", mark
        self.said: list[dict] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, MARK: self._mark, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, stderr=log
            )
        threading.Thread(target=self._read, args=(self.process,), daemon=True).start()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        for line in process.stdout:
            with contextlib.suppress(ValueError):  # cut off by the kill
                self.said.append(json.loads(line))


def ping(connection: Connection, patience_s: float) -> bool:
    """Whether a server answers in time, on a socket of its own."""
    context = zmq.Context()
    try:
        socket_ = open_dealer(context, connection)
        socket_.sndtimeo = int(patience_s * 1000)
        socket_.send_multipart(framing.encode({"t": "ping", "id": 1}))
        return bool(socket_.poll(int(patience_s * 1000)))
    except zmq.Again:
        return False
    finally:
        context.destroy(linger=0)


def _words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _is_dead(process: psutil.Process) -> bool:
    return process.status() == psutil.STATUS_ZOMBIE
