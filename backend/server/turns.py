"""Turns: the order in which waiting jobs run: by priority, among clients in turn, for each client as it wants."""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """A queued job. `place` orders an owner's jobs of one priority; `resumed`: it ran already and was interrupted."""

    id: str
    owner: str
    priority: int
    place: int
    resumed: bool = False


def in_order(waiting: Iterable[Waiting], served: Mapping[str, int]) -> list[str]:
    """The ids in the order in which they will be started, when nothing changes.

    What was interrupted goes first; then the highest priority; among owners of the same priority it is the turn of
    the one whose latest job was started longest ago. `served` holds a number for each owner that rises with each start.
    """
    turns = dict(served)
    starts = max(turns.values(), default=0)
    order: list[str] = []

    def start(job: Waiting) -> None:
        nonlocal starts
        starts += 1
        turns[job.owner] = starts
        order.append(job.id)

    tiers: defaultdict[int, list[Waiting]] = defaultdict(list)
    interrupted: list[Waiting] = []
    for job in sorted(waiting, key=lambda job: job.place):
        (interrupted if job.resumed else tiers[job.priority]).append(job)
    for job in interrupted:
        start(job)
    for priority in sorted(tiers, reverse=True):
        queues: defaultdict[str, deque[Waiting]] = defaultdict(deque)
        for job in tiers[priority]:
            queues[job.owner].append(job)
        heap = [(turns.get(owner, 0), queue[0].place, owner) for owner, queue in queues.items()]
        heapq.heapify(heap)
        while heap:
            owner = heapq.heappop(heap)[2]
            queue = queues[owner]
            start(queue.popleft())
            if queue:
                heapq.heappush(heap, (turns[owner], queue[0].place, owner))
    return order
