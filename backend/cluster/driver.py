"""The driver: the one process on the server's machine that is part of the cluster; `RayExecutor` starts it.

It reads commands as JSON lines ({"start": number, "spec": {...}}, {"cancel": number}, {"kill": number}) and tells in
JSON lines how many slots there are and what becomes of each job. When its input ends, so does it, with all its jobs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from ..server.worker import Channel
from ..sharing import LEAST_FRAMES
from ..wire import UserError
from .crew import Crew
from .job import Nodes

SLOTS_EVERY_S = 2.0


def main() -> int:
    """Join the cluster and serve commands until the input ends."""
    parser = argparse.ArgumentParser(prog="backend.cluster.driver")
    parser.add_argument("--address", required=True)
    parser.add_argument("--nodes", default="backend.cluster.ray_nodes", help="module whose `join` finds the cluster")
    parser.add_argument("--no-share", action="store_false", dest="share", help="move files even to nodes that see them")
    parser.add_argument("--help-from", type=int, default=LEAST_FRAMES, help="clips of so many frames get help")
    parser.add_argument("worker", nargs="*", help="arguments of the worker's interpreter")
    options = parser.parse_args()
    channel = Channel()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        nodes: Nodes = importlib.import_module(options.nodes).join(options.address)
    except UserError as error:
        channel.send("refused", message=error.message, hint=error.hint)
        return 1
    threading.Thread(target=_count_slots, args=(nodes, channel), daemon=True).start()
    crew = Crew(nodes, options.worker, options.share, options.help_from)
    for line in iter(sys.stdin.buffer.readline, b""):
        command = json.loads(line)
        if "start" in command:
            number = int(command["start"])
            crew.begin(number, command["spec"], _teller(channel, number))
        for order in ("cancel", "kill"):
            if order in command:
                crew.order(int(command[order]), order)
    return 0


def _teller(channel: Channel, number: int) -> Callable[..., None]:
    def tell(kind: str, event: dict[str, Any] | None = None, **fields: Any) -> None:
        if event is not None:
            kind, fields = event["t"], {k: v for k, v in event.items() if k != "t"}
        channel.send(kind, job=number, **fields)

    return tell


def _count_slots(nodes: Nodes, channel: Channel) -> None:
    """Tell how many slots there are, again and again: it is the driver's heartbeat, too."""
    while True:
        channel.send("slots", slots=nodes.look())
        time.sleep(SLOTS_EVERY_S)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # at once; Ray sees the driver go and ends its actors
