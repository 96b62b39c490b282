"""Timeline markers where the solver had doubts: one at the beginning of each run of frames, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import bpy
import numpy as np

from .solve_quality import FLAGS, SolveQuality

#: More markers than this cannot be read on a timeline: runs that lie close together become one.
MOST_MARKERS = 40
#: The scene's list of which markers were made for which import; markers themselves cannot carry a property in 5.0.
_LIST = "kinora_markers"


def show_markers(scene: bpy.types.Scene, root: bpy.types.Object, quality: SolveQuality, label: str = "") -> int:
    """Mark the flagged frames of an import on the scene's timeline, in place of its earlier markers; how many.

    `root` may be a plate camera, too; `label` says what the frames are of.
    """
    remove_markers(scene, root)
    made = []
    for frame, name in flag_runs(quality.scene_frames, quality.flags):
        name = f"{label}: {name}" if label else name
        scene.timeline_markers.new(name, frame=frame)
        made.append({"root": root, "name": name, "frame": frame})
    if made:
        scene[_LIST] = [*_listed(scene), *made]
    return len(made)


def remove_markers(scene: bpy.types.Scene, root: bpy.types.Object) -> int:
    """Take the markers of an import away, and how many; those that the artist renamed or moved are the artist's."""
    own = [m for m in _listed(scene) if m["root"] in (root, None)]  # None: its import was deleted
    others = [m for m in _listed(scene) if m["root"] not in (root, None)]
    removed = 0
    for entry in own:
        for marker in scene.timeline_markers:
            if (marker.name, marker.frame) == (entry["name"], entry["frame"]):
                scene.timeline_markers.remove(marker)
                removed += 1
                break
    scene.pop(_LIST, None)
    if others:
        scene[_LIST] = others
    return removed


def has_markers(scene: bpy.types.Scene, root: bpy.types.Object) -> bool:
    """Whether the flagged frames of an import are marked."""
    return any(m["root"] == root for m in _listed(scene))


def flag_runs(scene_frames: np.ndarray, flags: np.ndarray, most: int = MOST_MARKERS) -> list[tuple[int, str]]:
    """(scene frame, name) of each run of flagged frames, at most so many, in the order of time."""
    gap = 1
    while True:
        runs = sorted(run for flag in range(1, len(FLAGS)) for run in _runs(np.flatnonzero(flags == flag), flag, gap))
        if len(runs) <= max(most, len(FLAGS) - 1):
            break
        gap *= 2
    return [
        (int(scene_frames[first]), FLAGS[flag] if count == 1 else f"{FLAGS[flag]} ({count} frames)")
        for first, flag, count in runs
    ]


def _runs(indices: np.ndarray, flag: int, gap: int) -> Iterator[tuple[int, int, int]]:
    """(first index, flag, how many) of runs whose neighbours are at most `gap` apart."""
    for run in np.split(indices, np.flatnonzero(np.diff(indices) > gap) + 1):
        if run.size:
            yield int(run[0]), flag, len(run)


def _listed(scene: bpy.types.Scene) -> list[dict]:
    return [{name: entry.get(name) for name in ("root", "name", "frame")} for entry in scene.get(_LIST, ())]
