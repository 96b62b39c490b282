"""Messages: what each request, reply and push may hold, as one table that both sides check by; see docs/protocol.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .errors import ProtocolError
from .framing import CHUNK, CHUNKS_MOST, PIECE

PROTOCOL_VERSION = 2  # newest spoken
PROTOCOL_OLDEST = 2  # oldest still spoken
UPLOAD_MAX = 16 * 1024**3

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
SHA256 = re.compile(r"[0-9a-f]{64}")
JOB = re.compile(r"[0-9a-f]{32}")
UNWRITABLE = re.compile("[\0\ud800-\udfff]")

STATES = ("queued", "running", "done", "failed", "cancelled")
ENDED = ("done", "failed", "cancelled")

#: How a result is fetched: as its files, or as one file (compact.py), made on request.
ENCODINGS = ("exact", "compact-zstd", "compact-zlib")
#: Among the server's caps: one message moves up to CHUNKS_MOST chunks, in several frames.
FRAMES = "frames"


@dataclass(frozen=True)
class Kind:
    """What a field may hold: a test of its value, and that in words."""

    allows: Callable[[Any], bool]
    words: str
    required: bool = True


def optional(kind: Kind) -> Kind:
    """The same kind in a field that may be absent."""
    return replace(kind, required=False)


def integer(low: int, high: int) -> Kind:
    return Kind(lambda v: type(v) is int and low <= v <= high, f"an integer from {low} to {high}")


def number(low: float, high: float) -> Kind:
    return Kind(lambda v: type(v) in (int, float) and low <= v <= high, f"a number from {low} to {high}")


def text(most: int) -> Kind:
    """Text that can be written to files and databases: no NUL, and nothing that UTF-8 has no bytes for."""
    return Kind(
        lambda v: isinstance(v, str) and len(v) <= most and UNWRITABLE.search(v) is None,
        f"text of at most {most} characters",
    )


def matching(pattern: re.Pattern[str], words: str) -> Kind:
    return Kind(lambda v: isinstance(v, str) and pattern.fullmatch(v) is not None, words)


def choice(*values: str) -> Kind:
    return Kind(lambda v: isinstance(v, str) and v in values, "one of " + ", ".join(values))


def many(kind: Kind, most: int) -> Kind:
    return Kind(
        lambda v: isinstance(v, list) and len(v) <= most and all(map(kind.allows, v)),
        f"a list of at most {most}, each {kind.words}",
    )


def record(**fields: Kind) -> Kind:
    return Kind(lambda v: isinstance(v, dict) and not _fault(v, fields), "a table of " + ", ".join(fields))


FLAG = Kind(lambda v: type(v) is bool, "true or false")
TABLE = Kind(lambda v: isinstance(v, dict), "a table")
JOB_ID = matching(JOB, "a job id")
HASH = matching(SHA256, "a SHA-256 in lower-case hex")
FILE_NAME = matching(NAME, "a file name without folders")
COUNT = integer(0, 2**31)
CRC = integer(0, 2**32 - 1)
SIZE = integer(0, 2**53)
STATE = choice(*STATES)
FRACTION = number(0, 1)
SECONDS = number(0, 1e10)
VERSION = integer(1, 999)
PRIORITY = integer(-9, 9)
TICKET = matching(JOB, "a ticket of 32 hex digits")
STATUS = {
    "job": JOB_ID,
    "state": STATE,
    "position": COUNT,  # jobs before this one in the queue; 0 when it is not queued
    "stage": text(200),
    "stage_fraction": FRACTION,
    "fraction": FRACTION,
    "eta_s": optional(SECONDS),  # absent: not known
    "last": COUNT,  # number of the job's newest event
    "where": optional(text(200)),  # while it runs: the device and machine
}
JOB_ROW = record(
    job=JOB_ID,
    state=STATE,
    created=SECONDS,
    name=text(200),
    engine=text(64),
    priority=PRIORITY,
    pinned=FLAG,
    position=COUNT,
    ended=optional(SECONDS),  # absent: not over
    attempt=COUNT,
    bytes=SIZE,
    ticket=optional(TICKET),  # the newest that it was submitted with
)

LABELS = Kind(
    lambda v: isinstance(v, dict) and len(v) <= 4 and all(isinstance(t, str) and len(t) <= 80 for t in v.values()),
    "a table of at most 4 texts",
)
ENCODING = choice(*ENCODINGS)
SIDE = integer(1, 65536)
CLIP_FACTS = record(
    kind=choice("video", "images"),
    width=SIDE,
    height=SIDE,
    fps_num=integer(1, 2**53),
    fps_den=integer(1, 2**53),
    frames=COUNT,
    rotation=integer(0, 359),
    codec=text(40),
    variable_frame_rate=FLAG,
    counted=FLAG,
    audio=FLAG,
    warnings=many(text(500), 16),
)
ESTIMATE = record(
    frames=COUNT,
    seconds_low=SECONDS,
    seconds_high=SECONDS,
    memory_bytes=SIZE,
    memory_free=SIZE,
    gpu_bytes=optional(SIZE),
    gpu_free=optional(SIZE),
    learned=COUNT,
    problem=text(1000),
    hint=text(1000),
    weights=many(text(64), 16),
)

REQUESTS: dict[str, dict[str, Kind]] = {
    "hello": {"ver_min": VERSION, "ver_max": VERSION, "client": text(200), "caps": many(text(40), 32)},
    "prove": {"nonce": HASH},
    "ping": {},
    "upload_open": {"sha256": HASH, "size": integer(1, UPLOAD_MAX)},
    "upload_chunk": {"sha256": HASH, "off": SIZE, "crc": optional(CRC)},
    "submit": {
        "sha256": HASH,
        "kind": choice("file", "folder", "sequence"),
        "name": FILE_NAME,
        "path": optional(text(4096)),  # absent: uploaded before
        "sample": optional(HASH),  # what bundle.sample says of what is at `path`
        "size": SIZE,
        "masks_sha256": optional(HASH),
        "masks_path": optional(text(4096)),
        "masks_sample": optional(HASH),
        "masks_size": optional(SIZE),
        "settings": TABLE,
        "priority": optional(PRIORITY),
        "ticket": optional(TICKET),  # chosen by the client: what has the same ticket is the same job
    },
    "find": {"ticket": TICKET},
    "probe": {"path": text(4096)},
    "estimate": {
        "settings": TABLE,
        "width": SIDE,
        "height": SIDE,
        "frames": integer(1, 2**31),
        "fps": number(1e-3, 1e6),
    },
    "status": {"job": JOB_ID},
    "events": {"job": JOB_ID, "since": COUNT},
    "list": {"first": COUNT},
    "result_index": {"job": JOB_ID, "first": COUNT, "encoding": optional(ENCODING)},
    "get": {
        "job": JOB_ID,
        "name": FILE_NAME,
        "off": SIZE,
        "n": integer(1, CHUNKS_MOST * CHUNK),
        "encoding": optional(ENCODING),
    },
    "live": {"job": JOB_ID, "since": COUNT},
    "live_get": {"job": JOB_ID, "frame": COUNT},
    "cancel": {"job": JOB_ID},
    "delete": {"job": JOB_ID},
    "prioritise": {"job": JOB_ID, "priority": PRIORITY},
    "reorder": {"job": JOB_ID, "before": optional(JOB_ID)},  # absent: last
    "pin": {"job": JOB_ID, "pinned": FLAG},
    "usage": {},
    "metrics": {"first": COUNT},
    "shutdown": {"how": choice("drain", "park", "now")},
}

REPLIES: dict[str, dict[str, Kind]] = {
    "hello": {
        "ver": VERSION,
        "server": text(200),
        "gpu": text(200),
        "limits": record(upload=SIZE, queued=COUNT),
        "instance": matching(JOB, "an instance id"),
        "proof": optional(text(4096)),
        "caps": optional(many(text(40), 32)),
    },
    "prove": {"same_host": FLAG},
    "ping": {},
    "upload_open": {"have": SIZE, "whole": FLAG},  # all of it there and not whole: being read through, ask again
    "upload_chunk": {"have": SIZE},
    "submit": {"job": JOB_ID, "existed": FLAG, "state": STATE, "position": COUNT, "since": COUNT},
    "find": {"job": JOB_ID, "state": STATE, "since": COUNT, "last": COUNT},
    "probe": {"ready": FLAG, "facts": optional(CLIP_FACTS)},  # not ready: ask again
    "estimate": {"ready": FLAG, "estimate": optional(ESTIMATE)},
    "status": STATUS,
    "events": {
        "events": many(
            record(n=COUNT, at=SECONDS, kind=text(40), level=text(20), text=text(4000), hint=text(2000)), 1000
        ),
        "last": COUNT,
        "state": STATE,
        "position": COUNT,
    },
    "list": {
        "jobs": many(JOB_ROW, 1000),
        "total": COUNT,
    },
    "result_index": {
        "ready": FLAG,  # false: being made, ask again
        "files": many(record(name=FILE_NAME, size=SIZE, sha256=optional(HASH)), 1000),
        "total": COUNT,
        "path": optional(text(4096)),
    },
    "get": {"off": SIZE, "size": SIZE},
    "live": {"attempt": COUNT, "last": COUNT, "frames": many(record(n=COUNT, frame=COUNT), 1000)},
    "live_get": {"crc": CRC},
    "cancel": {"state": STATE},
    "delete": {},
    "prioritise": {"priority": PRIORITY, "position": COUNT},
    "reorder": {"position": COUNT},
    "pin": {"pinned": FLAG},
    "usage": {"jobs": COUNT, "bytes": SIZE, "quota": optional(SIZE), "free": SIZE},  # no quota: as much as there is
    "metrics": {
        "samples": many(record(name=text(80), labels=LABELS, value=number(0, 1e18)), 1000),
        "total": COUNT,
    },
    "shutdown": {},
    "error": {"code": text(40), "message": text(4000), "hint": text(2000)},
}

#: Sent by the server unasked, newest value only, and may be lost.
PUSHES: dict[str, dict[str, Kind]] = {"progress": STATUS}

#: How many binary frames come with a message, from one to so many; all others have none.
BINARY_REQUESTS = {"upload_chunk": CHUNKS_MOST}
BINARY_REPLIES = {"get": CHUNKS_MOST * CHUNK // PIECE, "live_get": 1}

ID = integer(0, 2**53)


def check_request(header: dict[str, Any], frames: list[bytes]) -> str:
    """The type of a request that is whole and well formed. Raises ProtocolError otherwise."""
    return _check(header, frames, REQUESTS, BINARY_REQUESTS, with_id=True)


def check_reply(header: dict[str, Any], frames: list[bytes]) -> str:
    """The type of a reply or a push that is whole and well formed. Raises ProtocolError otherwise."""
    if isinstance(header.get("t"), str) and header["t"] in PUSHES:
        return _check(header, frames, PUSHES, {}, with_id=False)
    return _check(header, frames, REPLIES, BINARY_REPLIES, with_id=True)


def safe_name(name: str) -> str:
    """A file name that the protocol allows, with the same suffix: what it does not allow becomes '_'."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name) or "_"
    name = name if NAME.match(name) else "_" + name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > 16:
        return name[:64]
    return stem[: 63 - len(suffix)] + "." + suffix


