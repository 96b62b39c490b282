"""Messages: every message passes its own table, and everything else is refused with a reason."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_addon.wire import messages
from blender_addon.wire.errors import ProtocolError
from blender_addon.wire.messages import check_reply, check_request, safe_name

JOB, HASH = "0" * 32, "a" * 64
EVENT = {"n": 1, "at": 1.5, "kind": "log", "level": "info", "text": "hello", "hint": ""}
STATUS = {
    "job": JOB,
    "state": "running",
    "position": 0,
    "stage": "Solving",
    "stage_fraction": 0.5,
    "fraction": 0,
    "last": 3,
}
ROW = {
    "job": JOB,
    "state": "done",
    "created": 1.0,
    "name": "clip.mp4",
    "engine": "classical",
    "priority": 0,
    "pinned": False,
    "position": 0,
    "ended": 2.0,
    "attempt": 1,
    "bytes": 3,
    "ticket": JOB,
}

FACTS = {
    "kind": "video",
    "width": 1920,
    "height": 1080,
    "fps_num": 24000,
    "fps_den": 1001,
    "frames": 120,
    "rotation": 0,
    "codec": "h264",
    "variable_frame_rate": False,
    "counted": True,
    "audio": True,
    "warnings": ["The clip is interlaced"],
}
ESTIMATE = {
    "frames": 120,
    "seconds_low": 60.0,
    "seconds_high": 180.0,
    "memory_bytes": 10**9,
    "memory_free": 24 * 10**9,
    "learned": 2,
    "problem": "",
    "hint": "",
    "weights": ["monst3r"],
}

REQUESTS = {
    "hello": {"ver_min": 1, "ver_max": 1, "client": "test", "caps": ["a"]},
    "prove": {"nonce": HASH},
    "ping": {},
    "upload_open": {"sha256": HASH, "size": 1},
    "upload_chunk": {"sha256": HASH, "off": 0},
    "submit": {"sha256": HASH, "kind": "file", "name": "clip.mp4", "size": 1, "settings": {}},
    "find": {"ticket": JOB},
    "probe": {"path": "/plates/street.mp4"},
    "estimate": {"settings": {}, "width": 1920, "height": 1080, "frames": 120, "fps": 23.976},
    "status": {"job": JOB},
    "events": {"job": JOB, "since": 0},
    "list": {"first": 0},
    "result_index": {"job": JOB, "first": 0},
    "get": {"job": JOB, "name": "depth.npy", "off": 0, "n": 1},
    "live": {"job": JOB, "since": 0},
    "live_get": {"job": JOB, "frame": 3},
    "cancel": {"job": JOB},
    "delete": {"job": JOB},
    "prioritise": {"job": JOB, "priority": -9},
    "reorder": {"job": JOB},
    "pin": {"job": JOB, "pinned": True},
    "usage": {},
    "metrics": {"first": 0},
    "shutdown": {"how": "now"},
}
REPLIES = {
    "hello": {"ver": 1, "server": "x", "gpu": "", "limits": {"upload": 1, "queued": 1}, "instance": JOB, "proof": "/p"},
    "prove": {"same_host": True},
    "ping": {},
    "upload_open": {"have": 0, "whole": False},
    "upload_chunk": {"have": 0},
    "submit": {"job": JOB, "existed": False, "state": "queued", "position": 0, "since": 0},
    "find": {"job": JOB, "state": "running", "since": 3, "last": 7},
    "probe": {"ready": True, "facts": FACTS},
    "estimate": {"ready": True, "estimate": {**ESTIMATE, "gpu_bytes": 1, "gpu_free": 2}},
    "status": STATUS,
    "events": {"events": [EVENT], "last": 1, "state": "done", "position": 0},
    "list": {"jobs": [ROW], "total": 1},
    "result_index": {"ready": True, "files": [{"name": "a.npy", "size": 3}], "total": 1, "path": "/somewhere"},
    "get": {"off": 0, "size": 3},
    "live": {"attempt": 1, "last": 7, "frames": [{"n": 7, "frame": 3}]},
    "live_get": {"crc": 1},
    "cancel": {"state": "cancelled"},
    "delete": {},
    "prioritise": {"priority": 9, "position": 0},
    "reorder": {"position": 2},
    "pin": {"pinned": False},
    "usage": {"jobs": 3, "bytes": 10**9, "quota": 10**10, "free": 10**11},
    "metrics": {"samples": [{"name": "kinora_jobs", "labels": {"state": "done"}, "value": 3}], "total": 1},
    "shutdown": {},
    "error": {"code": "bad_request", "message": "no", "hint": ""},
    "progress": {**STATUS, "eta_s": 12.5, "where": "cuda:1"},
}
#: Fields of replies that may be missing.
OPTIONAL = ("proof", "path", "eta_s", "where", "facts", "estimate", "quota")


def whole(kind, fields, binary, with_id=True):
    return {"t": kind, **({"id": 1} if with_id else {}), **fields}, [b"x"] * binary.get(kind, 0)


def test_every_message_of_the_tables_has_an_example_here():
    assert set(REQUESTS) == set(messages.REQUESTS)
    assert set(REPLIES) == set(messages.REPLIES) | set(messages.PUSHES)


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_passes_and_none_of_its_fields_may_be_missing_or_added(kind):
    header, frames = whole(kind, REQUESTS[kind], messages.BINARY_REQUESTS)
    assert check_request(header, frames) == kind
    refuses_every_change(check_request, header, frames)


@pytest.mark.parametrize("kind", REPLIES)
def test_a_reply_passes_and_none_of_its_fields_may_be_missing_or_added(kind):
    header, frames = whole(kind, REPLIES[kind], messages.BINARY_REPLIES, with_id=kind not in messages.PUSHES)
    assert check_reply(header, frames) == kind
    refuses_every_change(check_reply, header, frames, optional=OPTIONAL)


def refuses_every_change(check, header, frames, optional=()):
    for name in header:
        if name not in optional:
            with pytest.raises(ProtocolError):
                check({k: v for k, v in header.items() if k != name}, frames)
        for wrong in (None, [[]], {"x": 1}, -1, float("nan"), 2**63, "\0", "x" * 5000):
            if name == "settings" and isinstance(wrong, dict):
                continue  # the settings have their own check
            if name == "priority" and wrong == -1:
                continue
            with pytest.raises(ProtocolError):
                check({**header, name: wrong}, frames)
    with pytest.raises(ProtocolError, match="unknown field"):
        check({**header, "extra": 1}, frames)
    with pytest.raises(ProtocolError, match="binary frames"):
        check(header, [*frames, b""])


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        *[
            ("get", "name", name)
            for name in (
                "../../jobs.db",
                "/etc/passwd",
                "..",
                ".",
                "",
                "a/b",
                "a\\b",
                "a\0b",
                ".hidden",
                "-rf",
                "a" * 65,
                "é",
                "a\n",
            )
        ],
        ("get", "n", 0),
        ("get", "n", 4 * 1024 * 1024 + 1),
        ("get", "n", True),
        ("get", "off", 1.0),
        ("status", "job", "0" * 31),
        ("status", "job", "0" * 31 + "G"),
        ("submit", "sha256", "A" * 64),
        ("submit", "kind", "socket"),
        ("submit", "path", "a\0b"),
        ("submit", "settings", []),
        ("upload_open", "size", 0),
        ("upload_open", "size", 16 * 1024**3 + 1),
        ("hello", "ver_min", 0),
        ("hello", "caps", ["x" * 41]),
        ("hello", "caps", ["x"] * 33),
        ("shutdown", "how", "later"),
    ],
)
def test_values_outside_their_limits_are_refused_by_name(kind, field, value):
    header, frames = whole(kind, {**REQUESTS[kind], field: value}, messages.BINARY_REQUESTS)
    with pytest.raises(ProtocolError, match=f"{kind}: {field} must be"):
        check_request(header, frames)


def test_a_reply_is_not_a_request_nor_the_other_way_round():
    with pytest.raises(ProtocolError, match="unknown type"):
        check_request({"t": "error", "id": 1, **REPLIES["error"]}, [])
    with pytest.raises(ProtocolError, match="unknown type"):
        check_reply({"t": "submitted", "id": 1}, [])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(sorted({f for table in messages.REQUESTS.values() for f in table} | {"t", "id"}))


@settings(deadline=None)
@given(st.sampled_from(sorted(REQUESTS)), st.dictionaries(fields, anything, max_size=6))
def test_any_header_passes_or_is_a_protocol_error(kind, values):
    for check in (check_request, check_reply):
        with contextlib.suppress(ProtocolError):
            assert check({"t": kind, **values}, []) == values.get("t", kind)


@given(st.text(max_size=200))
def test_any_file_has_a_name_on_the_wire(name):
    assert messages.NAME.fullmatch(safe_name(name))


def test_a_name_on_the_wire_keeps_its_suffix():
    assert safe_name("Läufer final (2).MOV") == "L_ufer_final__2_.MOV"
    assert safe_name("x" * 100 + ".mp4").endswith("x.mp4")
    assert safe_name("clip.mp4") == "clip.mp4"
