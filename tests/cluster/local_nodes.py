"""A cluster in the driver's own process, without Ray: two slots, real `NodeJob`s, and a network that loses answers."""

from __future__ import annotations

import threading
from typing import Any

from backend.cluster.job import Gone, Unreachable
from backend.cluster.node import NodeJob
from backend.wire import UserError


def join(address: str) -> LocalNodes:
    """A cluster, unless the address is that of none."""
    if address == "nowhere":
        raise UserError("nothing answers", "start it")
    return LocalNodes()


class LocalNodes:
    """See `backend.cluster.job.Nodes`."""

    def __init__(self) -> None:
        self.slots = 2

    def look(self) -> int:
        return self.slots

    def place(self, worker: list[str]) -> LocalNode:
        return LocalNode(worker)


class LocalNode:
    """See `backend.cluster.job.Node`."""

    def __init__(self, worker: list[str]) -> None:
        self._job = NodeJob(worker)
        self._ended = False
        self._asked = 0

    def ready(self, timeout_s: float) -> bool:
        return True

    def ask(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        self._asked += 1
        if self._ended:
            raise Gone("it was ended")
        if self._asked % 5 == 3:  # the network is not what it was
            getattr(self._job, method)(*arguments)
            raise Unreachable("the answer got lost")
        if self._ended:
            raise Gone("it was ended")
        return getattr(self._job, method)(*arguments)

    def urge(self, method: str) -> None:
        threading.Thread(target=getattr(self._job, method), daemon=True).start()

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._job.close()