def _check(
    header: dict[str, Any],
    frames: list[bytes],
    table: Mapping[str, dict[str, Kind]],
    binary: Mapping[str, int],
    with_id: bool,
) -> str:
    kind = header.get("t")
    if not isinstance(kind, str) or kind not in table:
        raise ProtocolError("unknown type of message", "unknown_type")
    if with_id and not ID.allows(header.get("id")):
        raise ProtocolError(f"{kind}: id must be {ID.words}")
    fields = {k: v for k, v in header.items() if k != "t" and not (with_id and k == "id")}
    fault = _fault(fields, table[kind])
    if fault:
        raise ProtocolError(f"{kind}: {fault}")
    most = binary.get(kind, 0)
    if not min(1, most) <= len(frames) <= most:
        raise ProtocolError(f"{kind}: {len(frames)} binary frames, {most} are the most")
    return kind


def _fault(values: Mapping[str, Any], fields: Mapping[str, Kind]) -> str:
    """What is wrong with `values` by the table `fields`, in words; empty when nothing is."""
    for name in values:
        if name not in fields:
            return f"unknown field '{name[:64]}'"
    for name, kind in fields.items():
        if name not in values:
            if kind.required:
                return f"{name} is missing"
        elif not kind.allows(values[name]):
            return f"{name} must be {kind.words}"
    return ""
