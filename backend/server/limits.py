"""Limits: how much one client, and all of them, may ask for at a time; far above what an add-on needs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from ..wire import framing
from .refusal import Refusal

#: Requests a second of one client (its key) in the long run, and how many at once after a rest.
RATE = 5000.0
BURST = 20_000.0
#: What a request costs that leaves work for the disk or a process behind; any other costs 1.
COST = {"hello": 10, "submit": 25, "upload_open": 10, "probe": 25, "estimate": 25, "delete": 25, "list": 5}
#: Requests whose replies are long: not answered while too much is on its way.
BULK = frozenset({"get", "live_get", "list", "events", "result_index"})
#: A client that asks on while it is refused is not answered any more, until it has paused.
DEBT = 2000.0

#: Bytes that are on their way to one client and to all: what a client that does not read can hold of the memory.
FLIGHT_OWNER = 3 * framing.CREDIT * framing.CHUNK
FLIGHT_ALL = 8 * FLIGHT_OWNER

#: TCP connections of one client and in all; and how many of them may have said nothing yet.
CONNECTIONS_OWNER = 160
CONNECTIONS = 512
#: Bytes of a message that is not whole yet, before its connection is cut; an honest one is hardly over one chunk.
UNFINISHED = 16 * framing.CHUNK
#: Bytes of a whole message, before its connection is cut.
MESSAGE = framing.FRAMES_MAX * framing.CHUNK


class Tracker(Protocol):
    """What says whether bytes have left: pyzmq's MessageTracker."""

    @property
    def done(self) -> bool: ...


@dataclass
class _Account:
    tokens: float = BURST
    at: float = 0.0
    flights: deque[tuple[Tracker, int]] = field(default_factory=deque)


class Limits:
    """The accounts of all clients. One that has been quiet for long has none."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def heard(self, owner: str) -> bool:
        """Count a message; False when so many came that this one is not to be looked at."""
        account = self._account(owner)
        account.tokens = max(-DEBT, account.tokens - 1)
        return account.tokens > -DEBT

    def check(self, owner: str, kind: str) -> None:
        """Count what the request costs beyond that. Raises Refusal when the client asks for too much at a time."""
        account = self._account(owner)
        account.tokens = max(-DEBT, account.tokens - COST.get(kind, 1) + 1)
        if account.tokens <= 0:
            raise Refusal("slow_down", "This client asks too often", "wait a moment")
        if kind in BULK:
            flight = self._flight(account)
            if flight >= FLIGHT_OWNER or sum(map(self._flight, self._accounts.values())) >= FLIGHT_ALL:
                raise Refusal("slow_down", "More was asked for than has been read", "wait a moment")

    def sent(self, owner: str, size: int, tracker: Tracker) -> None:
        """Count bytes that are on their way until `tracker` says that they have left."""
        self._account(owner).flights.append((tracker, size))

    def tidy(self) -> None:
        """Forget those who are as if they had never come."""
        for owner in [o for o in self._accounts if self._account(o).tokens >= BURST]:
            if not self._flight(self._accounts[owner]):
                del self._accounts[owner]

    def _account(self, owner: str) -> _Account:
        now = self._clock()
        account = self._accounts.setdefault(owner, _Account(at=now))
        account.tokens = min(BURST, account.tokens + (now - account.at) * RATE)
        account.at = now
        return account

    @staticmethod
    def _flight(account: _Account) -> int:
        """Bytes on their way. What left out of turn, to another connection of the client, is found as well."""
        if account.flights and account.flights[0][0].done:
            account.flights = deque((t, size) for t, size in account.flights if not t.done)
        return sum(size for _, size in account.flights)
