"""Live frames: bytes and arrays are the same thing, and nothing else is taken for a frame."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blender_addon.wire.capture import ClipInfo, PlateMap
from blender_addon.wire.errors import ProtocolError
from blender_addon.wire.framing import CHUNK
from blender_addon.wire.live import MOST_POINTERS, MOST_POINTS, MOST_TEXT, LiveFrame, LiveGrid

CLIP = ClipInfo(
    source="",
    plate_size=(1920, 1080),
    fps=Fraction(24000, 1001),
    frame_indices=(31,),
    timestamps=(1.293,),
    rotation=90,
    variable_frame_rate=True,
    kind="images",
    image_names=("Außen 0031.exr",),
    k1=0.1,
    k2=-0.02,
)


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
        clip=CLIP,
        of_frames=30,
        grid=LiveGrid((5, 3), PlateMap(1 / 384, 1 / 360, 0.5, 0.25)),
        pointers=rng.normal(0, 3, (min(count, MOST_POINTERS), 3)).astype(np.float32),
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


def test_a_frame_of_which_nothing_else_is_known_comes_back_too():
    back = LiveFrame.decode(replace(some(3), clip=None, of_frames=0, grid=None).encode())
    assert (back.clip, back.of_frames, back.grid) == (None, 0, None)


def test_no_path_of_the_backend_goes_over_the_wire():
    back = LiveFrame.decode(replace(some(3), clip=replace(CLIP, source="/home/somebody/shot.mp4")).encode())
    assert back.clip == CLIP


def with_text(text: str) -> bytes:
    """A frame with another text than its own."""
    frame = some(3)
    whole, mine = frame.encode(), frame.text().encode()
    length = len(text.encode()).to_bytes(4, "little")
    at = whole.index(len(mine).to_bytes(4, "little"), 32)
    return whole[:at] + length + whole[at + 4 : len(whole) - len(mine)] + text.encode()


def told(**change) -> str:
    text = json.loads(some(3).text())
    text["clip"] |= {name: value for name, value in change.items() if name in text["clip"]}
    return json.dumps(text | {name: value for name, value in change.items() if name in text})


def test_its_text_is_read_as_it_was_written():
    assert LiveFrame.decode(with_text(told())).clip == CLIP


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 4000,
        told(of_frames=-1),
        told(of_frames=1.5),
        told(grid=[5, 3, 1, 1, 0]),
        told(grid=[0, 3, 1, 1, 0, 0]),
        told(grid=[2**20, 2**20, 1, 1, 0, 0]),
        told(grid=[5, 3, 0, 1, 0, 0]),
        told(grid=[5, 3, float("nan"), 1, 0, 0]),
        told(fps=[24, 0]),
        told(fps=["9" * 3000, 1]),
        told(frame_indices=[1, 2]),
        told(timestamps=[float("inf")]),
        told(timestamps="x"),
        told(image_names=["../../.bashrc"]),
        told(kind="virus"),
        told(rotation=1e300),
        told(k1=None),
        json.dumps({**json.loads(told()), "clip": 5}),
        " " * (MOST_TEXT + 1),
    ],
)
def test_a_text_that_tells_nothing_possible_is_refused(text):
    with pytest.raises(ProtocolError):
        LiveFrame.decode(with_text(text))


def test_arrays_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="colours has shape"):
        replace(some(5), colours=np.zeros((4, 3), np.uint8))


@pytest.mark.parametrize(
    "change",
    [
        {"points": np.full((5, 3), np.nan, np.float32)},
        {"pointers": np.full((5, 3), np.inf, np.float32)},
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
    for wrong in (b"", data[:3], data[:50], data[:-1], data + b"\0", b"KLF1" + data[4:]):
        with pytest.raises(ProtocolError):
            LiveFrame.decode(wrong)


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_are_a_frame_or_a_protocol_error(data):
    with contextlib.suppress(ProtocolError):
        LiveFrame.decode(b"KLF2" + data)
