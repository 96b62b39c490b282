"""Matching and alignment of MASt3R beside their plain forms, on scenes of known truth: parts of benchmarks.mast3r.

Both work on an oracle's answers (tests/view_oracle.py, tests/sparse/scenes.py), so that a line also tells what came of
it. Plain matching takes many seconds a pair without a graphics card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch

from backend.geometry.camera import project
from backend.matching.fast import match_batch
from backend.matching.matches import Matches
from backend.matching.reciprocal import Described, symmetric_matches
from backend.sparse.original import OriginalSettings, align_as_original
from backend.sparse.problem import SparseProblem
from backend.sparse.solve import Knowns, solve_sparse
from backend.sparse.views import SymmetricPair, View
from tests.sparse import scenes
from tests.view_oracle import ViewOracle, surface_points
from tests.worlds import World, film, hand_held, sliding_box, square_intrinsics

from .network import peak_memory, synchronize, table

#: A match is right when it ends this near to where its point is seen; whole pixels alone make 0.7.
RIGHT_PX = 2.0


def matching(options: argparse.Namespace) -> None:
    """Matches of pairs of frames, by the plain search one after the other, and by ours, one and several at once."""
    width, height = options.size
    device = torch.device(options.device)
    frames = 4
    world = film(hand_held(3 * frames)[::3], square_intrinsics(0.9 * width, width, height, frames), width, height)
    asked = list(combinations(range(frames), 2))[: options.matched]
    pairs = [on_device(device, pair) for pair in ViewOracle(world).predict(asked)]
    ways: dict[str, Callable[[], list[Matches]]] = {
        "plain": lambda: [plain_matches(pair) for pair in pairs],
        "ours, a pair at once": lambda: [match_batch([pair])[0] for pair in pairs],
        f"ours, {len(pairs)} at once": lambda: match_batch(pairs),
    }
    rows, seconds = [], {}
    for name, way in ways.items():
        found, seconds[name], peak = _measured(device, way, options.repeats if "ours" in name else 1)
        errors = np.concatenate([match_errors(world, pair, m) for pair, m in zip(pairs, found)])
        rows.append(
            (
                name,
                f"{1e3 * seconds[name] / len(pairs):.1f}",
                f"{seconds['plain'] / seconds[name]:.1f}",
                f"{len(errors) / len(pairs):.0f}",
                f"{(errors < RIGHT_PX).mean():.2%}",
                f"{np.median(errors):.2f}",
                "not told" if peak is None else f"{peak / 2**30:.2f}",
            )
        )
    header = (
        "Matching",
        "ms a pair",
        "times plain",
        "matches a pair",
        f"within {RIGHT_PX:g} px",
        "median px",
        "peak GiB",
    )
    table(f"Matching on {where(options)}, {width} x {height}, {len(pairs)} pairs of a synthetic room", header, rows)


def match_errors(world: World, pair: SymmetricPair, matches: Matches) -> np.ndarray:
    """(M,) px from where each match ends in frame j to where what it begins at in frame i is really seen."""
    (x, y), ends = matches.xy_1.cpu().numpy().T, matches.xy_2.cpu().numpy()
    seen, _ = project(surface_points(world, pair.i)[y, x], world.intrinsics[pair.j], world.world_from_camera[pair.j])
    return np.linalg.norm(seen - 0.5 - ends, axis=-1)


def plain_matches(pair: SymmetricPair) -> Matches:
    """What `match_batch` finds by default, by the plain search."""
    views = ((pair.ii, pair.ji), (pair.ij, pair.jj))
    decodings = [tuple(Described(v.descriptors, v.descriptor_confidence) for v in both) for both in views]
    size = pair.ii.confidence.shape[::-1]
    return symmetric_matches(decodings).without_border(size, size)


def on_device(device: torch.device, pair: SymmetricPair) -> SymmetricPair:
    views = (
        View(*(getattr(view, f.name).to(device) for f in fields(View))) for view in (pair.ii, pair.ji, pair.jj, pair.ij)
    )
    return SymmetricPair(pair.i, pair.j, *views)


def _measured(device: torch.device, work: Callable[[], Any], repeats: int) -> tuple[Any, float, int | None]:
    """What comes of the work, the least seconds of `repeats`, and the most memory; a GPU warms up first."""
    seconds = []
    with peak_memory(device) as peak:
        for _ in range(repeats + (device.type != "cpu")):
            began = time.perf_counter()
            result = work()
            synchronize(device)
            seconds.append(time.perf_counter() - began)
    return result, min(seconds), peak()


@dataclass(frozen=True)
class HeldOut:
    """A scene that no constant of the solver was chosen on; `known` frames have their true pose given, to ours only."""

    world: World
    seed: int
    masked: bool = False
    known: tuple[int, ...] = ()

    def problem(self) -> SparseProblem:
        return scenes.problem_of(self.world, scenes.near_pairs(8), seed=self.seed, masked=self.masked)

    def knowns(self) -> Knowns:
        given = np.full_like(self.world.world_from_camera, np.nan)
        given[list(self.known)] = self.world.world_from_camera[list(self.known)]
        return Knowns(world_from_camera=given)

    def predicted_scale(self, problem: SparseProblem) -> float:
        """Of what the network is taken to say, over the truth: no solver knows better than the mean of its frames."""
        off = [np.log(v.points[..., 2].numpy() / d) for v, d in zip(problem.views, self.world.depth)]
        return float(np.exp(np.mean([np.median(one) for one in off])))


def held_out() -> dict[str, HeldOut]:
    """By name."""
    return {
        "arc": HeldOut(scenes.film(scenes.arc(seed=21)), 121),
        "wide lens, far turn": HeldOut(scenes.film(scenes.arc(turn=0.7, seed=22), focal_px=90.0), 122),
        "long lens": HeldOut(scenes.film(scenes.arc(turn=0.4, seed=23), focal_px=135.0), 123),
        "hand-held": HeldOut(scenes.film(hand_held(8, seed=24)), 124),
        "mover masked": HeldOut(scenes.film(scenes.arc(seed=25), mover=sliding_box(8)), 125, masked=True),
        "two poses known": HeldOut(scenes.film(scenes.arc(seed=26)), 126, known=(0, 7)),
        "pure rotation": HeldOut(scenes.film(hand_held(8, motion="rotation", seed=27)), 127),
    }


def alignment(options: argparse.Namespace) -> None:
    """Cameras of held-out scenes by the original's alignment and by ours; sparse_alignment.py has the recorded one."""
    solve_sparse(held_out()["arc"].problem())  # the first call pays for loading
    rows = []
    for name, scene in held_out().items():
        problem = scene.problem()
        told = f"{scene.predicted_scale(problem) - 1:+.2%}"
        for who, way in ALIGNMENTS.items():
            began = time.process_time()
            poses, focal_px = way(problem, scene.knowns())
            cpu_s = time.process_time() - began
            off = scenes.off(poses, focal_px, scene.world.world_from_camera, scene.world.intrinsics[:, 0])
            still = "rotation" in name
            figures = (f"{1e3 * off.ate_m:.1f}", "" if still else f"{1 / off.scale - 1:+.2%}", "" if still else told)
            rows.append((name, who, *figures, f"{off.rotation_deg:.3f}", f"{off.focal:.2%}", f"{cpu_s:.2f}"))
    header = ("Scene", "Alignment", "ATE mm", "scale error", "of predictions", "rotation deg", "focal error", "CPU s")
    table("Aligning 8 frames of 128 x 96 of scenes that were held out", header, rows)


