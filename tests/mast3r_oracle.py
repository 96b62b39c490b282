"""MASt3R's engine with an oracle in the network's place, and the small set that the oracle knows; see view_oracle.py.

As a pipeline (`--pipeline tests.mast3r_oracle`) it makes a worker's captures; the footage must be `clip_of(set_of())`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend import pipeline
from backend.clip import Clip
from backend.engines.mast3r import MASt3REngine
from backend.mast3r.models import LaterViews
from backend.wire import PlateMap

from .pair_oracle import EXACT, Errors
from .view_oracle import ViewOracle
from .worlds import World, as_capture, film, hand_held, sliding_box, square_intrinsics

WIDTH, HEIGHT, FRAMES, PLATE = 128, 96, 5, 2
#: A network's usual errors.
USUAL = Errors(scale=0.02)


class OracleEngine(MASt3REngine):
    """The engine with an oracle in the network's place; it talks nonsense of the frames `garbage`."""

    def __init__(self, world: World, errors: Errors = EXACT, noise: float = 0.0, garbage: Iterable[int] = ()) -> None:
        self.oracle, self.garbage, self.asked = ViewOracle(world, errors, noise), set(garbage), []

    def check(self, settings):
        """Its weights come from no file."""

    def view_source(self, pictures, options, device, run):
        assert pictures.shape == self.oracle.world.rgb.shape
        return LaterViews(lambda: self), ({"name": "oracle"},)

    def predict(self, pairs):
        for pair in self.oracle.predict(pairs):
            self.asked.append((pair.i, pair.j))
            yield self.garbled(pair) if self.garbage & {pair.i, pair.j} else pair

    @staticmethod
    def garbled(pair):
        """The pair without a word of truth about where the frames are to each other."""
        random = torch.Generator().manual_seed(pair.i * 100 + pair.j)

        def view(of):
            noise = torch.randn(of.descriptors.shape, generator=random)
            return replace(of, descriptors=noise / noise.norm(dim=-1, keepdim=True))

        return replace(pair, ji=view(pair.ji), ij=view(pair.ij))


def set_of(frames: int = FRAMES, motion: str = "moving", mover: bool = False, focal: float | np.ndarray = 0.9) -> World:
    lens = square_intrinsics(np.asarray(focal) * WIDTH, WIDTH, HEIGHT, frames)
    return film(hand_held(frames, motion), lens, WIDTH, HEIGHT, sliding_box(frames) if mover else None)


def clip_of(world: World, kind: str = "video", **more) -> Clip:
    """The world's plate, of twice the size of the grid."""
    plate = film(world.world_from_camera, world.intrinsics * PLATE, WIDTH * PLATE, HEIGHT * PLATE, world.mover)
    info = replace(as_capture(world, (WIDTH * PLATE, HEIGHT * PLATE)).clip, kind=kind)
    return Clip(info, plate.rgb, PlateMap(1.0, 1.0), **more)


def reconstruct(*arguments: Any, **options: Any) -> Path:
    """The whole pipeline with the oracle's engine, whatever engine is asked for."""
    pipeline.load_engine = lambda name: OracleEngine(set_of())
    return pipeline.reconstruct(*arguments, **options)
