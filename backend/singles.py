"""Depth of pictures each by itself, as the networks of the engines tell it by sight: for single-image benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .device import choose_device
from .engines import load_engine
from .monst3r.preprocess import grid_for, on_grid, read_image
from .run import Run
from .wire import ENGINES, JobSettings, PlateMap, Settings, UserError

#: Pictures are asked about so many at a time, since answers wait in memory.
_AT_ONCE = 16
Depths = Iterator[np.ndarray]


def single_depths(images: Sequence[Path], settings: JobSettings, run: Run) -> Iterator[tuple[np.ndarray, PlateMap]]:
    """Depth (h, w) of each picture, which no other one has a part in, and how its pixels come from the picture's.

    Pictures are squeezed to multiples of 16 and not cropped, with the long side of the settings. Raises UserError for
    an engine that has no network, weights that are missing, and pictures of several sizes.
    """
    if settings.engine not in _ASK:
        others = " or ".join(_ASK)
        raise UserError(
            f"The {ENGINES[settings.engine].label} engine tells no depth from one picture", f"use --engine {others}"
        )
    engine = load_engine(settings.engine)
    engine.check(settings)
    first = read_image(images[0])
    grid = grid_for(first.size, settings.clip.long_side, crop=False, square_ok=True, square=False)
    pictures = np.empty((len(images), *grid.size[::-1], 3), np.uint8)
    for picture, path in zip(pictures, images):
        image = read_image(path)
        if image.size != first.size:
            raise UserError(f"{path} is of another size than {images[0]}", "evaluate pictures of one size together")
        picture[:] = on_grid(image, grid)
        run.check()
    ask = _ASK[settings.engine]
    return (
        (depth, grid.plate_map) for depth in ask(engine, pictures, settings.engine_settings, choose_device(run), run)
    )


def _of_pairs(engine: Any, pictures: np.ndarray, options: Settings, device: torch.device, run: Run) -> Depths:
    """A picture paired with itself, as MonST3R's original does with one alone."""
    source, _ = engine.pair_source(pictures, options, device, run, len(pictures))
    for begin in range(0, len(pictures), _AT_ONCE):
        frames = range(begin, min(begin + _AT_ONCE, len(pictures)))
        yield from source.predict([(k, k) for k in frames]).points_i[..., 2].float().cpu().numpy()


def _of_views(engine: Any, pictures: np.ndarray, options: Settings, device: torch.device, run: Run) -> Depths:
    """The same for a network of pairs of two frames."""
    source, _ = engine.view_source(np.repeat(pictures, 2, axis=0), options, device, run)
    for k in range(len(pictures)):
        yield from (pair.ii.points[..., 2].cpu().numpy() for pair in source.predict([(2 * k, 2 * k + 1)]))


def _of_streams(
    engine, pictures: np.ndarray, options: Settings, device: torch.device, run: Run
) -> Iterator[np.ndarray]:
    """The first frame of a stream, again and again."""
    stream, _ = engine.stream_source(options, device)
    for picture in run.steps(pictures):
        stream.reset()
        yield stream.push(picture).points_camera[..., 2]


#: Engine -> what asks its network about (T, H, W, 3) pictures, for a depth (H, W) of each.
_ASK: dict[str, Callable[..., Depths]] = {"monst3r": _of_pairs, "mast3r": _of_views, "point3r": _of_streams}
