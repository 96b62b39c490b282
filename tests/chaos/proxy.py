"""A TCP proxy in one thread that stands for a bad line: it passes, cuts, stalls, throttles, records and replays."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

BLOCK = 16 * 1024
BEHIND_MOST = 64 * 1024  # bytes that wait in the proxy for one side; more is left to the sender's own buffers
TICK_S = 0.02


@dataclass(eq=False)
class _Pair:
    """One connection through the proxy; `waiting` are the bytes on their way to each end."""

    near: socket.socket
    far: socket.socket
    waiting: dict[socket.socket, bytearray] = field(default_factory=dict)
    said: bytearray = field(default_factory=bytearray)  # what the near end sent, from the first byte

    def __post_init__(self) -> None:
        for end in (self.near, self.far):
            end.setblocking(False)
            self.waiting[end] = bytearray()

    def other(self, end: socket.socket) -> socket.socket:
        return self.far if end is self.near else self.near

    def close(self) -> None:
        for end in (self.near, self.far):
            end.close()


class Proxy:
    """Stands between clients, who connect to `address`, and the server at `port` of this machine.

    `passed` counts the bytes that went through in both directions, `connections` those that were ever made.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.passed = 0
        self.connections = 0
        self._pairs: list[_Pair] = []
        self._said: list[bytes] = []
        self._lock = threading.Lock()
        self._open = True
        self._moves = True
        self._rate: float | None = None  # bytes/s, both directions and all connections together
        self._allowance = 0.0
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def cut(self) -> int:
        """Break all connections now, with a reset; how many there were. New ones are let through."""
        with self._lock:
            cut = list(self._pairs)
        for pair in cut:
            for end in (pair.near, pair.far):
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self._drop(pair)
        return len(cut)

    def stall(self) -> None:
        """Go on accepting, but move nothing: a line that is dead and does not say so."""
        self._moves = False

    def throttle(self, bytes_per_s: float) -> None:
        """Move no more than this, in both directions together."""
        self._rate, self._allowance = bytes_per_s, 0.0

    def heal(self) -> None:
        """Pass everything again, as fast as it comes."""
        self._moves, self._rate = True, None

    def recorded(self) -> list[bytes]:
        """All that clients have sent so far, a string of bytes for each connection."""
        with self._lock:
            return [*self._said, *(bytes(pair.said) for pair in self._pairs)]

    def replay(self, said: bytes, patience_s: float = 2.0) -> bytes:
        """Say it all to the server once more, on a connection of its own; what the server answers until it is silent
        or hangs up.
        """
        answer = bytearray()
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=patience_s) as line,
            contextlib.suppress(OSError),
        ):
            line.sendall(said)
            while block := line.recv(BLOCK):
                answer += block
        return bytes(answer)

    def close(self) -> None:
        """Break everything and stop."""
        self._open = False
        self._thread.join(5)
        self.cut()
        self._listener.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        before = time.monotonic()
        while self._open:
            now = time.monotonic()
            if self._rate is not None:
                self._allowance = min(self._allowance + (now - before) * self._rate, max(self._rate / 4, 64))
            before = now
            with self._lock:
                pairs = list(self._pairs)
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                for end, events, pair in self._wanted(pairs) if self._may_move() else ():
                    with contextlib.suppress(OSError, ValueError):  # cut meanwhile
                        selector.register(end, events, pair)
                ready = selector.select(TICK_S)
                for key, events in ready:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif self._may_move():
                        self._serve(key.data, key.fileobj, events)
            if not self._may_move() or not ready:
                time.sleep(TICK_S / 4)

    def _may_move(self) -> bool:
        return self._moves and (self._rate is None or self._allowance >= 1)

    def _wanted(self, pairs: list[_Pair]) -> Iterator[tuple[socket.socket, int, _Pair]]:
        for pair in pairs:
            for end in (pair.near, pair.far):
                events = selectors.EVENT_WRITE if pair.waiting[end] else 0
                if len(pair.waiting[pair.other(end)]) < BEHIND_MOST:
                    events |= selectors.EVENT_READ
                if events:
                    yield end, events, pair

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return
        try:
            far = socket.create_connection(("127.0.0.1", self._port), timeout=1)
        except OSError:  # the server is down: so is the line
            near.close()
            return
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        with self._lock:
            self._pairs.append(_Pair(near, far))

    def _serve(self, pair: _Pair, end: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                block = end.recv(BLOCK)
                if not block:
                    raise ConnectionError("closed")
                pair.waiting[pair.other(end)] += block
                if end is pair.near:
                    pair.said += block
            if events & selectors.EVENT_WRITE:
                most = BLOCK if self._rate is None else max(1, int(self._allowance))
                sent = end.send(pair.waiting[end][:most])
                del pair.waiting[end][:sent]
                self.passed += sent
                self._allowance -= sent
        except BlockingIOError:
            return
        except OSError:
            self._drop(pair)

    def _drop(self, pair: _Pair) -> None:
        """Close a pair, and keep what was said on it."""
        with self._lock:
            if pair in self._pairs:
                self._pairs.remove(pair)
                self._said.append(bytes(pair.said))
        pair.close()
