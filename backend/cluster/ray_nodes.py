"""The nodes of a Ray cluster; the only file that imports ray.

Small JSON goes through Ray, and pieces of files as bytes: no array, and of our code only the name of `NodeJob`. Retries
are not Ray's but the scheduler's, and a job is bound to no node, so none waits for one that is gone.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError

from ..wire import UserError
from .job import Gone, Unreachable
from .node import NodeJob

log = logging.getLogger(__name__)

#: A node offers this resource, so many of it as jobs it may run at once, where cards are not what counts.
SLOT = "kinora"
#: What to do when there is no cluster.
HINT = "run 'ray start' on this machine, with the token of the cluster's head (docs/cluster.md)"


def join(address: str) -> RayNodes:
    """Become a part of the cluster at 'auto' or HOST:PORT. Raises UserError when that cannot be."""
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address, namespace="kinora", log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # Ray has no class of its own for this
        log.exception("no cluster")
        raise UserError((str(error).strip() or type(error).__name__).splitlines()[0][:300], HINT) from error
    return RayNodes()


class RayNodes:
    """See `Nodes`: slots are graphics cards, or what nodes offer as SLOT where one of them does."""

    def __init__(self) -> None:
        self.slots = 0
        self._resource = SLOT
        self.look()

    def look(self) -> int:
        """Count the slots of the living nodes."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._resource = SLOT if any(SLOT in node for node in nodes) else "GPU"
        self.slots = int(sum(node.get(self._resource, 0) for node in nodes))
        return self.slots

    def place(self, worker: list[str]) -> RayNode:
        """A `NodeJob` wherever there is a slot."""
        wanted = {"resources": {SLOT: 1}} if self._resource == SLOT else {"num_gpus": 1}
        never_again = {"max_restarts": 0, "max_task_retries": 0}
        options = {"num_cpus": 0, "max_concurrency": 8, **never_again, **wanted}
        return RayNode(ray.remote(NodeJob).options(**options).remote(worker))


class RayNode:
    """See `Node`: an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._hello = actor.hello.remote()

    def ready(self, timeout_s: float) -> bool:
        """Whether the actor runs. Raises Gone, or UserError when the node has no Kinora."""
        if not ray.wait([self._hello], timeout=timeout_s)[0]:
            return False
        try:
            ray.get(self._hello)
        except RayActorError as error:
            log.error("%s", error)
            if "import" in str(error):
                raise UserError(
                    "A node of the cluster does not find Kinora", "start it with PYTHONPATH set to Kinora's folder"
                ) from error
            raise Gone("it was lost when the job began") from error
        return True

    def ask(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """A method's answer."""
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments), timeout=timeout_s)
        except (ActorUnavailableError, GetTimeoutError) as error:
            raise Unreachable(str(error)) from error
        except RayActorError as error:
            log.warning("%s", error)
            raise Gone("its daemon or its process ended") from error

    def urge(self, method: str) -> None:
        """Have a method called."""
        getattr(self._actor, method).remote()

    def end(self) -> None:
        """End the actor's process; its worker ends because its parent is gone."""
        with contextlib.suppress(Exception):  # it may be gone already
            ray.kill(self._actor, no_restart=True)
