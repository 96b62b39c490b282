"""Talking with the server of this machine, one question after the other, for commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from .. import __version__
from ..wire import Connection, ProtocolError, UserError, framing, messages

ANSWER_S = 5.0
Ask = Callable[..., dict[str, Any]]


@contextmanager
def talk(connection: Connection, answer_s: float = ANSWER_S, *, greet: bool = True) -> Iterator[Ask]:
    """A function `ask(kind, **fields)` that returns the reply; hello was said already, its reply is `ask("hello")`.

    Without `greet` nothing was said yet: a server of any version answers `ping` and `shutdown` all the same.
    Raises UserError when nothing answers within `answer_s` seconds, or when the server refuses.
    """
    context = zmq.Context()
    try:
        socket = _dealer(context, connection)
        numbers = iter(range(1, 2**53))

        def ask(kind: str, **fields: Any) -> dict[str, Any]:
            number = next(numbers)
            if not socket.poll(int(answer_s * 1000), zmq.POLLOUT):
                raise _silent(connection)
            socket.send_multipart(framing.encode({"t": kind, "id": number, **fields}))
            while socket.poll(int(answer_s * 1000)):
                try:
                    header, frames = framing.decode(socket.recv_multipart())
                    messages.check_reply(header, frames)
                except ProtocolError as error:
                    raise UserError(f"The server's answer is not understood ({error})", "restart it") from error
                if header["t"] == "error":
                    raise UserError(header["message"], header["hint"])
                if header.get("id") == number:
                    return header
            raise _silent(connection)

        if not greet:
            yield ask
            return
        mine = {"ver_min": messages.PROTOCOL_OLDEST, "ver_max": messages.PROTOCOL_VERSION}
        hello = ask("hello", **mine, client=f"Kinora command line {__version__}", caps=[])
        yield lambda kind, **fields: hello if kind == "hello" else ask(kind, **fields)
    finally:
        context.destroy(linger=0)


def _silent(connection: Connection) -> UserError:
    return UserError(
        f"No server answers at {connection.address}", "start it with 'python -m backend serve', or look at its log"
    )


def _dealer(context: zmq.Context, connection: Connection) -> zmq.Socket:
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = connection.server_public_key.encode()
    socket.curve_publickey = connection.client_public_key.encode()
    socket.curve_secretkey = connection.client_secret_key.encode()
    for option, value in ((zmq.IMMEDIATE, 1), (zmq.LINGER, 0), (zmq.MAXMSGSIZE, framing.FRAME_MAX + 4096)):
        socket.setsockopt(option, value)
    try:
        socket.connect(connection.address)
    except zmq.ZMQError as error:
        socket.close(linger=0)
        raise UserError(f"{connection.address} is not an address ({error})", "restart the server") from error
    return socket
