"""What the settings of the MASt3R engine come to for some footage: frames, scene graph, lens; without loading torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..monst3r.pictures import key_frames
from ..wire import MASt3RSettings, UserError

#: Up to so many frames, all are compared with each other: a complete graph of more costs more than it tells.
COMPLETE = 24


def is_sequence(options: MASt3RSettings, kind: str) -> bool:
    """Whether the frames follow each other; `kind` is that of the clip, 'video' or 'images'."""
    return options.footage == "sequence" or (options.footage == "auto" and kind == "video")


def solved_frames(options: MASt3RSettings, times: Sequence[float], sequence: bool) -> np.ndarray:
    """(K,) which of the frames at `times` (s) are solved: all of a set. Raises UserError when there are not two."""
    thinned = sequence and (options.solve_every > 1 or options.solve_fps > 0)
    keys = key_frames(tuple(times), options, least=2) if thinned else np.arange(len(times))
    if len(keys) < 2:
        raise UserError("One image alone cannot be reconstructed", "give at least two of the same place")
    return keys


def with_something_still(keys: np.ndarray, masks: np.ndarray | None) -> np.ndarray:
    """Those of the frames `keys` (K,) that are not all masked (T, H, W). Raises UserError when there are not two."""
    if masks is None:
        return keys
    left = keys[~masks[keys].all(axis=(1, 2))]
    if len(left) < 2:
        raise UserError("The masks cover all that could be aligned", "mask less, or leave the masks out")
    return left


def graph_kind(options: MASt3RSettings, count: int, sequence: bool) -> str:
    """The scene graph of `count` solved frames, with 'auto' decided."""
    if options.scene_graph != "auto":
        return options.scene_graph
    if count <= COMPLETE:
        return "complete"
    return "logwin" if sequence else "retrieval"


def shares_lens(options: MASt3RSettings, sequence: bool) -> bool:
    """Whether all frames have one focal length."""
    return options.lenses == "shared" or (options.lenses == "auto" and sequence)


def pair_count(options: MASt3RSettings, count: int, sequence: bool) -> int:
    """How many unordered pairs the network is asked about, at most."""
    complete = count * (count - 1) // 2
    kind = graph_kind(options, count, sequence)
    if kind == "complete":
        return complete
    if kind == "oneref":
        return count - 1
    if kind == "retrieval":
        keys = min(options.key_images, count)
        return min(complete, keys * (keys - 1) // 2 + count * (1 + options.neighbours))
    return min(complete, count * options.neighbours)