def _by_original(problem: SparseProblem, knowns: Knowns, shared_lens: bool) -> tuple[np.ndarray, np.ndarray]:
    placed = align_as_original(problem, OriginalSettings(shared_lens=shared_lens)).placed
    return placed.world_from_camera.double().numpy(), placed.focal_px.double().numpy()


def _by_ours(problem: SparseProblem, knowns: Knowns, lens: str) -> tuple[np.ndarray, np.ndarray]:
    solved = solve_sparse(problem, lens, knowns)
    return solved.world_from_camera, solved.focal_px


#: Who aligns: (N, 4, 4) poses and (N,) focal lengths of a problem. The original takes no known poses.
ALIGNMENTS: dict[str, Callable[[SparseProblem, Knowns], tuple[np.ndarray, np.ndarray]]] = {
    "original": partial(_by_original, shared_lens=False),
    "original, shared lens": partial(_by_original, shared_lens=True),
    "ours": partial(_by_ours, lens="each"),
    "ours, shared lens": partial(_by_ours, lens="shared"),
}


def where(options: argparse.Namespace) -> str:
    """The device in words."""
    if "cuda" in options.device:
        return torch.cuda.get_device_name(options.device)
    threads = torch.get_num_threads()
    return f"the CPU, {threads} thread{'s' if threads > 1 else ''}"
