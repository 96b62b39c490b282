"""Point3R's engine with an oracle in the network's place, and the clip that the oracle knows; see stream_oracle.py.

As a pipeline (`--pipeline tests.point3r_oracle`) it makes a worker's captures; the footage must be `clip_of(walk())`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend import pipeline
from backend.clip import Clip
from backend.engines.point3r import Point3REngine
from backend.point3r.models import LaterStream
from backend.wire import PlateMap

from .stream_oracle import StreamErrors, StreamOracle
from .worlds import World, as_capture, film, hand_held, sliding_box, square_intrinsics

WIDTH, HEIGHT, FRAMES, PLATE = 128, 96, 8, 2
#: A network's errors on a clip of a second, with a lens that it sees well.
USUAL = StreamErrors(focal_common=0.005)

_PLATES: dict[tuple[bytes, bool], World] = {}


class OracleEngine(Point3REngine):
    """The engine with an oracle in the network's place. `asked` are the frames it was shown, `opened` how often."""

    def __init__(self, world: World, errors: StreamErrors = USUAL) -> None:
        self.oracle = StreamOracle(world, errors)
        self.asked, self.opened = [], 0

    def check(self, settings):
        """Its weights come from no file."""

    def stream_source(self, options, device):
        return LaterStream(self._open), ({"name": "oracle"},)

    def _open(self) -> OracleEngine:
        self.opened += 1
        return self

    def push(self, rgb: np.ndarray):
        frame = self.oracle.push(rgb)
        self.asked.append(frame.index)
        return frame

    def __getattr__(self, name: str) -> Any:
        return getattr(self.oracle, name)


def walk(frames: int = FRAMES, motion: str = "moving", mover: bool = False) -> World:
    """A clip in which the network, which takes the principal point for (W/2, H/2) from the first centre, is right."""
    lens = square_intrinsics(0.9 * WIDTH, WIDTH, HEIGHT, frames) + np.array([0, 0, 0.5, 0.5])
    return film(hand_held(frames, motion), lens, WIDTH, HEIGHT, sliding_box(frames) if mover else None)


def clip_of(world: World, **more: Any) -> Clip:
    """The world's plate, of twice the size of the grid."""
    cameras = world.world_from_camera
    key = cameras.tobytes(), world.mover is not None
    if key not in _PLATES:
        _PLATES[key] = film(cameras, world.intrinsics * PLATE, WIDTH * PLATE, HEIGHT * PLATE, world.mover)
    plate = _PLATES[key]
    info = replace(as_capture(world, (WIDTH * PLATE, HEIGHT * PLATE)).clip, kind="video")
    return Clip(info, plate.rgb, PlateMap(1.0, 1.0), **more)


def reconstruct(*arguments: Any, **options: Any) -> Path:
    """The whole pipeline with the oracle's engine, whatever engine is asked for."""
    pipeline.load_engine = lambda name: OracleEngine(walk(mover=True))
    return pipeline.reconstruct(*arguments, **options)
