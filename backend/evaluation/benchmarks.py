"""Which benchmarks there are, and which of their frames each suite takes: a table of the facts of papers.

Facts sheets of MonST3R (section 10) and Point3R (section 9).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..wire import UserError

if TYPE_CHECKING:  # layouts are loaded when a folder is read: the command line looks into this table at every start
    from .layouts import Take

SUITES = ("mono-depth", "video-depth", "pose", "reconstruction")

#: Beyond this depth, in metres, nothing is compared where papers say so.
FAR_M = 70.0


@dataclass(frozen=True)
class Chosen:
    """Every `every`-th frame from `first` on, at most `most`, of the named `sequences`; of all where none is named."""

    first: int = 0
    every: int = 1
    most: int | None = None
    sequences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
    """A benchmark, whose folders the function `layout` of layouts.py reads.

    `suites` are the suites that it serves, with the frames that papers take there; depth counts below `max_depth`.
    """

    title: str
    layout: str
    suites: dict[str, Chosen]
    max_depth: float = math.inf


_SINTEL_POSED = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
_BONN = Chosen(first=30, most=110, sequences=("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous"))
_KITTI = Chosen(most=110)
_EVERY_THIRD = Chosen(every=3, most=90)

BENCHMARKS: dict[str, Benchmark] = {
    "nyu": Benchmark("NYU-v2", "nyu", {"mono-depth": Chosen()}),
    "sintel": Benchmark(
        "Sintel",
        "sintel",
        {"mono-depth": Chosen(), "video-depth": Chosen(), "pose": Chosen(sequences=_SINTEL_POSED)},
        FAR_M,
    ),
    "bonn": Benchmark("Bonn", "bonn", {"mono-depth": _BONN, "video-depth": _BONN}, FAR_M),
    "kitti": Benchmark("KITTI", "kitti", {"mono-depth": _KITTI, "video-depth": _KITTI}),
    "tum": Benchmark("TUM-dynamics", "tum", {"pose": _EVERY_THIRD}),
    "scannet": Benchmark("ScanNet", "scannet", {"pose": _EVERY_THIRD}),
    "7scenes": Benchmark("7-Scenes", "seven_scenes", {"reconstruction": Chosen(every=200)}),
    "nrgbd": Benchmark("NRGBD", "neural_rgbd", {"reconstruction": Chosen(every=500)}),
}


def chosen_takes(
    root: Path, benchmark: str, suite: str, names: tuple[str, ...] = (), every: int = 0, most: int = 0
) -> dict[str, Callable[[], Take]]:
    """What reads each sequence that a suite takes of a benchmark's folder, with the suite's frames alone.

    `names` takes these sequences instead of the papers'; `every` and `most`, unless 0, other frames. A sequence that is
    not there raises UserError when it is read, a folder that is not laid out as the benchmark does at once.
    """
    from . import layouts

    about = BENCHMARKS[benchmark]
    if suite not in about.suites:
        raise UserError(f"{about.title} is no benchmark of {suite}", f"choose {' or '.join(about.suites)}")
    if every < 0 or most < 0:
        raise UserError("Frames cannot be counted backwards", "give --every and --most 1 or more")
    if not root.is_dir():
        raise UserError(f"There is no folder {root}", f"give the folder that {about.title} was unpacked to")
    found, chosen = getattr(layouts, about.layout)(root), about.suites[suite]

    def read(name: str) -> Take:
        if name not in found:
            known = f"there are {', '.join(found)}" if names else "choose others with --sequences"
            raise UserError(f"There is no sequence {name} in {root}", known)
        take = found[name]().only(chosen.first, every or chosen.every, most or chosen.most)
        if not take.frames:
            raise UserError(f"{name} has no frame from number {chosen.first} on", "get the benchmark again")
        return take

    return {name: lambda name=name: read(name) for name in names or chosen.sequences or found}
