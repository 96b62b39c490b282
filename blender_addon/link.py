"""The link: requests and replies over one DEALER socket that is reopened whenever the server falls silent.

Everything here runs in the asyncio loop of the client's one socket thread; see docs/protocol.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from .wire.connection import Connection
from .wire.errors import KinoraError, ProtocolError
from .wire.framing import CHUNK, FRAME_MAX, decode, encode
from .wire.messages import ENCODINGS, PROTOCOL_OLDEST, PROTOCOL_VERSION, PUSHES, check_reply
from .wire.versions import reads_captures

log = logging.getLogger(__name__)

ANSWER_S = 2.0  # a request waits this long without hearing anything
#: The first one waits for the connection too, and one that moves a chunk may stand behind others on a slow line.
LONGER_S = {"hello": 5.0, "upload_chunk": 30.0, "get": 30.0}
QUIET_S = 2.0  # a ping after this much silence
BACK_OFF_S = (0.1, 5.0)
SMALL = 64 * 1024  # bytes of a frame that are worth no thought
SLOW_DOWN_S = 0.3  # until a request is sent again that the server put off
PROOF_NAME = re.compile(r"nonce-[0-9a-f]{32}")
PROOF = re.compile(r"[0-9a-f]{64}")

Context: TypeAlias = "zmq.Context[Any]"
Socket: TypeAlias = "zmq.Socket[Any]"
Reply = tuple[dict[str, Any], list[bytes | memoryview]]


class Refused(KinoraError):
    """The server answered a request with an error; `code` is one of docs/protocol.md."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class Lost(KinoraError):
    """The connection is gone or could not be made; `reason` and `hint` are for the user."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason, self.hint = reason, hint


@dataclass
class _Pending:
    parts: list[bytes]
    reply: asyncio.Future[Reply]
    answer_s: float
    sent: float | None = None  # when, on the present socket


class Link:
    """A connection that repairs itself: requests wait through any break and are sent again (all are idempotent).

    `on_up` gets the server's hello each time the link stands, `on_down` the reason when it falls, `on_push` the
    header of every push. `prove_host` False never claims to be on the server's machine.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        on_up: Callable[[dict[str, Any]], None] = lambda hello: None,
        on_down: Callable[[Lost], None] = lambda lost: None,
        on_push: Callable[[dict[str, Any]], None] = lambda push: None,
        prove_host: bool = True,
        client: str = "",
    ) -> None:
        self.same_host = False
        self.caps: frozenset[str] = frozenset()  # what the server can do beyond the version
        self.up = asyncio.Event()
        self._connection, self._prove_host = connection, prove_host
        self._client = client or f"Kinora add-on {own_version()}"
        self._on_up, self._on_down, self._on_push = on_up, on_down, on_push
        self._context = zmq.asyncio.Context()
        self._context.rcvhwm = 0  # libzmq 4.3 aborts the process when a line breaks whose queue is full
        self._socket: Socket | None = None
        self._pending: dict[int, _Pending] = {}
        self._last_id = 0
        self._heard = 0.0

    async def request(self, kind: str, frames: Sequence[bytes] = (), /, **fields: Any) -> Reply:
        """Header and frames of the reply, however long the connection takes. Raises Refused when it is declined."""
        number = self._enter(kind, frames, fields)
        try:
            if self.up.is_set():
                self._send(number)
            return await self._pending[number].reply
        finally:
            self._pending.pop(number, None)

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        wait_s, told = BACK_OFF_S[0], ""
        try:
            while True:
                lost = await self._session()
                was_up, self.same_host = self.up.is_set(), False
                self.up.clear()
                if was_up or lost.reason != told:
                    told = lost.reason
                    self._on_down(lost)
                wait_s = BACK_OFF_S[0] if was_up else min(wait_s * 2, BACK_OFF_S[1])
                await asyncio.sleep(wait_s)
        finally:
            self.up.clear()
            self._context.destroy(linger=0)

    async def _session(self) -> Lost:
        """One socket's life; why it ended."""
        try:
            self._socket = socket = open_dealer(self._context, self._connection)
        except Lost as lost:
            return lost
        self._heard = time.monotonic()
        monitor = socket.get_monitor_socket()
        tasks = {asyncio.create_task(work) for work in (self._watch(monitor), self._listen(socket), self._greet())}
        try:
            # Not a TaskGroup: before Python 3.13 that one loses a cancellation that comes along with an error.
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for pending in self._pending.values():
                pending.sent = None
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=0)
            self._socket = None
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, Lost):
                raise end
        return next(end for end in ends if isinstance(end, Lost))

    async def _greet(self) -> None:
        """Say hello, prove the host, and send what waits."""
        mine = {
            "ver_min": PROTOCOL_OLDEST,
            "ver_max": PROTOCOL_VERSION,
            "client": self._client,
            "caps": [*ENCODINGS, reads_captures()],
        }
        try:
            hello = await self._ask("hello", **mine)
            proof = _proof(hello.get("proof", "")) if self._prove_host else None
            if proof is not None:
                self.same_host = (await self._ask("prove", nonce=proof))["same_host"]
        except Refused as refused:
            raise Lost(refused.message, refused.hint) from refused
        self.caps = frozenset(hello.get("caps", ()))
        self.up.set()
        self._on_up(hello)
        for number in list(self._pending):
            self._send(number)

    async def _ask(self, kind: str, /, **fields: Any) -> dict[str, Any]:
        """A request that belongs to this socket alone."""
        number = self._enter(kind, (), fields)
        try:
            self._send(number)
            return (await self._pending[number].reply)[0]
        finally:
            del self._pending[number]

    async def _listen(self, socket: Socket) -> None:
        """Take in replies and pushes; Lost on silence."""
        while True:
            if await socket.poll(250):
                self._take([_held(frame) for frame in await socket.recv_multipart(copy=False)])
            now = time.monotonic()
            waiting = [p for p in self._pending.values() if p.sent is not None]
            for p in waiting:
                # Any traffic counts as alive, but not for ever: a reply may have been dropped.
                if now - max(p.sent, self._heard) > p.answer_s or now - p.sent > 10 * p.answer_s:
                    where = self._connection.address
                    raise Lost(f"The backend at {where} does not answer", "it may be busy; trying again")
            if not waiting and now - self._heard > QUIET_S and self.up.is_set():
                number = self._enter("ping", (), {})
                self._pending[number].reply.add_done_callback(lambda _, n=number: self._pending.pop(n, None))
                self._send(number)

    def _take(self, parts: list[bytes | memoryview]) -> None:
        self._heard = time.monotonic()
        try:
            header, frames = decode(parts)
            kind = check_reply(header, frames)
        except ProtocolError as error:
            words = f"The backend sent what this add-on does not understand ({error})"
            raise Lost(words, "update the older of the two") from error
        if kind in PUSHES:
            self._on_push(header)
            return
        pending = self._pending.get(header["id"])
        if pending is None or pending.reply.done():
            return  # the answer to a request that was sent twice, or given up
        if kind == "error" and header["code"] == "slow_down":
            asyncio.get_running_loop().call_later(SLOW_DOWN_S, self._send_again, header["id"])
        elif kind == "error":
            pending.reply.set_exception(Refused(header["code"], header["message"], header["hint"]))
        else:
            pending.reply.set_result((header, frames))

    async def _watch(self, monitor: Socket) -> None:
        """Lost, with its reason, when the socket's monitor tells of a failure."""
        where, known = self._connection.address, False
        while True:
            event = parse_monitor_message(await monitor.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                known = True
            elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise Lost(
                    f"The backend at {where} does not know this computer's key",
                    "add the client's public key to the backend's authorized_keys, or choose its connection file again",
                )
            elif event in (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL, zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
                raise Lost(
                    f"The server at {where} is not the one of this connection file",
                    "choose the connection file of the backend that runs there",
                )
            elif event == zmq.EVENT_DISCONNECTED and known:
                raise Lost("The connection to the backend broke", "trying again")
            elif event == zmq.EVENT_DISCONNECTED:
                raise Lost(f"What answers at {where} is not a Kinora backend", "check the address and the port")
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_CONNECT_RETRIED):
                raise Lost(f"No backend answers at {where}", "start it, or check the address")

    def _enter(self, kind: str, frames: Sequence[bytes], fields: dict[str, Any]) -> int:
        self._last_id += 1
        parts = encode({"t": kind, "id": self._last_id, **fields}, frames)
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        chunks = (fields.get("n", 0) + sum(map(len, frames))) / CHUNK
        self._pending[self._last_id] = _Pending(parts, reply, LONGER_S.get(kind, ANSWER_S) * max(1, chunks))
        return self._last_id

    def _send_again(self, number: int) -> None:
        if number in self._pending and self.up.is_set():
            self._send(number)

    def _send(self, number: int) -> None:
        if self._socket is not None:
            self._pending[number].sent = time.monotonic()
            self._socket.send_multipart(self._pending[number].parts, copy=False)


def _held(frame: zmq.Frame) -> bytes | memoryview:
    """A frame's bytes: of a large one, such as a piece of a file, where they lie, since a copy costs as the cipher."""
    return frame.buffer if len(frame) > SMALL else frame.bytes


def own_version() -> str:
    """The extension's version, as its manifest has it."""
    manifest = Path(__file__).parent / "blender_manifest.toml"
    return tomllib.loads(manifest.read_text(encoding="utf-8"))["version"]


def open_dealer(context: Context, connection: Connection) -> Socket:
    """A socket of `context` that connects to a server and to no other than the one with that key."""
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = connection.server_public_key.encode()
    socket.curve_publickey = connection.client_public_key.encode()
    socket.curve_secretkey = connection.client_secret_key.encode()
    for option, value in (
        (zmq.IMMEDIATE, 1),
        (zmq.LINGER, 0),  # the default waits for ever, and Blender with it
        (zmq.MAXMSGSIZE, FRAME_MAX + 4096),
        (zmq.HEARTBEAT_IVL, 2000),
        (zmq.HEARTBEAT_TIMEOUT, 10_000),
    ):
        socket.setsockopt(option, value)
    try:
        socket.connect(connection.address)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise Lost(f"{connection.address} is not an address ({error})", "write it as tcp://host:port") from error
    return socket


def _proof(path: str) -> str | None:
    """The nonce in the server's proof file, when this machine has that file; of no other file is anything told.

    The path is the server's word: it must not lead Windows to another machine, nor this thread into a pipe.
    """
    if not PROOF_NAME.fullmatch(Path(path).name) or path.startswith(("\\\\", "//")):
        return None
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        with open(path, encoding="ascii") as file:
            nonce = file.read(65)
    except (OSError, ValueError):
        return None
    return nonce if PROOF.fullmatch(nonce) else None
