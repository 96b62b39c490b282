"""Live frames: what a job shows of one frame while it runs, as arrays and as bytes that fit one message.

A live frame is a look at work in progress, not a result: fewer points than the capture will have, newest version only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .errors import ProtocolError
from .framing import CHUNK

MAGIC = b"KLF1"
#: world, frame, clip frame, plate width and height, points; spacing, fx fy cx cy, world_from_camera row by row.
_HEADER = struct.Struct("<4s6I21d")
POINT_BYTES = 12 + 3 + 1
#: Most points of one live frame: what one message holds.
MOST_POINTS = (CHUNK - _HEADER.size) // POINT_BYTES
MOST_FRAMES = 100_000
#: Bytes of all live frames of a job together: a long clip shows fewer points a frame.
JOB_BYTES = 256 * 1024**2
_MOST = 2**31 - 1


@dataclass(frozen=True)
class LiveFrame:
    """What is known of a frame now: its camera, and a thinned cloud in the job's world.

    `frame` counts the capture's frames from 0; `clip_frame` is how many frames of the plate after the first used one it
    is. `world_from_camera` (4, 4) has OpenCV axes, `plate_intrinsics` fx fy cx cy are in edge-origin pixels of the
    plate. `points` (N, 3) float32, `colours` (N, 3) uint8, `dynamic` (N,) bool; N may be 0. `spacing` is what one of
    these points spans at unit distance. Frames of different `world` do not fit together: a higher one starts over.
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

    def __post_init__(self) -> None:
        count = len(self.points)
        for name, value, shape in (
            ("world_from_camera", self.world_from_camera, (4, 4)),
            ("plate_intrinsics", self.plate_intrinsics, (4,)),
            ("points", self.points, (count, 3)),
            ("colours", self.colours, (count, 3)),
            ("dynamic", self.dynamic, (count,)),
        ):
            if value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {shape}")

    def encode(self) -> bytes:
        """The frame as bytes, at most CHUNK of them. Raises ValueError when it has more than MOST_POINTS."""
        if len(self.points) > MOST_POINTS:
            raise ValueError(f"{len(self.points)} points, at most {MOST_POINTS} fit")
        header = _HEADER.pack(
            MAGIC,
            *(self.world, self.frame, self.clip_frame, *self.plate_size, len(self.points)),
            *(self.spacing, *self.plate_intrinsics, *np.asarray(self.world_from_camera, np.float64).ravel()),
        )
        arrays = ((self.points, "<f4"), (self.colours, np.uint8), (self.dynamic, np.uint8))
        return b"".join([header, *(np.ascontiguousarray(values, kind).tobytes() for values, kind in arrays)])

    @classmethod
    def decode(cls, data: bytes) -> LiveFrame:
        """The frame that `encode` wrote. Raises ProtocolError on anything that is not one."""
        if len(data) < _HEADER.size or data[:4] != MAGIC:
            raise ProtocolError("not a live frame")
        _, world, frame, clip_frame, width, height, count, spacing, *numbers = _HEADER.unpack_from(data)
        if len(data) != _HEADER.size + count * POINT_BYTES:
            raise ProtocolError("a live frame of the wrong size")
        numbers = np.array(numbers)
        points, colours, dynamic = np.split(
            np.frombuffer(data, np.uint8, offset=_HEADER.size), [12 * count, 15 * count]
        )
        points = points.view("<f4").astype(np.float32).reshape(count, 3)
        intrinsics, camera = numbers[:4], numbers[4:].reshape(4, 4)
        finite = np.isfinite(numbers).all() and np.isfinite(points).all()
        sizes = 0 < width <= _MOST and 0 < height <= _MOST and frame < MOST_FRAMES and max(world, clip_frame) <= _MOST
        if not (finite and sizes and 0 < spacing < np.inf and (intrinsics[:2] > 0).all()):
            raise ProtocolError("a live frame with impossible numbers")
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
        )
