"""Which pairs of a set's frames are compared: the scene graphs of clips, and one by likeness for loose pictures."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from ..align.graph import Pair, filter_pairs, make_pairs
from ..wire import UserError

#: At most so many key frames, and nearest frames to each, where the graph's name gives no numbers.
KEY_FRAMES, NEAREST = 20, 10


def set_pairs(
    scene_graph: str,
    frame_count: int,
    *,
    prefilter: str | None = None,
    likeness: np.ndarray | None = None,
    seed: int = 0,
) -> list[Pair]:
    """Unordered pairs i < j of frames 0 .. frame_count - 1, each once, sorted; specs/mast3r.md section 3.7.

    `retrieval[-KEYFRAMES-NEAREST]` needs `likeness` (N, N), larger for frames that look alike, at most 1: key frames as
    different as can be, the first drawn by `seed`, each with each; every other frame with its likest key frame; and
    every frame with its `NEAREST - 1` likest others. All other graphs, and `prefilter`, are those of `make_pairs`.

    Raises UserError for a graph that does not exist, and for a retrieval without likeness.
    """
    retrieval = re.fullmatch(r"retrieval(?:-(\d+)-(\d+))?", scene_graph)
    if retrieval is None:
        if scene_graph.startswith("retrieval"):
            raise UserError(f"There is no scene graph {scene_graph!r}", "write retrieval-KEYFRAMES-NEAREST")
        return unordered(make_pairs(scene_graph, frame_count, symmetrize=False, prefilter=prefilter))
    if likeness is None:
        raise UserError(
            "A scene graph by retrieval needs to know which frames look alike", "choose another scene graph"
        )
    key_count, nearest = (KEY_FRAMES, NEAREST) if retrieval[1] is None else map(int, retrieval.groups())
    first = int(np.random.default_rng(seed).integers(frame_count))
    keys = key_frames(likeness, min(key_count, frame_count), first)
    pairs = retrieval_pairs(likeness, keys, min(nearest, frame_count))
    return pairs if prefilter is None else filter_pairs(pairs, prefilter, frame_count)


def unordered(pairs: Iterable[Pair]) -> list[Pair]:
    """Each pair of different frames once, as i < j, sorted."""
    return sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})


def key_frames(likeness: np.ndarray, count: int, first: int) -> list[int]:
    """`count` frames from `first` on, each the one least like all before it (farthest points)."""
    if not count:
        return []
    chosen, closest = [first], np.array(likeness[first], float)
    while len(chosen) < count:
        closest[chosen] = np.inf
        chosen.append(int(closest.argmin()))
        closest = np.maximum(closest, likeness[chosen[-1]])
    return chosen


def retrieval_pairs(likeness: np.ndarray, keys: list[int], nearest: int) -> list[Pair]:
    """The pairs among `keys`, of each other frame with its likest key, and of each with its `nearest - 1` likest."""
    pairs = [(a, b) for n, a in enumerate(keys) for b in keys[:n]]
    others = np.array(likeness, float)
    np.fill_diagonal(others, np.inf)  # a frame counts as one of its own nearest
    for frame, row in enumerate(others):
        if keys and frame not in keys:
            pairs.append((frame, keys[int(row[keys].argmax())]))
        order = np.argsort(-row, kind="stable")[1:nearest]
        pairs += [(frame, int(other)) for other in order]
    return unordered(pairs)
