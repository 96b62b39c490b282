"""Framing: what is encoded comes back, and whatever else arrives is refused in one way."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_addon.wire.errors import ProtocolError
from blender_addon.wire.framing import DEPTH_MAX, FRAME_MAX, FRAMES_MAX, HEADER_MAX, MAGIC, VALUES_MAX, decode, encode

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=6),
    st.lists(st.binary(), max_size=FRAMES_MAX),
)
def test_decode_undoes_encode(header, frames):
    assert decode(encode(header, frames)) == (header, frames)


@given(st.lists(st.binary(max_size=200), max_size=9))
def test_any_bytes_are_a_message_or_a_protocol_error(parts):
    try:
        header, _ = decode(parts)
    except ProtocolError:
        return
    assert isinstance(header, dict)


@given(st.binary(max_size=300))
def test_any_header_is_a_message_or_a_protocol_error(text):
    try:
        header, _ = decode([MAGIC, text])
    except ProtocolError:
        return
    assert isinstance(header, dict)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [MAGIC],
        [b"4DR2", b"{}"],
        [MAGIC, b""],
        [MAGIC, b"[]"],
        [MAGIC, b'"text"'],
        [MAGIC, b'{"a": NaN}'],
        [MAGIC, b'{"a": -Infinity}'],
        [MAGIC, b'{"a": 1e999}'],
        [MAGIC, b'{"a": ' + b"9" * 5000 + b"}"],
        [MAGIC, b"\xff\xfe"],
        [MAGIC, b"[" * 60_000],
        [MAGIC, b'{"a":' * 10_000],
        [MAGIC, b" " * HEADER_MAX + b"{}"],
        [MAGIC, b"{}", *[b""] * (FRAMES_MAX + 1)],
        [MAGIC, b"{}", bytes(FRAME_MAX + 1)],
    ],
    ids=lambda parts: f"{len(parts)} parts " + repr(b"".join(parts)[:24]),
)
def test_what_is_not_a_message_is_refused(parts):
    with pytest.raises(ProtocolError):
        decode(parts)


def test_we_never_send_what_the_other_side_would_refuse():
    for header, frames in (({"a": "x" * HEADER_MAX}, []), ({}, [b""] * (FRAMES_MAX + 1)), ({}, [bytes(FRAME_MAX + 1)])):
        with pytest.raises(ValueError, match="exceeds"):
            encode(header, frames)
    with pytest.raises(ValueError, match="JSON"):
        encode({"a": float("nan")})


def test_text_of_a_file_system_that_is_not_unicode_does_not_stop_a_message():
    header, _ = decode(encode({"path": "clip-\udcff.mp4"}))
    assert header["path"].startswith("clip-")
    assert json.dumps(header)


def nested(depth):
    return b'{"t":' * depth + b"1" + b"}" * depth


def test_a_header_may_be_as_deep_and_as_rich_as_a_message_needs():
    assert decode([MAGIC, nested(DEPTH_MAX)])[0]
    rows = [{"name": "x", "size": 1}] * 1000
    assert decode(encode({"t": "list", "jobs": rows}))[0]["jobs"] == rows


@pytest.mark.parametrize(
    "text",
    [
        nested(DEPTH_MAX + 1),
        nested(10_000),
        b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a":[' + b"1," * VALUES_MAX + b"1]}",
        b'{"a":[' + b"[]," * VALUES_MAX + b"1]}",
        b"{" + b",".join(b'"%d":[1]' % i for i in range(4000)) + b"," + b'"a":[' + b"1," * 8500 + b"1]}",
    ],
    ids=["one too deep", "deep tables", "deep lists", "many values", "many lists", "many keys and values"],
)
def test_depth_and_number_of_values_are_bounded(text):
    assert len(text) < HEADER_MAX
    with pytest.raises(ProtocolError, match=r"nested|values|not JSON"):
        decode([MAGIC, text])
