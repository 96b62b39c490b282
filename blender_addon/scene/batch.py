"""Many captures at once: every capture of a folder becomes an import of its own; what is none is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError
from .build import import_capture
from .imported import Imported, imported_in
from .options import ImportOptions
from .points import measured, unproject
from .steps import Progress

#: Captures stand so deep below the folder that is searched: kinora/clip/take.
_DEPTH = 3
#: Free space between captures side by side, as a part of the wider one.
_GAP = 0.1


@dataclass(frozen=True)
class Batch:
    """What came of a folder: the imports' collections, and for each folder that was skipped the reason."""

    collections: tuple[bpy.types.Collection, ...]
    skipped: dict[Path, str]


def find_captures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The captures in a folder or below it, and the folders right in it that hold none; both in order of names."""
    if (folder / "capture.json").is_file():
        return [folder], []
    captures = sorted(_captures(folder, _DEPTH))
    others = [path for path in _folders(folder) if not any(c == path or c.is_relative_to(path) for c in captures)]
    return captures, others


def _captures(folder: Path, depth: int) -> Iterator[Path]:
    for path in _folders(folder):
        if (path / "capture.json").is_file():
            yield path
        elif depth > 1:
            yield from _captures(path, depth - 1)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder; one may not look into every one."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []


def import_captures(
    folder: Path,
    scene: bpy.types.Scene,
    options: ImportOptions = ImportOptions(),  # noqa: B008, it is frozen
    side_by_side: bool = False,
    run_progress: Progress = lambda stage, fraction: None,
) -> Batch:
    """Import every capture of a folder, each as a collection; one that cannot be imported is skipped.

    The first one sets up the scene, if the options ask for it. `side_by_side` stands new imports in a row along x, in
    order of their names. Raises UserError when there is no capture at all.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "choose the folder that holds the captures")
    captures, others = find_captures(folder)
    if not captures:
        raise UserError(f"There is no capture in {folder}", "choose the folder that holds the captures")
    skipped = dict.fromkeys(others, "is not a capture")
    collections: list[bpy.types.Collection] = []
    edge: float | None = None
    for i, path in enumerate(captures):
        before = {one.root.session_uid for one in imported_in(scene)}
        try:
            collection = import_capture(
                path,
                scene,
                replace(options, set_scene=options.set_scene and not collections),
                lambda stage, fraction, i=i: run_progress(stage, (i + fraction) / len(captures)),
            )
        except UserError as error:
            skipped[path] = str(error)
            continue
        collections.append(collection)
        made = next((one for one in imported_in(scene) if one.root.session_uid not in before), None)
        if side_by_side and made is not None:
            edge = _stand_after(made, edge)
    return Batch(tuple(collections), skipped)


def _stand_after(imported: Imported, edge: float | None) -> float:
    """Move an import along x until it begins a gap after `edge`; returns where it ends."""
    low, high = _extent(imported.capture(), np.array(imported.root.matrix_basis, np.float64))
    if edge is not None:
        shift = edge + _GAP * (high - low) - low
        imported.root.location.x += shift
        high += shift
    return high


def _extent(capture: Capture, world_from_capture: np.ndarray) -> tuple[float, float]:
    """Where a capture begins and ends along x of the world: its cameras, and all but the outermost of its points."""
    parts = [capture.world_from_camera[capture.has_camera, :3, 3]]
    for frame in np.unique(np.linspace(0, capture.frame_count - 1, 8).astype(int)):
        keep = measured(capture, int(frame))
        if keep.any():
            points = unproject(capture, int(frame), keep)
            parts.append(points[:: max(1, len(points) // 5000)].astype(np.float64))
    x = np.concatenate(parts) @ world_from_capture[0, :3] + world_from_capture[0, 3]
    low, high = np.percentile(x, (1, 99))
    return float(low), float(high)
