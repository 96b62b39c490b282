"""Live frames: what a job shows of one frame while it runs, as arrays and as bytes that fit one message.

A live frame is a look at work in progress, not a result: fewer points than the capture will have, newest version only.
It says what it is of, so that the frames that came make a partial capture when the job ends without one.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .capture import ClipInfo, PlateMap
from .errors import ProtocolError
from .framing import CHUNK

MAGIC = b"KLF2"
#: world, frame, clip frame, plate width and height, points, pointers, bytes of the text; spacing, fx fy cx cy,
#: world_from_camera row by row.
_HEADER = struct.Struct("<4s8I21d")
POINT_BYTES, POINTER_BYTES = 12 + 3 + 1, 12
MOST_POINTERS = 2_000
#: Most bytes of the text that says what the frame is of.
MOST_TEXT = 4096
#: What a live frame may take beside its points.
OVERHEAD_BYTES = _HEADER.size + MOST_TEXT + MOST_POINTERS * POINTER_BYTES
#: Most points of one live frame: what one message holds.
MOST_POINTS = (CHUNK - OVERHEAD_BYTES) // POINT_BYTES
MOST_FRAMES = 100_000
#: Bytes of all live frames of a job together: a long clip shows fewer points a frame.
JOB_BYTES = 256 * 1024**2
NO_POINTERS = np.empty((0, 3), np.float32)
_MOST = 2**31 - 1


@dataclass(frozen=True)
class LiveGrid:
    """The pixels that a live frame's points were seen at, each in the middle of one: their `size` (width, height), and
    where they lie on the plate."""

    size: tuple[int, int]
    plate_map: PlateMap


@dataclass(frozen=True)
class LiveFrame:
    """What is known of a frame now: its camera, and a thinned cloud in the job's world.

    `frame` counts the capture's frames from 0; `clip_frame` is how many frames of the plate after the first used one it
    is. `world_from_camera` (4, 4) has OpenCV axes, `plate_intrinsics` fx fy cx cy are in edge-origin pixels of the
    plate. `points` (N, 3) float32, `colours` (N, 3) uint8, `dynamic` (N,) bool; N may be 0. `spacing` is what one of
    these points spans at unit distance. Frames of different `world` do not fit together: a higher one starts over.

    `clip` is what is known of the footage with this one frame of it, its source left out; `of_frames` how many frames
    the capture will have, 0 when nobody says. `grid` is None for points that were not seen at pixels of one.
    `pointers` (P, 3) float32 are places that the memory of a streaming engine knows after this frame.
    """

    frame: int
    clip_frame: int
    plate_size: tuple[int, int]
    world_from_camera: np.ndarray
    plate_intrinsics: np.ndarray
    points: np.ndarray
    colours: np.ndarray
    dynamic: np.ndarray
    spacing: float
    world: int = 0
    clip: ClipInfo | None = None
    of_frames: int = 0
    grid: LiveGrid | None = None
    pointers: np.ndarray = field(default_factory=lambda: NO_POINTERS)

    def __post_init__(self) -> None:
        count = len(self.points)
        for name, value, shape in (
            ("world_from_camera", self.world_from_camera, (4, 4)),
            ("plate_intrinsics", self.plate_intrinsics, (4,)),
            ("points", self.points, (count, 3)),
            ("colours", self.colours, (count, 3)),
            ("dynamic", self.dynamic, (count,)),
            ("pointers", self.pointers, (len(self.pointers), 3)),
        ):
            if value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {shape}")

    def encode(self) -> bytes:
        """The frame as bytes, at most CHUNK of them. Raises ValueError when more is in it than fits."""
        if len(self.points) > MOST_POINTS or len(self.pointers) > MOST_POINTERS:
            raise ValueError(f"{len(self.points)} points, at most {MOST_POINTS} fit; of pointers, {MOST_POINTERS}")
        text = self.text().encode()
        if len(text) > MOST_TEXT:
            raise ValueError(f"{len(text)} bytes of text, at most {MOST_TEXT} fit")
        header = _HEADER.pack(
            MAGIC,
            *(self.world, self.frame, self.clip_frame, *self.plate_size),
            *(len(self.points), len(self.pointers), len(text)),
            *(self.spacing, *self.plate_intrinsics, *np.asarray(self.world_from_camera, np.float64).ravel()),
        )
        arrays = ((self.points, "<f4"), (self.pointers, "<f4"), (self.colours, np.uint8), (self.dynamic, np.uint8))
        return b"".join([header, *(np.ascontiguousarray(values, kind).tobytes() for values, kind in arrays), text])

    def text(self) -> str:
        """What the frame is of, as `about` reads it."""
        told: dict[str, Any] = {"of_frames": self.of_frames}
        if self.grid is not None:
            told["grid"] = [*self.grid.size, *vars(self.grid.plate_map).values()]
        if self.clip is not None:
            told["clip"] = {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self.clip).items()}
            told["clip"] |= {"source": "", "fps": list(self.clip.fps.as_integer_ratio())}
        return json.dumps(told, ensure_ascii=False)

    @classmethod
    def decode(cls, data: bytes) -> LiveFrame:
        """The frame that `encode` wrote. Raises ProtocolError on anything that is not one."""
        if len(data) < _HEADER.size or data[:4] != MAGIC:
            raise ProtocolError("not a live frame")
        _, *counts, spacing = _HEADER.unpack_from(data)[:10]
        world, frame, clip_frame, width, height, count, pointers, text = counts
        numbers = np.array(_HEADER.unpack_from(data)[10:])
        sizes = [12 * count, 12 * pointers, 3 * count, count, text]
        if len(data) != _HEADER.size + sum(sizes) or text > MOST_TEXT:
            raise ProtocolError("a live frame of the wrong size")
        body = np.frombuffer(data, np.uint8, offset=_HEADER.size)
        points, places, colours, dynamic, told = np.split(body, np.cumsum(sizes)[:-1])
        points, places = (p.view("<f4").astype(np.float32).reshape(-1, 3) for p in (points, places))
        intrinsics, camera = numbers[:4], numbers[4:].reshape(4, 4)
        finite = all(np.isfinite(values).all() for values in (numbers, points, places))
        sizes = 0 < width <= _MOST and 0 < height <= _MOST and frame < MOST_FRAMES and max(world, clip_frame) <= _MOST
        if not (finite and sizes and 0 < spacing < np.inf and (intrinsics[:2] > 0).all()):
            raise ProtocolError("a live frame with impossible numbers")
        clip, of_frames, grid = about(told.tobytes())
        return cls(
            frame,
            clip_frame,
            (width, height),
            camera,
            intrinsics,
            points,
            colours.reshape(count, 3),
            dynamic.astype(bool),
            spacing,
            world,
            clip,
            of_frames,
            grid,
            places,
        )


def about(text: bytes | str) -> tuple[ClipInfo | None, int, LiveGrid | None]:
    """The `clip`, `of_frames` and `grid` of a frame from its text. Raises ProtocolError when it is none."""
    try:
        told = json.loads(text)
        of_frames = _whole(told["of_frames"])
        clip = _clip(told["clip"]) if "clip" in told else None
        grid = None
        if "grid" in told:
            width, height, sx, sy, ox, oy = told["grid"]
            grid = LiveGrid((_whole(width, 1), _whole(height, 1)), PlateMap(*map(_number, (sx, sy, ox, oy))))
            if grid.size[0] * grid.size[1] > CHUNK or min(grid.plate_map.sx, grid.plate_map.sy) <= 0:
                raise ValueError("an impossible grid")
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ProtocolError(f"a live frame of nothing known ({error})"[:200]) from error
    return clip, of_frames, grid


def _clip(told: dict[str, Any]) -> ClipInfo:
    """The facts of one frame's footage. Raises ValueError or TypeError when they are none."""
    (index,), (timestamp,), rate = told["frame_indices"], told["timestamps"], [_whole(n, 1) for n in told["fps"]]
    width, height = (_whole(n, 1) for n in told["plate_size"])
    names = [str(name) for name in told["image_names"]]
    if len(names) > 1 or any("/" in name or "\\" in name or name in ("", ".", "..") for name in names):
        raise ValueError("an odd image name")
    if told["kind"] not in ("video", "images") or told["rotation"] not in (0, 90, 180, 270):
        raise ValueError("an odd clip")
    return ClipInfo(
        source="",
        plate_size=(width, height),
        fps=Fraction(*rate),
        frame_indices=(_whole(index),),
        timestamps=(_number(timestamp),),
        rotation=told["rotation"],
        variable_frame_rate=bool(told["variable_frame_rate"]),
        kind=told["kind"],
        image_names=tuple(names),
        k1=_number(told["k1"]),
        k2=_number(told["k2"]),
    )


def _whole(value: Any, least: int = 0) -> int:
    if not isinstance(value, int) or not least <= value <= _MOST:
        raise ValueError(f"{value!r:.50} is no such number")
    return int(value)


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{value!r:.50} is no such number")
    return float(value)
