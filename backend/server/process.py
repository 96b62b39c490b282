"""WorkerProcess: one job in a child process of its own, which can always be stopped; for the server and the CLI."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..logs import bound_job_log
from . import belongings
from .endings import Vitals, oom_counts, silent_end
from .pulse import LOOK_S, Pulse

log = logging.getLogger(__name__)

REPO = Path(__file__).resolve().parent.parent.parent
WORKER_COMMAND = (sys.executable, "-m", "backend.server.worker")
CANCEL_GRACE_S = 1.0
EXIT_GRACE_S = 5.0
LINE_MAX = 16 * 1024 * 1024  # a result names each of its files, with a hash: a hundred thousand of them


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `state` is 'done', 'failed' or 'cancelled'; `files` are the capture's, with sizes.

    `bug` is set when it failed by no fault of the user's. `cause` says what became of the worker, for who may try
    again: 'crash', 'out_of_memory', 'disk_full', 'hang', 'lost' (with the machine it ran on), or '' when it had its own
    last word.
    `report` is what the job took: `peak_memory_bytes`, `stages` ([name, seconds] in order), and `peak_gpu_bytes` where
    torch was on a card; empty of a worker that could not tell.
    """

    state: str
    message: str = ""
    hint: str = ""
    bug: bool = False
    files: list[dict[str, Any]] = field(default_factory=list)
    cause: str = ""
    report: dict[str, Any] = field(default_factory=dict)


class WorkerProcess:
    """A running job. `events` gets the worker's progress, log and retry messages, and at last exactly one Outcome.

    `spec` is what worker.py reads from its standard input; the worker's output goes to the file `log_file`, and
    `environment` is added to its own. `notify` is called from another thread after each event, `cleanup` there too,
    once the process is gone with everything it started and before the outcome is told. A worker that hangs is killed.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        log_file: Path,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        environment: Mapping[str, str] | None = None,
        notify: Callable[[], None] = lambda: None,
        cleanup: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | Outcome] = queue.SimpleQueue()
        self._notify, self._cleanup = notify, cleanup
        self._told = False
        self._said: Outcome | None = None
        self._vitals = Vitals(log_file, ooms_before=oom_counts())
        self._peak_bytes = 0
        self._mark = secrets.token_hex(16)
        self.where = ""
        own_group: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(log_file, "ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=REPO,
                env={**os.environ, **(environment or {}), belongings.MARK: self._mark},
                **own_group,
            )
        self._let_go = belongings.hold(self._process)
        self.pid = self._process.pid
        self._pulse = Pulse(self.pid)
        self._closed = threading.Event()
        self._send(spec)
        self._listener = threading.Thread(target=self._relay, name="kinora-worker-relay", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="kinora-worker-watch", daemon=True)
        self._listener.start()
        self._watcher.start()

    @property
    def alive(self) -> bool:
        """Whether the outcome is still to be told."""
        return not self._told

    def cancel(self) -> None:
        """Ask the worker to stop; it is killed with all its children when it has not after CANCEL_GRACE_S."""
        if self._vitals.killed_for != "cancel":
            self._vitals.killed_for = "cancel"
            self._send({"cancel": True})
            timer = threading.Timer(CANCEL_GRACE_S, self.kill)
            timer.daemon = True
            timer.start()

    def kill(self) -> None:
        """Kill the worker and everything it started now."""
        self._vitals.killed_for = self._vitals.killed_for or "end"
        if self._process.poll() is None:
            belongings.end_all(self.pid, self._mark)

    def join(self, timeout_s: float) -> None:
        """Wait until the process is gone and its outcome told."""
        self._watcher.join(timeout_s)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            log.info("worker %d is gone", self.pid)  # its exit is reported by the watcher

    def _watch(self) -> None:
        """Wait for the end of the process, or bring it about; then tell the outcome."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._until_it_ends()
        code = self._process.wait()
        belongings.end_all(self.pid, self._mark)  # before the last of its output: a child may hold the pipe open
        self._listener.join(EXIT_GRACE_S)
        for pipe in (self._process.stdin, *([] if self._listener.is_alive() else [self._process.stdout])):
            with contextlib.suppress(OSError):  # what was still to be written to it
                pipe.close()
        self._let_go()
        report = {"peak_memory_bytes": self._peak_bytes} if self._peak_bytes else {}
        outcome = self._said or Outcome(**silent_end(code, self._vitals), report=report)
        if self._vitals.killed_for == "cancel" and outcome.state != "done":
            outcome = Outcome("cancelled", report=outcome.report)
        try:
            self._cleanup(outcome)
        except OSError:
            log.exception("clean-up after worker %d failed", self.pid)
        self._told = True
        self.events.put(outcome)
        self._notify()

    def _until_it_ends(self) -> None:
        looked = time.monotonic()
        while self._process.poll() is None:
            if self._closed.wait(LOOK_S):
                try:
                    self._process.wait(EXIT_GRACE_S)
                except subprocess.TimeoutExpired:
                    log.warning("worker %d did not exit after its last word", self.pid)
                    self.kill()
                return
            now = time.monotonic()
            wrong, looked = self._pulse.look(now - looked), now
            if wrong and not self._vitals.killed_for:
                log.error("worker %d hangs: %s", self.pid, wrong)
                self._vitals.killed_for = wrong
                self.kill()

    def _relay(self) -> None:
        """Pass on what the worker says until it ends, and keep what is for us."""
        assert self._process.stdout is not None
        for line in iter(lambda: self._process.stdout.readline(LINE_MAX), b""):
            self._pulse.heard()
            try:
                message = json.loads(line)
                if message["t"] == "beat":
                    self._vitals.memory_bytes, self._vitals.memory_free = (
                        message["memory_bytes"],
                        message["memory_free"],
                    )
                    self._peak_bytes = max(self._peak_bytes, message["memory_bytes"])
                    bound_job_log(self._vitals.log_file)
                    continue
                if message["t"] == "outcome":
                    self._said = Outcome(**{k: v for k, v in message.items() if k != "t"})
                    continue
                if message["t"] == "progress":
                    self._vitals.stage = str(message["stage"])
            except (ValueError, KeyError, TypeError):
                log.error("worker %d wrote %r", self.pid, line[:200])
                continue
            self.events.put(message)
            self._notify()
        self._closed.set()
