"""The child that answers one question beside the jobs: what a clip is, or what a job would take.

`python -m backend.server.aside probe|estimate`: the question as JSON on standard input, one line of JSON as the answer:
`{"answer": {...}}`, or `{"message": ..., "hint": ...}` for what the user can fix.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ..wire import JobSettings, UserError

#: The server kills a child before; this ends one whose server is gone.
LAST_S = 60.0


def probe(question: dict[str, Any]) -> dict[str, Any]:
    """The facts of the clip at `path`."""
    from ..probe import probe

    return probe(Path(question["path"])).to_json()


def estimate(question: dict[str, Any]) -> dict[str, Any]:
    """What a job would take on this machine."""
    from ..estimate import estimate
    from ..machine import this_machine

    size = {name: question[name] for name in ("width", "height", "frames", "fps")}
    settings = JobSettings.from_json(question["settings"])
    return estimate(**size, settings=settings, machine=this_machine(), jobs=Path(question["jobs"])).to_json()


def main() -> None:
    timer = threading.Timer(LAST_S, os._exit, (1,))
    timer.daemon = True
    timer.start()
    question = json.load(sys.stdin)
    try:
        told = {"answer": {"probe": probe, "estimate": estimate}[sys.argv[1]](question)}
    except UserError as error:
        told = {"message": error.message, "hint": error.hint}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
