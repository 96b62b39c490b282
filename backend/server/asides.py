"""Asides: short questions that child processes answer beside the jobs, so that the server never waits or decodes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .process import REPO

log = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "backend.server.aside")
TIMEOUT_S = 30.0
AT_ONCE = 2
#: One result at a time is packed, which takes long: it does not stand in the way of short questions.
SLOW = "compact"
WAITING_MOST = 64
#: An answer is handed out for so long after it came: how much memory is free changes, and so may a clip.
FRESH_S = 20.0


@dataclass
class _Aside:
    process: subprocess.Popen[str] | None = None
    kind: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    done: float | None = None


class Asides:
    """Asks children and keeps their answers for a moment."""

    def __init__(self) -> None:
        self._asides: dict[str, _Aside] = {}

    def ask(self, kind: str, question: dict[str, Any], timeout_s: float = TIMEOUT_S) -> dict[str, Any] | None:
        """What the child printed (see aside.py), or None while it is at it or has to wait: ask again."""
        now = time.monotonic()
        self._asides = {k: a for k, a in self._asides.items() if a.done is None or now - a.done < FRESH_S}
        key = json.dumps([kind, question], sort_keys=True)
        aside = self._asides.get(key)
        if aside is None:
            under_way = sum(a.done is None and (a.kind == SLOW) == (kind == SLOW) for a in self._asides.values())
            if under_way < (1 if kind == SLOW else AT_ONCE) and len(self._asides) < WAITING_MOST:
                self._asides[key] = self._begin(kind, question, timeout_s)
            return None
        return aside.told if aside.done is not None else None

    def close(self) -> None:
        """End the children that are still at it."""
        for aside in self._asides.values():
            if aside.process is not None and aside.done is None:
                aside.process.kill()

    def _begin(self, kind: str, question: dict[str, Any], timeout_s: float) -> _Aside:
        aside = _Aside(kind=kind)
        pipe = subprocess.PIPE
        aside.process = subprocess.Popen(
            [*COMMAND, kind], cwd=REPO, stdin=pipe, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
        )
        threading.Thread(target=_wait, args=(aside, question, timeout_s), name="kinora-aside", daemon=True).start()
        return aside


def _wait(aside: _Aside, question: dict[str, Any], timeout_s: float) -> None:
    """Take the child's answer; a child that is stuck or broken answers that it was."""
    assert aside.process is not None
    kind = aside.kind
    try:
        out, errors = aside.process.communicate(json.dumps(question), timeout=timeout_s)
        aside.told = json.loads(out.splitlines()[-1])
    except subprocess.TimeoutExpired:
        aside.process.kill()
        aside.process.communicate()
        aside.told = {"message": f"The {kind} took longer than {timeout_s:.0f} s and was stopped", "hint": ""}
    except (ValueError, IndexError):
        log.error("the %s ended with code %s: %s", kind, aside.process.returncode, errors[-2000:])
        last = (errors.strip().splitlines() or ["it said nothing"])[-1]
        aside.told = {"message": f"The {kind} failed on an error of Kinora ({last})"[:1000], "hint": "this is a bug"}
    aside.done = time.monotonic()
