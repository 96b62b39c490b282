"""The recorded alignment of MASt3R: what it was given, how each case was set, and what it answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backend.geometry.trajectory import TrajectoryError, absolute_trajectory_error
from backend.matching.matches import Matches
from backend.sparse.canonical import CanonicalSums
from backend.sparse.original import OriginalSettings
from backend.sparse.original_cameras import Placed
from backend.sparse.problem import PairMatches, SparseProblem, WeakView
from backend.sparse.views import View

from .rows import Arrays, Row, absent, guarded

FILES = ("ga_inputs.npz", "ga_outputs.npz", "ga_summary.json", "ga_scene_gt.npz")
#: Settings of the original by their recorded names: (ours, what makes ours of theirs).
SETTINGS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "niter1": ("coarse_steps", int),
    "niter2": ("fine_steps", int),
    "lr1": ("coarse_rate", float),
    "lr2": ("fine_rate", float),
    "matching_conf_thr": ("least_confidence", float),
    "shared_intrinsics": ("shared_lens", bool),
    "opt_pp": ("free_centre", bool),
    "opt_depth": ("free_depth", bool),
    "kinematic_mode": ("tree", str),
}


@dataclass(frozen=True)
class Case:
    """One recorded run. `settings` is None where it was set in a way that is not ours: `unknown` says which."""

    name: str
    settings: OriginalSettings | None
    unknown: str
    number_type: torch.dtype
    true_lens: bool
    recorded: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """The four files. `twice` are the summary's figures of one case run in two precisions."""

    inputs: Arrays
    answers: Arrays
    truth: Arrays
    cases: tuple[Case, ...]
    twice: dict[str, float]

    @property
    def frames(self) -> int:
        return int(self.inputs["pairs"].max()) + 1

    def problem(self, number_type: torch.dtype = torch.float32) -> SparseProblem:
        """What every case was given."""
        sums = [CanonicalSums() for _ in range(self.frames)]
        pairs, weak = [], []
        for i, j in self.inputs["pairs"].tolist():

            def read(name: str, pair: str = f"{i}_{j}") -> Tensor:
                return torch.from_numpy(self.inputs[f"{pair}.{name}"]).to(number_type)

            for n, which in ((i, "ii"), (j, "jj")):
                sums[n].add(_view(read(f"X_{which}"), read(f"C_{which}")))
            matches = Matches(read("xy_i").long(), read("xy_j").long(), read("match_conf"))
            pairs.append(PairMatches(i, j, matches))
            for seen, by, which in ((i, j, "ij"), (j, i, "ji")):
                weak.append(WeakView(seen, by, read(f"X_{which}_sub8"), read(f"C_{which}_sub8")))
        views = [s.finish() for s in sums]
        height, width = views[0].depth_ratio.shape
        return SparseProblem(views, pairs, (width, height), weak)

    def first_intrinsics(self, case: Case) -> Tensor | None:
        """(N, 3, 3) where the lenses of a case start; None where the views say it."""
        return torch.from_numpy(np.tile(self.truth["K"], (self.frames, 1, 1))) if case.true_lens else None

    def recorded_end(self, case: Case, problem: SparseProblem) -> Placed:
        """The cameras that the case ended with."""
        pose, lens, depth = (
            torch.from_numpy(self.answers[f"{case.name}.{part}"]) for part in ("cam2w", "intrinsics", "depthmaps")
        )
        first = self.first_intrinsics(case)
        focal = lens.new_tensor([v.focal_px for v in problem.views]) if first is None else first[:, 0, 0].to(lens)
        return Placed(pose[:, :3, :3], pose[:, :3, 3], lens[:, 0, 0], lens[:, :2, 2], depth, focal)

    def path_error(self, world_from_camera: Tensor | np.ndarray) -> TrajectoryError:
        """How far cameras are from the truth, after the best similarity."""
        return absolute_trajectory_error(np.asarray(world_from_camera, np.float64), self.truth["cam2w"])


def _view(points: Tensor, confidence: Tensor) -> View:
    none = points.new_zeros(*confidence.shape, 0)
    return View(points, confidence, none, confidence)


def of_scene(part: str, rows: Callable[[Scene], Iterable[Row]]) -> Callable[[Path], Iterator[Row]]:
    """A check of a folder out of a check of its scene."""

    def check(folder: Path) -> Iterator[Row]:
        missing = [name for name in FILES if not (folder / name).is_file()]
        if missing:
            yield absent(f"{part}: {', '.join(missing)}")
        else:
            yield from guarded(part, lambda: rows(read_scene(folder)))

    return check


@lru_cache(maxsize=1)
def read_scene(folder: Path) -> Scene:
    summary = json.loads((folder / "ga_summary.json").read_text(encoding="utf-8"))
    base = _with(OriginalSettings(), summary.get("defaults", {}))
    cases = []
    for name, recorded in summary["cases"].items():
        told = dict(recorded["settings"])
        number_type = getattr(torch, told.pop("dtype", "float32"))
        true_lens = "intrinsics" in told.pop("init", "")
        unknown = ", ".join(sorted(told.keys() - SETTINGS.keys()))
        settings = None if unknown else _with(base, told)
        cases.append(Case(name, settings, unknown, number_type, true_lens, recorded))
    arrays = (Arrays(folder / name) for name in FILES if name.endswith(".npz"))
    return Scene(*arrays, tuple(cases), summary.get("fp32_vs_fp64_same_settings", {}))


def _with(settings: OriginalSettings, told: dict[str, Any]) -> OriginalSettings:
    """The settings with those of ours that `told` names."""
    ours = {SETTINGS[name][0]: SETTINGS[name][1](value) for name, value in told.items() if name in SETTINGS}
    return replace(settings, **ours)
