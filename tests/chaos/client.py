"""`python -m tests.chaos.client CONNECTION ORDERS [--far]`: a client as a process, which can be killed and begun again.

ORDERS is a JSON list of {"clip", "out"}. Orders whose capture is there are left alone, all others are submitted, some
at a time, and one that fails is sent again. Says what happens in JSON lines; ends when all captures are there, or with
its standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path

from backend.wire import Connection, JobSettings
from blender_addon.client import Client, JobDone, JobFailed, JobQueued

AT_ONCE = 8
TRIES = 4


def main() -> int:
    """Have all captures brought."""
    parser = argparse.ArgumentParser()
    parser.add_argument("connection", type=Path)
    parser.add_argument("orders", type=Path)
    parser.add_argument("--far", action="store_true", help="as if on another machine: upload, and pull the result")
    options = parser.parse_args()
    threading.Thread(target=end_with_parent, daemon=True).start()
    orders = [o for o in json.loads(options.orders.read_text()) if not (Path(o["out"]) / "capture.json").is_file()]
    client = Client(Connection.read(options.connection), share_files=not options.far)
    client.start()
    under_way: dict[str, dict] = {}
    jobs: dict[str, str] = {}
    while orders or under_way:
        while orders and len(under_way) < AT_ONCE:
            order = orders.pop(0)
            under_way[client.submit(Path(order["clip"]), JobSettings(), Path(order["out"]))] = order
        for event in client.drain():
            if isinstance(event, JobQueued):
                jobs[event.ticket] = event.job
                _say("queued", job=event.job, out=under_way[event.ticket]["out"])
            elif isinstance(event, JobDone):
                _say("done", job=jobs[event.ticket], out=under_way.pop(event.ticket)["out"])
            elif isinstance(event, JobFailed):
                order = under_way.pop(event.ticket)
                order["tries"] = order.get("tries", 0) + 1
                _say("failed", job=jobs.get(event.ticket, ""), out=order["out"], why=f"{event.message} ({event.hint})")
                if order["tries"] >= TRIES:
                    return 1
                orders.append(order)
        time.sleep(0.02)
    client.stop()
    return 0


def _say(kind: str, **fields: str) -> None:
    print(json.dumps({"t": kind, **fields}), flush=True)


def end_with_parent() -> None:
    """End when whoever started this process has ended."""
    os.read(0, 1)
    os._exit(2)


if __name__ == "__main__":
    sys.exit(main())
