"""Peers: the TCP connections of the endpoint, as its monitor and its messages tell; one may be cut, whatever it does.

ZeroMQ bounds frames and whole messages, but neither the frames of a message nor connections, and it closes none for
us. The descriptor of a connection does: shut down, its engine ends and frees what it held.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from . import limits

log = logging.getLogger(__name__)

#: Offset of `tcpi_bytes_received` in Linux's `struct tcp_info`.
BYTES_RECEIVED = 128
COUNTS_BYTES = sys.platform.startswith("linux")


@dataclass
class Peer:
    """One connection. `owner` and `route` are known from its first message on."""

    since: float = field(default_factory=time.monotonic)
    owner: str = ""
    route: bytes = b""
    taken: int = 0  # bytes on the line of the messages that were taken; what else came over TCP waits, or is no whole
    cut: bool = False


class Peers:
    """All connections by descriptor. `monitor` is readable when one came or went: call `follow` then."""

    def __init__(self, context: zmq.Context[Any], router: zmq.Socket[Any]) -> None:
        self._peers: dict[int, Peer] = {}
        self._routes: dict[bytes, int] = {}
        self._router = router
        place = f"inproc://peers-{id(self)}"
        router.monitor(place, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self.monitor = context.socket(zmq.PAIR)
        self.monitor.rcvhwm = 0  # the router's own thread would wait for room
        self.monitor.connect(place)

    def follow(self) -> None:
        """Take in who came and who went."""
        while True:
            try:
                told = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                return
            gone = self._peers.pop(told["value"], None)
            if gone is not None and self._routes.get(gone.route) == told["value"]:
                del self._routes[gone.route]
            if told["event"] == zmq.EVENT_ACCEPTED:
                self._peers[told["value"]] = Peer()

    def heard(self, descriptor: int, route: bytes, owner: str, sizes: Sequence[int]) -> bool:
        """A whole message of frames of `sizes` bytes came; False when its connection is cut for it, or was."""
        peer = self._peers.get(descriptor)
        if peer is None or peer.route != route:
            self.follow()  # whoever had the descriptor before has gone
            peer = self._peers.setdefault(descriptor, Peer())
            self._routes.pop(peer.route, None)
            self._routes[route] = descriptor
            peer.route, peer.owner = route, owner
            if self.counts()[owner] > limits.CONNECTIONS_OWNER:
                self.cut(descriptor, f"its client has more than {limits.CONNECTIONS_OWNER}")
        peer.taken += sum(map(_on_the_line, sizes))
        if sum(sizes) > limits.MESSAGE:
            self.cut(descriptor, f"a message of {sum(sizes)} bytes")
        return not peer.cut

    def owner_of(self, route: bytes) -> str:
        """The key of the client at the other end; empty when it is gone."""
        descriptor = self._routes.get(route)
        return "" if descriptor is None else self._peers[descriptor].owner

    def tidy(self, allows: Any) -> None:
        """Cut whoever may not stay: no longer allowed, in the midst of an endless message, or silent in a crowd."""
        for descriptor, peer in list(self._peers.items()):
            if peer.owner and not allows(peer.owner):
                self.cut(descriptor, "its key is not allowed any more")
            elif _bytes_received(descriptor) - peer.taken > limits.UNFINISHED:
                self.cut(descriptor, "more comes than is taken, or a message without an end")
        crowd = len(self._peers) - limits.CONNECTIONS
        if crowd > 0:
            silent = sorted((p.since, d) for d, p in self._peers.items() if not p.owner)
            for _, descriptor in silent[:crowd]:
                self.cut(descriptor, "it said nothing, and others wait")

    def cut(self, descriptor: int, why: str) -> None:
        """End a connection; the monitor tells when it has ended."""
        peer = self._peers.get(descriptor)
        if peer is None or peer.cut:
            return
        peer.cut = True
        log.warning("a connection is cut: %s", why)
        with contextlib.suppress(OSError):  # it went by itself
            borrowed = socket.socket(fileno=descriptor)
            try:
                borrowed.shutdown(socket.SHUT_RDWR)
            finally:
                borrowed.detach()

    def counts(self) -> Counter[str]:
        """How many connections each client has; '' for those that have said nothing yet."""
        return Counter(peer.owner for peer in self._peers.values())

    def close(self) -> None:
        """Listen to the monitor no more."""
        self._router.disable_monitor()
        self.monitor.close(linger=0)


def _on_the_line(size: int) -> int:
    """Bytes that a frame of `size` bytes takes over TCP: CURVE's nonce, code and flags, and ZMTP's header."""
    return size + 33 + (2 if size + 33 < 256 else 9)


def _bytes_received(descriptor: int) -> int:
    """Bytes that came over a TCP connection so far; 0 where the system does not tell."""
    if not COUNTS_BYTES:
        return 0
    try:
        borrowed = socket.socket(fileno=descriptor)
    except OSError:
        return 0
    try:
        return struct.unpack_from("Q", borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), BYTES_RECEIVED)[0]
    except (OSError, struct.error):
        return 0
    finally:
        borrowed.detach()
