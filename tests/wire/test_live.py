"""Live frames: bytes and arrays are the same thing, and nothing else is taken for a frame."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_addon.wire.errors import ProtocolError
from blender_addon.wire.framing import CHUNK
from blender_addon.wire.live import MOST_POINTS, LiveFrame


def some(count: int = 5) -> LiveFrame:
    rng = np.random.default_rng(count)
    camera = np.eye(4)
    camera[:3, 3] = 1, 2, 3
    return LiveFrame(
        frame=7,
        clip_frame=21,
        plate_size=(1920, 1080),
        world_from_camera=camera,
        plate_intrinsics=np.array([1500.0, 1500.0, 960.0, 540.0]),
        points=rng.normal(0, 3, (count, 3)).astype(np.float32),
        colours=rng.integers(0, 256, (count, 3), dtype=np.uint8),
        dynamic=rng.random(count) < 0.5,
        spacing=0.01,
        world=2,
    )


@pytest.mark.parametrize("count", [0, 1, 5, MOST_POINTS])
def test_what_is_encoded_comes_back_exactly(count):
    frame = some(count)
    data = frame.encode()
    assert len(data) <= CHUNK
    back = LiveFrame.decode(data)
    for name, value in vars(frame).items():
        assert np.array_equal(getattr(back, name), value), name
    assert (back.points.dtype, back.colours.dtype, back.dynamic.dtype) == (np.float32, np.uint8, bool)


def test_more_points_than_a_message_holds_are_refused():
    with pytest.raises(ValueError, match="at most"):
        some(MOST_POINTS + 1).encode()


def test_arrays_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="colours has shape"):
        replace(some(5), colours=np.zeros((4, 3), np.uint8))


@pytest.mark.parametrize(
    "change",
    [
        {"points": np.full((5, 3), np.nan, np.float32)},
        {"world_from_camera": np.full((4, 4), np.inf)},
        {"plate_intrinsics": np.array([0.0, 1, 1, 1])},
        {"spacing": 0.0},
        {"spacing": float("nan")},
        {"plate_size": (0, 5)},
        {"frame": 2**31},
    ],
)
def test_impossible_numbers_are_refused(change):
    with pytest.raises(ProtocolError, match="impossible numbers"):
        LiveFrame.decode(replace(some(5), **change).encode())


def test_a_cut_or_longer_message_is_refused():
    data = some(5).encode()
    for wrong in (b"", data[:3], data[:50], data[:-1], data + b"\0", b"KLF2" + data[4:]):
        with pytest.raises(ProtocolError):
            LiveFrame.decode(wrong)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_frame_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        LiveFrame.decode(b"KLF1" + data)
