"""Framing: one message is `[b"4DR1"][JSON header][at most six binary frames]`; see docs/protocol.md."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .errors import ProtocolError

MAGIC = b"4DR1"
HEADER_MAX = 64 * 1024
FRAMES_MAX = 6
FRAME_MAX = 4 * 1024 * 1024
DEPTH_MAX = 8  # tables and lists in one another
VALUES_MAX = 16 * 1024  # of all tables and lists together

#: Bulk data moves in chunks of this size, at most CREDIT of them asked for and not yet answered.
CHUNK = 1024 * 1024
CREDIT = 8
#: On a quick line one message moves so many of them at once, so that it costs less beside what it moves.
CHUNKS_MOST = 4
#: The longest frame of a result: a client that knows one frame a message asks for no more.
PIECE = 2 * CHUNK


def encode(header: dict[str, Any], frames: Sequence[bytes] = ()) -> list[bytes]:
    """The parts of a multipart message. Raises ValueError when we ourselves exceed the protocol's limits."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    if len(text) > HEADER_MAX or len(frames) > FRAMES_MAX or any(len(f) > FRAME_MAX for f in frames):
        raise ValueError(f"message '{header.get('t')}' exceeds the limits of the protocol")
    return [MAGIC, text, *frames]


def decode(parts: Sequence[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Header and binary frames of a received message. Raises ProtocolError on anything that is not one."""
    if len(parts) < 2 or bytes(parts[0]) != MAGIC:
        raise ProtocolError("not a message of this protocol", "bad_magic")
    if len(parts) > 2 + FRAMES_MAX:
        raise ProtocolError(f"{len(parts) - 2} binary frames, at most {FRAMES_MAX} are allowed")
    if len(parts[1]) > HEADER_MAX:
        raise ProtocolError(f"header of {len(parts[1])} bytes, at most {HEADER_MAX} are allowed")
    if any(len(p) > FRAME_MAX for p in parts[2:]):
        raise ProtocolError(f"a binary frame is longer than {FRAME_MAX} bytes")
    try:
        header = json.loads(bytes(parts[1]).decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ProtocolError("the header is not JSON of this protocol") from error
    if not isinstance(header, dict):
        raise ProtocolError("the header is not a JSON object")
    _check_shape(header)
    return header, list(parts[2:])


def _check_shape(header: dict[str, Any]) -> None:
    """Raise ProtocolError on more depth or values than any message has, so that nothing later has to expect them."""
    level: list[Any] = [header]
    values = 0
    for _ in range(DEPTH_MAX):
        values += sum(map(len, level))
        if values > VALUES_MAX:
            raise ProtocolError(f"the header holds more than {VALUES_MAX} values")
        inner = (v for value in level for v in (value.values() if isinstance(value, dict) else value))
        level = [v for v in inner if isinstance(v, (dict, list))]
        if not level:
            return
    raise ProtocolError(f"the header is nested more than {DEPTH_MAX} deep")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value
