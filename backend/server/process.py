"""WorkerProcess: one job in a child process of its own, which can always be stopped; for the server and the CLI."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

REPO = Path(__file__).resolve().parent.parent.parent
WORKER_COMMAND = (sys.executable, "-m", "backend.server.worker")
CANCEL_GRACE_S = 1.0
EXIT_GRACE_S = 5.0
LINE_MAX = 256 * 1024


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `state` is 'done', 'failed' or 'cancelled'; `files` are the capture's, with sizes.

    `bug` is set when it failed by no fault of the user's. `cause` says what became of the worker, for who may try
    again: 'crash', 'out_of_memory', 'hang', 'lost' (with the machine it ran on), or '' when it had its own last word.
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
    """A running job. `events` gets the worker's progress and log messages, and at last exactly one Outcome.

    `spec` is what worker.py reads from its standard input; the worker's output goes to the file `log_file`.
    `notify` is called from another thread after each event, `cleanup` there too, once the process is gone and
    before the outcome is told.
    """

    def __init__(
        self,
        spec: dict[str, Any],
        log_file: Path,
        *,
        command: Sequence[str] = WORKER_COMMAND,
        notify: Callable[[], None] = lambda: None,
        cleanup: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.events: queue.SimpleQueue[dict[str, Any] | Outcome] = queue.SimpleQueue()
        self._log_file, self._notify, self._cleanup = log_file, notify, cleanup
        self._cancelled = False
        self._told = False
        self.where = ""
        own_group: dict[str, Any] = (
            {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.BELOW_NORMAL_PRIORITY_CLASS}
            if sys.platform == "win32"
            else {"start_new_session": True}
        )
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with open(log_file, "ab") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, cwd=REPO, **own_group
            )
        self.pid = self._process.pid
        self._send(spec)
        self._watcher = threading.Thread(target=self._watch, name="kinora-worker-watch", daemon=True)
        self._watcher.start()

    @property
    def alive(self) -> bool:
        """Whether the outcome is still to be told."""
        return not self._told

    def cancel(self) -> None:
        """Ask the worker to stop; it is killed with all its children when it has not after CANCEL_GRACE_S."""
        if not self._cancelled:
            self._cancelled = True
            self._send({"cancel": True})
            timer = threading.Timer(CANCEL_GRACE_S, self.kill)
            timer.daemon = True
            timer.start()

    def kill(self) -> None:
        """Kill the worker and all its children now."""
        if self._process.poll() is not None:
            return
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self.pid)], capture_output=True, check=False)
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.killpg(self.pid, signal.SIGKILL)

    def join(self, timeout_s: float) -> None:
        """Wait until the process is gone and its outcome told."""
        self._watcher.join(timeout_s)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            log.info("worker %d is gone", self.pid)  # its exit is reported by the watcher

    def _watch(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        said = self._relay()
        try:
            code = self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            log.warning("worker %d did not exit after its last word", self.pid)
            self.kill()
            code = self._process.wait()
        with contextlib.suppress(OSError):  # what was still to be written to it
            self._process.stdin.close()
        self._process.stdout.close()
        outcome = said or self._silent_end(code)
        if self._cancelled and outcome.state != "done":
            outcome = Outcome("cancelled")
        try:
            self._cleanup(outcome)
        except OSError:
            log.exception("clean-up after worker %d failed", self.pid)
        self._told = True
        self.events.put(outcome)
        self._notify()

    def _relay(self) -> Outcome | None:
        """Pass on what the worker says until it ends; its last word, when it was one."""
        assert self._process.stdout is not None
        outcome = None
        for line in iter(lambda: self._process.stdout.readline(LINE_MAX), b""):
            try:
                message = json.loads(line)
                if message["t"] == "outcome":
                    outcome = Outcome(**{k: v for k, v in message.items() if k != "t"})
                    continue
            except (ValueError, KeyError, TypeError):
                log.error("worker %d wrote %r", self.pid, line[:200])
                continue
            self.events.put(message)
            self._notify()
        return outcome

    def _silent_end(self, code: int) -> Outcome:
        """What to say of a worker that ended without a word."""
        if code < 0 and -code == getattr(signal, "SIGKILL", 9):
            hint = "the machine may be out of memory: lower the resolution or use fewer frames; "
            return Outcome("failed", "The worker process was killed", hint + self._see_log(), bug=True, cause="crash")
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            return Outcome("failed", f"The worker process crashed ({name})", self._bug(), bug=True, cause="crash")
        return Outcome("failed", f"The worker process ended with code {code}", self._bug(), bug=True, cause="crash")

    def _bug(self) -> str:
        return "this is a bug; " + self._see_log()

    def _see_log(self) -> str:
        return f"see the log {self._log_file}"
