"""The child that answers one question beside the jobs: what a clip is, what a job would take, a result as one file.

`python -m backend.server.aside probe|estimate|compact`: the question as JSON on standard input, one line of JSON as the
answer: `{"answer": {...}}`, or `{"message": ..., "hint": ...}` for what the user can fix.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from ..wire import JobSettings, UserError
from . import sandbox

#: The server kills a child before; this ends one whose server is gone.
LAST_S = 60.0
PACKING_LAST_S = 2 * 3600.0


def probe(question: dict[str, Any]) -> dict[str, Any]:
    """The facts of the clip at `path`."""
    from ..probe import probe

    sandbox.for_a_look()
    return probe(Path(question["path"])).to_json()


def estimate(question: dict[str, Any]) -> dict[str, Any]:
    """What a job would take on this machine."""
    from ..estimate import estimate
    from ..machine import this_machine

    size = {name: question[name] for name in ("width", "height", "frames", "fps")}
    settings = JobSettings.from_json(question["settings"])
    return estimate(**size, settings=settings, machine=this_machine(), jobs=Path(question["jobs"])).to_json()


def compact(question: dict[str, Any]) -> dict[str, Any]:
    """Pack the capture in `capture` as `codec`.kc in `folder`, with what a client has to know of it in `codec`.json."""
    from ..wire import compact, connection, flush

    folder, codec, parent = Path(question["folder"]), question["codec"], os.getppid()
    beside, packed = folder / f".{codec}.partial", folder / f"{codec}.kc"
    try:
        folder.mkdir(exist_ok=True)
        compact.pack(Path(question["capture"]), beside, codec, lambda: os.getppid() != parent)
        with open(beside, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        flush(beside)
        os.replace(beside, packed)
        about = {"size": packed.stat().st_size, "sha256": sha256, "path": packed.name}
        connection.write_private(folder / f"{codec}.json", about)
        return about
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"The result could not be packed ({error.strerror or error})", "fetch it as it is") from error


def main() -> None:
    sandbox.from_the_start()
    timer = threading.Timer(LAST_S if sys.argv[1] != "compact" else PACKING_LAST_S, os._exit, (1,))
    timer.daemon = True
    timer.start()
    question = json.load(sys.stdin)
    try:
        told = {"answer": {"probe": probe, "estimate": estimate, "compact": compact}[sys.argv[1]](question)}
    except UserError as error:
        told = {"message": error.message, "hint": error.hint}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
