"""The local backend's own programs - set-up, weights, doctor - as children of Blender, and their words as they come."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from .launcher import installed
from .wire.errors import UserError

LINES_KEPT = 500
GRACE_S = 5.0
SETUP = "install_deps.py"
PERCENT = re.compile(r"(\d+) %$")


class Child:
    """A program that runs beside Blender. `lines` are what it said, `fraction` how far it is, None when not known.

    A line of JSON (install_deps.py --json) is told by its text; `error` is why it failed, '' while it did not.
    """

    def __init__(self, title: str, command: Sequence[str | Path], folder: Path) -> None:
        self.title = title
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.fraction: float | None = None
        self.error = ""
        self.cancelled = False
        # Blender's own Python must not leak into the backend's.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
        alone = {"start_new_session": True}
        if sys.platform == "win32":
            alone = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
        try:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                **alone,
            )
        except OSError as error:
            raise UserError(f"{command[0]} cannot be run ({error.strerror})", "install the backend again") from error
        self._reader = threading.Thread(target=self._read, name="kinora-child", daemon=True)
        self._reader.start()

    @property
    def running(self) -> bool:
        """It has not ended, or not all that it said was read."""
        return self._reader.is_alive()

    def cancel(self) -> None:
        """Ask it to stop, and after a moment end it with all its children; returns at once."""
        if self.running and not self.cancelled:
            self.cancelled = True
            self._process.terminate()
            timer = threading.Timer(GRACE_S, self._kill)
            timer.daemon = True
            timer.start()

    def end(self) -> None:
        """End it now: for unregistering and quitting."""
        if self.running:
            self.cancelled = True
            self._kill()
            self._reader.join(GRACE_S)

    def text(self) -> str:
        """Everything that it said and that is kept."""
        return "\n".join(self.lines)

    def _kill(self) -> None:
        if self._process.poll() is not None:
            return
        if sys.platform == "win32":
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(self._process.pid)], capture_output=True, check=False)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._take(line.rstrip())
        code = self._process.wait()
        self._process.stdout.close()
        if self.cancelled:
            self.error = "It was cancelled; starting it again goes on from there"
        elif code and not self.error:
            self.error = self.lines[-1] if self.lines else f"It ended with code {code} without a word"
        elif not code:
            self.fraction = 1.0

    def _take(self, line: str) -> None:
        """Keep a line, and what it tells of the progress."""
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict) or not {"text", "error"} & set(told):
            self.lines.append(line)
            if match := PERCENT.search(line):
                self.fraction = min(int(match[1]) / 100, 1.0)
            return
        if "error" in told:
            self.error = str(told["error"])
        self.lines.append(str(told.get("text", told.get("error"))))
        if told.get("of"):
            self.fraction = (told["step"] - 1) / told["of"]


def check_checkout(folder: Path) -> Path:
    """The folder, when a backend can be set up from it. Raises UserError otherwise."""
    if not (folder / SETUP).is_file() or not (folder / "backend" / "__main__.py").is_file():
        raise UserError(f"There is no {SETUP} in {folder}", "choose the folder of Kinora's source")
    return folder


def set_up(folder: Path) -> Child:
    """Install the backend of a checkout: packages into an environment beside it. Raises UserError."""
    return Child("Setting up the backend", [sys.executable, SETUP, "backend", "--json"], check_checkout(folder))


def run_backend(title: str, *words: str, repo: Path | None = None) -> Child:
    """`python -m backend ...` of the backend that is installed, in another checkout if need be. Raises UserError."""
    python, last = installed()
    return Child(title, [python, "-m", "backend", *words], check_checkout(repo or last))


def is_installed() -> bool:
    """Whether a backend is set up here whose interpreter is still there."""
    try:
        return installed()[0].is_file()
    except UserError:
        return False
