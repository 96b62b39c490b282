"""Logs: text for people on the terminal, JSON lines for programs in a rotating file, and no secret in either."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

from .wire import paths

SERVER_LOG = "server.jsonl"
FILE_BYTES = 4 * 2**20
FILES_KEPT = 5  # older ones, beside the one that is written
LEVELS = ("debug", "info", "warning", "error")
TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
JOB = re.compile(r"\bjob ([0-9a-f]{32})\b")
HIDDEN = "(secret)"
#: A job's log keeps its beginning and its end when it grows beyond this.
JOB_LOG_BYTES = 16 * 2**20
JOB_LOG_HEAD, JOB_LOG_TAIL = 2**20, 4 * 2**20

_secrets: set[str] = set()


def conceal(*secrets: str) -> None:
    """From now on these are not written, wherever they stand in a message or a traceback."""
    _secrets.update(filter(None, secrets))


class TextLines(logging.Formatter):
    """A line of text for each message, with its traceback below."""

    def __init__(self) -> None:
        super().__init__(TEXT)

    def format(self, record: logging.LogRecord) -> str:
        return _without_secrets(super().format(record))


class JsonLines(logging.Formatter):
    """A line of JSON for each message: time (UTC), level, logger, message, and where there is one job and exception.

    The job is what the message calls "job ID", or the attribute `job` of its record.
    """

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        named = JOB.search(message)
        job = getattr(record, "job", None) or (named[1] if named else None)
        exception = self.formatException(record.exc_info) if record.exc_info else None
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "job": job,
            "message": _without_secrets(message),
            "exception": exception and _without_secrets(exception),
        }
        return json.dumps({key: value for key, value in row.items() if value is not None})


class QuietFile(RotatingFileHandler):
    """A rotating file that a full disk silences: the terminal has the line too, and the server must go on."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def to_terminal(level: str = "info") -> None:
    """Messages from `level` on go to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def to_file(home: Path) -> logging.Handler:
    """They also go to the server's log in `home`; only the running server may do this, since two rotate it twice.

    A terminal that is a plain file, which nothing rotates, gets warnings alone from now on.
    """
    folder = paths.make_private(paths.logs_folder(home))
    handler = QuietFile(folder / SERVER_LOG, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    for terminal in root.handlers if _is_plain_file(sys.stderr) else ():
        terminal.setLevel(logging.WARNING)
    root.addHandler(handler)
    return handler


def server_logs(home: Path) -> list[Path]:
    """The server's log files that there are, oldest first."""
    first = paths.logs_folder(home) / SERVER_LOG
    rotated = [first.with_name(f"{SERVER_LOG}.{n}") for n in range(FILES_KEPT, 0, -1)]
    return [path for path in (*rotated, first) if path.is_file()]


def bound_job_log(path: Path, most: int = JOB_LOG_BYTES) -> bool:
    """Cut the middle out of a job's log that has grown beyond `most` bytes; whether it was done.

    The worker that writes it appends, so it goes on behind what is left. What it writes during the cut is lost.
    """
    head_bytes, tail_bytes = min(JOB_LOG_HEAD, most // 4), min(JOB_LOG_TAIL, most // 4)
    try:
        if path.stat().st_size <= most:
            return False
        with open(path, "r+b") as file:
            head = file.read(head_bytes).rpartition(b"\n")[0]
            file.seek(-tail_bytes, 2)
            tail = file.read().partition(b"\n")[2]
            file.seek(0)
            file.write(head + b"\n... here a part was cut out: the log had grown too long ...\n" + tail)
            file.truncate()
    except OSError:  # it is gone; or the disk fails, and the next time is soon
        return False
    return True


def _is_plain_file(stream: IO[str]) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError, AttributeError):  # none at all, or one of memory
        return False


def _without_secrets(text: str) -> str:
    for secret in _secrets:
        text = text.replace(secret, HIDDEN)
    return text
