"""Fuzzing of everything that reads what the other side sent: seeds that hypothesis cuts, doubles, mixes and damages.

`python -m tests.fuzz` does the same for a million inputs and more, guided by the code that they reach.
"""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

#: Each of these touches files.
SLOW = ("archive", "capture_json", "capture_array", "packed_result", "packed_table")
#: What damages numbers, names and structure rather than single bytes.
PIECES = (
    *(b"", b"\0", b"\xff", b"\xff\xfe", b"M\xff\xfe", b"-", b"1e999", b"9" * 400, b"null", b"true", b"NaN"),
    *(b"[]", b"{}", b'"', b"[" * 50, b'{"a":' * 20, b"../", b"/etc/passwd", b"\\ud800", b"\xed\xa0\x80", b"kinora1-"),
)


@cache
def seeds_of(name: str) -> list[bytes]:
    return TARGETS[name].seeds()


def damaged(name: str) -> st.SearchStrategy[bytes]:
    """A seed of the target with some of its stretches replaced."""

    @st.composite
    def make(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(seeds_of(name)))
        for _ in range(draw(st.integers(1, 3))):
            first = draw(st.integers(0, len(data)))
            length = draw(st.sampled_from((0, 1, 2, 4, 16, len(data))))
            piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8) | st.just(data[first : first + 64] * 2))
            data = data[:first] + piece + data[first + length :]
        return data

    return make()


@pytest.mark.parametrize("name", TARGETS)
def test_good_input_is_taken(name):
    """So that damage begins where a reader already believes."""
    taken = [TARGETS[name].run(seed) for seed in seeds_of(name)]
    assert sum(taken) > len(taken) * (0.7 if name in ("message", "header") else 0.3)


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in SLOW])
def test_any_damage_is_refused_as_it_should_be(name):
    @settings(max_examples=150, deadline=2000, suppress_health_check=list(HealthCheck))
    @given(damaged(name) | st.binary(max_size=400))
    def each(data: bytes) -> None:
        TARGETS[name].run(data)

    each()


@pytest.mark.parametrize("name", SLOW)
def test_any_damage_to_files_is_refused_as_it_should_be(name):
    @settings(max_examples=40, deadline=5000, suppress_health_check=list(HealthCheck))
    @given(damaged(name) | st.binary(max_size=400))
    def each(data: bytes) -> None:
        TARGETS[name].run(data)

    each()


READERS = {
    "message": "messages.check_request",
    "settings": "JobSettings.from_json",
    "pairing_code": "Connection.from_code",
    "archive": "bundle.unpack",
    "live_frame": "LiveFrame.decode",
    "capture_json": "capture.read_capture",
    "packed_result": "compact.unpack",
    "connection_file": "Connection.read",
}


@pytest.mark.parametrize("name", READERS)
def test_a_target_tells_what_escapes(name, monkeypatch):
    """So that none of the above passes because it looks at nothing."""

    def bug(*_: object) -> None:
        raise KeyError("escaped")

    (seed, *_) = seeds_of(name)
    monkeypatch.setattr(f"tests.fuzz.targets.{READERS[name]}", bug)
    with pytest.raises(KeyError, match="escaped"):
        TARGETS[name].run(seed)
