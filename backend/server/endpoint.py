"""The endpoint: one ROUTER socket with CURVE and an allow-list, also on loopback; see docs/protocol.md."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
from zmq.auth.base import Authenticator

from ..wire import framing, paths
from .keys import AllowList, ServerKeys

log = logging.getLogger(__name__)
DOMAIN = "kinora"


@dataclass(frozen=True)
class Received:
    """One multipart message: the connection it came by, the client's key, and its parts."""

    route: bytes
    owner: str
    parts: list[bytes]


class Endpoint:
    """The server's socket. `receive` waits, `send` never does, `wake` may be called from any thread."""

    def __init__(self, host: str, port: int, keys: ServerKeys, home: Path) -> None:
        self._context = zmq.Context()
        self._loop = asyncio.new_event_loop()  # pyzmq's authenticator is a coroutine; it is run here, without a thread
        self._auth = Authenticator(self._context)
        self._auth.start()
        self._auth.configure_curve_callback(DOMAIN, AllowList(keys.client_public, paths.authorized_keys(home)))
        self._router = router = self._context.socket(zmq.ROUTER)
        router.curve_server = True
        router.curve_secretkey = keys.server_secret.encode()
        router.zap_domain = DOMAIN.encode()
        for option, value in (
            (zmq.ZAP_ENFORCE_DOMAIN, 1),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.MAXMSGSIZE, framing.FRAME_MAX + 4096),
            (zmq.SNDHWM, 16),
            (zmq.RCVHWM, 64),
            (zmq.HANDSHAKE_IVL, 5000),
            (zmq.BACKLOG, 256),
            (zmq.LINGER, 0),
            (zmq.HEARTBEAT_IVL, 2000),
            (zmq.HEARTBEAT_TIMEOUT, 10_000),
        ):
            router.setsockopt(option, value)
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
        for readable in (router, self._auth.zap_socket, self._wake_out):
            self._poller.register(readable, zmq.POLLIN)

    def receive(self, timeout_s: float) -> list[Received]:
        """What has come in, at most 64 messages; empty after `timeout_s` or when woken."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        if self._auth.zap_socket in ready:
            request = self._auth.zap_socket.recv_multipart()
            self._loop.run_until_complete(self._auth.handle_zap_message(request))
        if self._wake_out.fileno() in ready:
            self._wake_out.recv(4096)
        received: list[Received] = []
        while self._router in ready and len(received) < 64:
            try:
                frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            owner = str(frames[-1].get("User-Id"))
            received.append(Received(frames[0].bytes, owner, [f.bytes for f in frames[1:]]))
        return received

    def send(self, route: bytes, parts: Sequence[bytes]) -> bool:
        """Send unless the client is gone or too slow; then the message is dropped and the client asks again."""
        try:
            self._router.send_multipart([route, *parts], zmq.NOBLOCK, copy=False)
        except zmq.Again:
            log.warning("a client reads too slowly; a message to it was dropped")
            return False
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return False
            raise
        return True

    def wake(self) -> None:
        """Make `receive` return now."""
        with contextlib.suppress(OSError):  # full of wake-ups already, or closed
            self._wake_in.send(b"\0")

    def close(self) -> None:
        """Close the socket; whatever is unsent is dropped."""
        self._router.close(linger=0)
        self._auth.stop()
        self._loop.close()
        self._context.destroy(linger=0)
        for end in (getattr(self, "_wake_in", None), getattr(self, "_wake_out", None)):
            if end is not None:
                end.close()
