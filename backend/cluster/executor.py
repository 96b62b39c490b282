"""RayExecutor: jobs on the nodes of a Ray cluster, through a driver process that the server starts.

The server stays small and outlives the cluster: when the driver dies, because the cluster's head is gone, its jobs have
the outcome "lost", and the executor has no room until a new driver is connected.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..server.executor import Spec
from ..server.process import LINE_MAX, REPO, WORKER_COMMAND, Outcome
from ..wire import UserError

log = logging.getLogger(__name__)

DRIVER_COMMAND = (sys.executable, "-m", "backend.cluster.driver")
#: A cluster that does not answer in so long is not there.
CONNECT_S = 90.0
#: Between two attempts to find a cluster again that was lost.
RECONNECT_S = 10.0
CLOSE_S = 10.0
#: The driver tells every 2 s how many slots there are; Ray gives up a head that is gone after 60 s.
SILENT_S, WATCH_S = 90.0, 5.0
LOST = Outcome(
    "failed", "The connection to the cluster was lost", "see that its head runs, and the log cluster.txt", cause="lost"
)


class ClusterJob:
    """A job that was given to the cluster; see `Running`."""

    def __init__(
        self,
        say: Callable[[dict[str, Any]], None],
        number: int,
        notify: Callable[[], None],
        cleanup: Callable[[Outcome], None],
    ) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | Outcome] = queue.SimpleQueue()
        self.where = "the cluster"
        self.number = number
        self._say, self._notify, self._cleanup = say, notify, cleanup
        self._ended = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether the outcome is still to be told."""
        return not self._ended.is_set()

    def cancel(self) -> None:
        """Ask the job to stop; it is killed when it does not in time."""
        self._say({"cancel": self.number})

    def kill(self) -> None:
        """End the job now, with everything it started."""
        self._say({"kill": self.number})

    def join(self, timeout_s: float) -> None:
        """Wait until the outcome is told."""
        self._ended.wait(timeout_s)

    def take(self, event: dict[str, Any] | Outcome) -> None:
        """What the driver tells of the job."""
        if not self.alive:
            return
        if isinstance(event, Outcome):
            try:
                self._cleanup(event)
            except OSError:
                log.exception("clean-up after a job on %s failed", self.where)
            self._ended.set()
        elif event["t"] == "where":
            self.where = str(event["where"])
            event = {"t": "log", "level": "info", "text": f"This job runs on {self.where}"}
        self.events.put(event)
        self._notify()


