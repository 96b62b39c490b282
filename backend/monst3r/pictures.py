"""The clip's frames and masks on the network's grid, and back to the plate; clips that cannot work are refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..clip import Clip
from ..footage.store import resize
from ..run import Run
from ..wire import MASt3RSettings, MonST3RSettings, PlateMap, UserError
from .preprocess import SQUARE_SIZE, Grid, grid_for, on_grid

#: A clip none of whose pixels is brighter than this is black; one that changes by less is frozen.
BLACK, FROZEN = 12, 2


@dataclass(frozen=True)
class Pictures:
    """`rgb` (T, H, W, 3) uint8 on the processed grid, memory-mapped, and what became of the frames of the store."""

    rgb: np.ndarray
    grid: Grid
    store_map: PlateMap

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the processed grid."""
        return self.grid.size

    @property
    def plate_map(self) -> PlateMap:
        """From plate pixels to the processed grid."""
        store, grid = self.store_map, self.grid.plate_map
        # grid = (plate * store.s - store.o) * grid.s - grid.o
        return PlateMap(
            store.sx * grid.sx, store.sy * grid.sy, store.ox * grid.sx + grid.ox, store.oy * grid.sy + grid.oy
        )

    def to_grid(self, masks: np.ndarray) -> np.ndarray:
        """(T, H, W) bool on the grid, of (T, h, w) bool masks of whole frames; True where most of a pixel is."""
        left, top, right, bottom = self.grid.box
        whole = (resize(mask.astype(np.uint8) * 255, self.grid.resized) for mask in masks)
        return np.stack([mask[top:bottom, left:right] > 127 for mask in whole])

    def to_whole(self, masks: np.ndarray) -> np.ndarray:
        """(T, h, w) masks of whole frames; what the grid has cut off is taken from its border."""
        left, top, right, bottom = self.grid.box
        width, height = self.grid.resized
        return np.pad(masks, ((0, 0), (top, height - bottom), (left, width - right)), mode="edge")


def pictures_of(clip: Clip, long_side: int, run: Run, square: bool = False) -> Pictures:
    """The frames as the network wants them: with this long side, or with `square` the middle 224 x 224.

    Raises UserError for a black or a frozen clip, and one too narrow.
    """
    grid = grid_for(clip.store_size, SQUARE_SIZE if square else long_side, square=square)
    width, height = grid.size
    rgb = np.lib.format.open_memmap(
        Path(run.work_dir) / "pictures.npy", mode="w+", dtype=np.uint8, shape=(clip.frame_count, height, width, 3)
    )
    brightest, change = 0, 0
    for t in run.steps(clip.frame_count):
        rgb[t] = on_grid(clip.frames[t], grid)
        brightest = max(brightest, int(rgb[t].max()))
        change = max(change, int(cv2.absdiff(rgb[t], rgb[0]).max()))
    if brightest <= BLACK:
        raise UserError("Every frame of the clip is black", "check the footage, or choose another range of frames")
    if change <= FROZEN:
        raise UserError("Every frame of the clip shows the same picture", "use footage in which something moves")
    return Pictures(rgb, grid, clip.store_map)


def key_frames(timestamps: tuple[float, ...], options: MonST3RSettings | MASt3RSettings, least: int = 3) -> np.ndarray:
    """(K,) which of the frames are solved: every n-th, or about so many a second, and the last. At least `least`.

    Raises UserError when fewer are left.
    """
    count = len(timestamps)
    if options.solve_fps > 0:
        times = np.asarray(timestamps) - timestamps[0]
        # The first frame at or after each tick, half a frame early allowed for clocks that are not exact.
        slack = 0.5 * float(np.median(np.diff(times)))
        ticks = np.floor((times + slack) * options.solve_fps).astype(int)
        keys = np.flatnonzero(np.diff(ticks, prepend=-1) > 0)
    else:
        keys = np.arange(0, count, options.solve_every)
    keys = np.unique(np.append(keys, count - 1))
    if len(keys) < least:
        raise UserError(f"Only {len(keys)} of {count} frames would be solved", "lower Solve Every, or raise Solve Rate")
    return keys
