"""Scene graphs: which ordered pairs of frames a two-view network is asked about."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..wire import UserError

Pair = tuple[int, int]

_DEFAULT_WINDOW = 3
#: Sliding windows look ahead at frames `start, start + stride, ...`: name -> (start, stride).
_SLIDING = {"swin": (1, 1), "swinstride": (1, 2), "swin2stride": (1, 3), "swinskip_start": (2, 1)}
_WINDOW_GRAPH = re.compile(rf"({'|'.join(_SLIDING)}|logwin)(?:-(\d+))?(-noncyclic)?")
_KNOWN = "complete, oneref[-FRAME], or " + ", ".join([*_SLIDING, "logwin"]) + " with [-WINDOW][-noncyclic]"


def make_pairs(scene_graph: str, frame_count: int, symmetrize: bool = True, prefilter: str | None = None) -> list[Pair]:
    """The directed pairs (view 1, view 2) of a scene graph over frames 0 .. frame_count - 1; facts sheet, section 5.

    `complete`; `swin`, `swinstride`, `swin2stride`, `swinskip_start` and `logwin` with `-WINDOW` (3) and
    `-noncyclic`; `oneref-FRAME` (0). Symmetrised pairs come after the others, in the same order; as in the original,
    two frames are always symmetrised, `oneref` and names beginning with `swin-1` (so `swin-10` too) otherwise never.
    `prefilter` is `seqK` or `cycK`: only frames at most K apart, along the clip or around it.

    Raises UserError for a graph or filter that does not exist, and for a reference frame outside the clip.
    """
    window_graph = _WINDOW_GRAPH.fullmatch(scene_graph)
    reference = re.fullmatch(r"oneref(?:-(\d+))?", scene_graph)
    if scene_graph == "complete":
        pairs = [(i, j) for i in range(frame_count) for j in range(i)]
    elif reference:
        pairs = _one_reference(int(reference[1] or 0), frame_count)
    elif window_graph:
        name, window, noncyclic = window_graph.groups()
        pairs = _windowed(name, int(window or _DEFAULT_WINDOW), frame_count, cyclic=noncyclic is None)
    else:
        raise UserError(f"There is no scene graph {scene_graph!r}", f"choose one of: {_KNOWN}")

    never = scene_graph.startswith(("oneref", "swin-1"))
    if frame_count == 2 or (symmetrize and not never):
        pairs = pairs + [(j, i) for i, j in pairs]
    return pairs if prefilter is None else filter_pairs(pairs, prefilter, frame_count)


def _one_reference(reference: int, frame_count: int) -> list[Pair]:
    if reference >= frame_count:
        raise UserError(
            f"The scene graph refers to frame {reference} of a clip of {frame_count} frames",
            "choose a reference frame inside the clip",
        )
    return [(reference, j) for j in range(frame_count)]  # the reference itself too, as the original has it


def _windowed(name: str, window: int, frame_count: int, cyclic: bool) -> list[Pair]:
    """Each pair once, (lower, higher); around the end of a short clip a sliding window meets its own frame."""
    if name == "logwin":
        offsets = [sign * 2**k for k in range(window) for sign in (-1, 1)]
    else:
        start, stride = _SLIDING[name]
        offsets = [start + stride * k for k in range(window)]
    found: Iterable[Pair] = ((i, i + offset) for i in range(frame_count) for offset in offsets)
    if cyclic:
        found = ((i, j % frame_count) for i, j in found)
    inside = {(min(i, j), max(i, j)) for i, j in found if 0 <= j < frame_count}
    return sorted(pair for pair in inside if name != "logwin" or pair[0] != pair[1])


def filter_pairs(pairs: list[Pair], prefilter: str, frame_count: int) -> list[Pair]:
    """Pairs of frames at most K apart: along the clip for `seqK`, around it for `cycK`. Raises UserError for others."""
    match = re.fullmatch(r"(seq|cyc)(\d+)", prefilter)
    if not match:
        raise UserError(f"There is no pair filter {prefilter!r}", "choose seqK or cycK with a whole number K")
    around, limit = match[1] == "cyc", int(match[2])

    def distance(i: int, j: int) -> int:
        apart = abs(i - j)
        return min(apart, frame_count - apart) if around else apart

    return [(i, j) for i, j in pairs if distance(i, j) <= limit]
