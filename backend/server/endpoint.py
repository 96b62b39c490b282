"""The endpoint: one ROUTER socket with CURVE and an allow-list, also on loopback; see docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth.base import Authenticator

from ..wire import framing
from .keys import AllowList, ServerKeys
from .limits import Limits
from .peers import COUNTS_BYTES, Peers

try:
    import resource
except ImportError:  # Windows, whose sockets are not counted among the files
    resource = None  # type: ignore[assignment]

log = logging.getLogger(__name__)
DOMAIN = "kinora"
DESCRIPTORS = 4096  # for the connections that limits.py allows, with room for everything else
TIDY_S = 0.1
SMALL = 4096  # bytes of a part that are copied and then not followed on their way
BATCH_BYTES = 16 * framing.CHUNK


@dataclass(frozen=True)
class Received:
    """One multipart message: the connection it came by, the client's key, and its parts."""

    route: bytes
    owner: str
    parts: list[bytes | memoryview]


class Endpoint:
    """The server's socket. `receive` waits, `send` never does, `wake` may be called from any thread.

    Only what allowed clients say within their limits comes out of it. A client whose key is taken from the allow-list
    is thrown out.
    """

    def __init__(self, host: str, port: int, keys: ServerKeys, home: Path) -> None:
        _make_room_for_descriptors()
        self.limits = Limits()
        self.allowed = AllowList(keys.client_public, home)
        self._context = zmq.Context()
        self._loop = asyncio.new_event_loop()  # pyzmq's authenticator is a coroutine; it is run here, without a thread
        self._auth = Authenticator(self._context)
        self._auth.start()
        self._auth.configure_curve_callback(DOMAIN, self.allowed)
        self._router = router = self._context.socket(zmq.ROUTER)
        router.copy_threshold = SMALL
        router.curve_server = True
        router.curve_secretkey = keys.server_secret.encode()
        router.zap_domain = DOMAIN.encode()
        for option, value in (
            (zmq.ZAP_ENFORCE_DOMAIN, 1),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.MAXMSGSIZE, framing.CHUNK + 4096),  # of one frame: no request has a longer one
            (zmq.SNDHWM, 16),
            # A full queue would stop libzmq 4.3 reading a line, and it aborts the process when such a line breaks
            # (an assertion in out_event). Peers bounds what waits instead, where the system counts bytes.
            (zmq.RCVHWM, 0 if COUNTS_BYTES else 16),
            (zmq.HANDSHAKE_IVL, 5000),
            (zmq.BACKLOG, 256),
            (zmq.LINGER, 0),
            (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, 10_000),
        ):
            router.setsockopt(option, value)
        self._peers = Peers(self._context, router)
        self._tidied = 0.0
        try:
            router.bind(f"tcp://{host}:{port or '*'}")
        except zmq.ZMQError:
            self.close()
            raise
        self.port = int(router.last_endpoint.decode().rpartition(":")[2])
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._poller = zmq.Poller()
        for readable in (router, self._auth.zap_socket, self._peers.monitor, self._wake_out):
            self._poller.register(readable, zmq.POLLIN)

    def receive(self, timeout_s: float) -> list[Received]:
        """What has come in, at most 64 messages; empty after `timeout_s` or when woken."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        if self._auth.zap_socket in ready:
            self._admit()
        if self._wake_out.fileno() in ready:
            self._wake_out.recv(4096)
        self._peers.follow()
        received: list[Received] = []
        size = looked_at = 0
        while self._router in ready and looked_at < 64 and size < BATCH_BYTES:
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            looked_at += 1
            message = self._taken(frames)
            if message is not None:
                received.append(message)
                size += sum(map(len, message.parts))
        now = time.monotonic()
        if now - self._tidied > TIDY_S:
            self._tidied = now
            self._peers.tidy(self.allowed.allows)
            self.limits.tidy()
        return received

    def _taken(self, frames: Sequence[zmq.Frame]) -> Received | None:
        """The message, unless its sender may not say it: then nobody looks at it."""
        route, owner, descriptor = frames[0].bytes, str(frames[-1].get("User-Id")), int(frames[-1].get("__fd"))
        sizes = [len(frame) for frame in frames[1:]]
        if not self._peers.heard(descriptor, route, owner, sizes) or not self.limits.heard(owner):
            return None
        if not self.allowed.allows(owner):
            self._peers.cut(descriptor, "its key is not allowed any more")
            return None
        # Small parts are copied out; a piece of a clip stays where ZeroMQ has it until it is written.
        return Received(route, owner, [f.bytes if len(f) <= SMALL else f.buffer for f in frames[1:]])

    def _admit(self) -> None:
        """Answer the handshakes that wait: whether their keys are allowed."""
        for _ in range(64):
            try:
                request = self._auth.zap_socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._loop.run_until_complete(self._auth.handle_zap_message(request))

    def send(self, route: bytes, parts: Sequence[bytes]) -> bool:
        """Send unless the client is gone or too slow; then the message is dropped and the client asks again."""
        large = len(parts[-1]) > SMALL
        try:
            tracker = self._router.send_multipart([route, *parts], zmq.NOBLOCK, copy=False, track=large)
        except zmq.Again:
            log.warning("a client reads too slowly; a message to it was dropped")
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        if large:
            self.limits.sent(self._peers.owner_of(route), len(parts[-1]), tracker)
        return True

    def wake(self) -> None:
        """Make `receive` return now."""
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed
            self._wake_in.send(b"\0")

    def close(self) -> None:
        """Close the socket; whatever is unsent is dropped."""
        self._peers.close()
        self._router.close(linger=0)
        self._auth.stop()
        self._loop.close()
        self._context.destroy(linger=0)
        for end in (getattr(self, "_wake_in", None), getattr(self, "_wake_out", None)):
            if end is not None:
                end.close()


def _make_room_for_descriptors() -> None:
    """Let the process have as many connections as limits.py allows; some systems start with 256 files."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(OSError, ValueError):  # what there is has to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