class RayExecutor:
    """As many jobs at once as the cluster at `address` ('auto': that of this machine) has slots for.

    `log_file` gets what Ray says. `share` False moves all files, even where a node sees the server's folders. Raises
    UserError when Ray is not installed or the cluster cannot be reached.
    """

    def __init__(
        self,
        address: str,
        log_file: Path,
        *,
        worker_command: Sequence[str] = WORKER_COMMAND,
        share: bool = True,
        driver_command: Sequence[str] = DRIVER_COMMAND,
        connect_s: float = CONNECT_S,
    ) -> None:
        worker = worker_command[1:]  # each node has an interpreter of its own
        self._command = [*driver_command, "--address", address, *([] if share else ["--no-share"]), "--", *worker]
        self._address, self._log_file, self._connect_s = address, log_file, connect_s
        self._numbers = itertools.count(1)
        self._jobs: dict[int, ClusterJob] = {}
        self._lock = threading.RLock()
        self._slots = 0
        self._closed = threading.Event()
        self._heard = time.monotonic()
        self._refused: tuple[str, str] | None = None
        self._connect()
        threading.Thread(target=self._watch, daemon=True).start()

    def free(self) -> int:
        """How many more jobs could be begun now."""
        with self._lock:
            return max(0, self._slots - len(self._jobs))

    def start(
        self, spec: Spec, log_file: Path, *, notify: Callable[[], None], cleanup: Callable[[Outcome], None]
    ) -> ClusterJob:
        """Begin a job on whichever node has room. Raises OSError when the cluster is not there."""
        with self._lock:
            job = ClusterJob(self._say, next(self._numbers), notify, cleanup)
            self._jobs[job.number] = job
            if not self._say({"start": job.number, "spec": {**spec, "log": str(log_file)}}):
                del self._jobs[job.number]
                raise OSError(LOST.message)
        return job

    def close(self) -> None:
        """Kill what runs, and leave the cluster."""
        self._closed.set()
        jobs = list(self._jobs.values())
        for job in jobs:
            job.kill()
        deadline = time.monotonic() + CLOSE_S / 2
        for job in jobs:
            job.join(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):
            self._driver.stdin.close()  # its order to end
        try:
            self._driver.wait(CLOSE_S / 2)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()
        self._reader.join(CLOSE_S)

    def _connect(self) -> None:
        """Start a driver and wait until it has the cluster. Raises UserError."""
        ready = threading.Event()
        self._refused = None
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
        with open(self._log_file, "ab") as errors:
            self._driver = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=REPO,
                env={**os.environ, **quiet},
                start_new_session=True,  # a Ctrl-C is for the server, which then closes this
            )
        self._reader = threading.Thread(target=self._read, args=(self._driver, ready), daemon=True)
        self._reader.start()
        answered = ready.wait(self._connect_s)
        if not answered or self._refused is not None:
            self._driver.kill()
            self._driver.wait()
            words = self._refused or ("it does not answer", "see that 'ray start --head' ran on it")
            raise UserError(f"The Ray cluster at {self._address} cannot be reached: {words[0]}", words[1])

    def _say(self, message: dict[str, Any]) -> bool:
        """Tell the driver something; whether it could be told."""
        with self._lock:
            try:
                self._driver.stdin.write(json.dumps(message).encode() + b"\n")
                self._driver.stdin.flush()
            except (OSError, ValueError):  # gone, or closed
                return False
        return True

    def _read(self, driver: subprocess.Popen, ready: threading.Event) -> None:
        """Pass on what a driver says until it is gone; then tell its jobs, and look for the cluster again."""
        was_ready = False
        for line in iter(lambda: driver.stdout.readline(LINE_MAX), b""):
            self._heard = time.monotonic()
            try:
                message = json.loads(line)
                kind = message["t"]
            except (ValueError, KeyError, TypeError):
                log.error("the cluster's driver wrote %r", line[:200])
                continue
            if kind == "refused":
                self._refused = message["message"], message["hint"]
                ready.set()
            elif kind == "slots":
                self._slots = int(message["slots"])
                was_ready = True
                ready.set()
            else:
                self._pass_on(message)
        driver.stdout.close()
        driver.wait()
        ready.set()
        if not was_ready and self._refused is None:
            self._refused = f"its driver ended with code {driver.returncode}", f"see the log {self._log_file}"
        with self._lock:
            self._slots = 0
            left, self._jobs = list(self._jobs.values()), {}
        for job in left:
            job.take(LOST)
        if was_ready and not self._closed.is_set():
            log.warning("the connection to the cluster at %s was lost", self._address)
            threading.Thread(target=self._find_again, daemon=True).start()

    def _pass_on(self, message: dict[str, Any]) -> None:
        job = self._jobs.get(message.pop("job", 0))
        if job is None:
            return
        if message["t"] != "outcome":
            job.take(message)
            return
        with self._lock:  # before it is told: who hears of it may have another job at once
            self._jobs.pop(job.number, None)
        job.take(Outcome(**{k: v for k, v in message.items() if k != "t"}))

    def _watch(self) -> None:
        """End a driver that says nothing any more; what follows is as if it had ended by itself."""
        while not self._closed.wait(min(WATCH_S, SILENT_S)):
            if time.monotonic() - self._heard > SILENT_S and self._slots:
                log.error("the cluster's driver said nothing for %.0f s", SILENT_S)
                self._driver.kill()

    def _find_again(self) -> None:
        while not self._closed.wait(RECONNECT_S):
            try:
                self._connect()
                if self._closed.is_set():
                    self._driver.kill()
                log.info("the cluster at %s is there again", self._address)
                return
            except (UserError, OSError) as error:
                log.info("%s", error)
