"""Edited masks put to use: what moves in an import is split off anew from its own points, without a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import Capture, PlateMap
from ..wire.errors import UserError
from .baseline import read_options
from .belongings import pictures
from .build import import_steps
from .grey import read_grey
from .imported import Imported
from .mask_editing import EDITED_NAME, MASKS, MASKS_OF, mask_files, undistorted_mask
from .steps import Progress, finish


def grid_mask(mask: np.ndarray, plate_map: PlateMap, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool on a grid of `size` (width, height): where most of a pixel moves by (plate H, plate W) bool."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1))
    sums[1:, 1:] = mask.cumsum(0, dtype=np.int64).cumsum(1)
    edges = np.stack(np.meshgrid(np.arange(size[0] + 1.0), np.arange(size[1] + 1.0)), axis=-1)
    plate = plate_map.to_plate(edges)
    columns = np.clip(plate[0, :, 0], 0, mask.shape[1])
    rows = np.clip(plate[:, 0, 1], 0, mask.shape[0])
    table = _between(_between(sums, columns, 1), rows, 0)
    moving = np.diff(np.diff(table, axis=0), axis=1)
    whole = 1 / (plate_map.sx * plate_map.sy)
    return moving > 0.5 * whole


def _between(table: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation of a table at fractional places along an axis."""
    low = np.minimum(np.floor(places).astype(int), table.shape[axis] - 2)
    share = np.expand_dims(places - low, 1 - axis)
    return np.take(table, low, axis) * (1 - share) + np.take(table, low + 1, axis) * share


def read_masks(folder: Path, capture: Capture, progress: Callable[[float], None] = lambda fraction: None) -> np.ndarray:
    """(T, H, W) bool on the grid of a capture, of masks of its plate as shot, white where things move.

    Raises UserError when they do not fit in number or size, or are black although they are meant to be white.
    """
    files = mask_files(folder, capture)
    width, height = capture.clip.plate_size
    dynamic = np.zeros(capture.depth.shape, bool)
    brightest = 0.0
    for frame, path in enumerate(files):
        progress(frame / len(files))
        level = read_grey(path)
        if level.shape != (height, width):
            raise UserError(
                f"The mask {path.name} is {level.shape[1]}x{level.shape[0]} but the plate is {width}x{height}",
                "give masks of the plate's size",
            )
        brightest = max(brightest, float(level.max()))
        dynamic[frame] = grid_mask(undistorted_mask(capture, level > 0.5), capture.plate_map, capture.processed_size)
    if 0 < brightest <= 0.5:
        raise UserError(f"The masks in {folder} are grey, not white", "paint what moves white (255)")
    return dynamic


def use_masks(
    imported: Imported,
    folder: Path,
    scene: bpy.types.Scene,
    run_progress: Progress = lambda stage, fraction: None,
) -> int:
    """Split the static and moving points of an import by edited masks; returns how many pixels changed sides.

    Depth and cameras stay as they were reconstructed; what the artist set on the import stays too. The mask pictures
    show the edited masks when the plate has no lens distortion and the files are named as Edit Masks names them.
    Raises UserError, with nothing changed, when the masks do not fit or the capture is gone.
    """
    capture = imported.capture()
    run_progress("Reading the masks", 0.0)
    dynamic = read_masks(folder, capture, lambda fraction: run_progress("Reading the masks", 0.1 * fraction))
    changed = int((dynamic != capture.dynamic).sum())
    root = imported.root
    options = replace(read_options(root), existing="update")
    finish(import_steps(replace(capture, dynamic=dynamic), scene, options, root.session_uid), run_progress)
    root[MASKS], root[MASKS_OF] = str(folder), str(capture.folder)
    picture = pictures(root).get("Mask")
    named = all((folder / EDITED_NAME.format(i)).is_file() for i in range(capture.frame_count))
    if isinstance(picture, bpy.types.Image) and named and not (capture.clip.k1 or capture.clip.k2):
        picture.filepath = str(folder / EDITED_NAME.format(0))
        picture["kinora_folder"] = str(folder)
        picture.reload()
    return changed
