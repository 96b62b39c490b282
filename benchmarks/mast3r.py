"""What the MASt3R engine's parts cost on a device: the network, matching beside the plain search, alignment.

    python -m benchmarks.mast3r [--device cuda] [--size 512 384] [--precision fast] [--only network matching alignment]

The network has its published shape and random weights, so it costs what the published one costs. What works on its
answers gets an oracle's (tests/view_oracle.py) of a scene whose truth is known, so that a line also tells what came of
it. Nothing is downloaded. Plain matching takes many seconds a pair without a graphics card.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend.geometry.camera import project
from backend.matching.fast import match_batch
from backend.matching.matches import Matches
from backend.matching.reciprocal import Described, nearest_in_blocks, symmetric_matches
from backend.nets.mast3r import MatchingConfig, MatchingNet, MatchingViews
from backend.nets.precision import EXACT, Precision
from backend.nets.predict import network_input
from backend.sparse.original import OriginalSettings, align_as_original
from backend.sparse.problem import SparseProblem
from backend.sparse.solve import solve_sparse
from backend.sparse.views import SymmetricPair, View
from tests.conformance.mast3r_network import small_network
from tests.conformance.mast3r_scene import read_scene
from tests.recipe import formula_state
from tests.sparse import scenes as scenes_of_sets
from tests.view_oracle import ViewOracle, surface_points
from tests.worlds import World, film, hand_held, sliding_box, square_intrinsics

from .network import (
    COMPARED,
    HEADER,
    PRECISIONS,
    answer,
    as_done,
    network_rows,
    noisy_gradient,
    peak_memory,
    synchronize,
    table,
)

RECORDED = Path(__file__).parent.parent / "tests" / "fixtures" / "mast3r"
#: A match is right when it ends this near to where its point is seen; whole pixels alone make 0.7.
RIGHT_PX = 2.0


def network(options: argparse.Namespace) -> None:
    """Time, memory and operations of a frame's encoding, and of a directed pair."""
    width, height = options.size
    way = replace(PRECISIONS[options.precision], compiled=options.compiled)
    config = MatchingConfig()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MatchingNet(config).state_dict().items()}
    state = formula_state(shapes)
    stages = network_rows(
        options.device, way, width, height, options.pairs, options.repeats, config, state, MatchingNet
    )
    how = f"{options.precision}{', compiled' if options.compiled else ''}, {options.pairs} at once"
    rate = f"a matrix product reaches {stages[0].matrix_rate / 1e12:.2f} TFLOP/s"
    table(f"The network on {where(options)}, {width} x {height}, {how}; {rate}", HEADER, (s.row() for s in stages))


def precision(options: argparse.Namespace) -> None:
    """How far each way of calculating is from float32, in the recorded small network on pictures of noise."""
    net = small_network(RECORDED)
    width, height = 256, 160
    images = [network_input(noisy_gradient(height, width, seed), options.device) for seed in (0, 1)]

    def answered(precision: Precision) -> MatchingViews:
        return answer(net.config, net.state_dict(), precision, images, MatchingNet)

    exact = answered(EXACT)
    rows = [(as_done(name, way, options.device), *_deviation(answered(way), exact)) for name, way in COMPARED]
    header = ("Compared with float32", "points, median", "descriptors, median angle", "their confidence, median")
    header += ("same nearest neighbour",)
    table(f"The recorded small network on {where(options)}, {width} x {height}", header, rows)


def _deviation(maps: MatchingViews, exact: MatchingViews) -> tuple[str, ...]:
    points = (maps.pts3d_2 - exact.pts3d_2).norm(dim=-1) / exact.pts3d_2.norm(dim=-1)
    angle = 2 * torch.asin((maps.desc_1 - exact.desc_1).norm(dim=-1).div(2).clamp(max=1))
    sure = (maps.desc_conf_1 / exact.desc_conf_1).log().abs()
    nearest = [
        nearest_in_blocks(m.desc_1[0, ::4, ::4].flatten(0, 1), m.desc_2[0].flatten(0, 1))[0] for m in (maps, exact)
    ]
    same = (nearest[0] == nearest[1]).double().mean()
    figures = (points.median(), angle.median(), sure.median())
    return (*(f"{float(figure):.1e}" for figure in figures), f"{float(same):.1%}")


def matching(options: argparse.Namespace) -> None:
    """Matches of pairs of frames, by the plain search one after the other, and by ours, one and several at once."""
    width, height = options.size
    device = torch.device(options.device)
    frames = 4
    world = film(hand_held(3 * frames)[::3], square_intrinsics(0.9 * width, width, height, frames), width, height)
    asked = list(combinations(range(frames), 2))[: options.matched]
    pairs = [_on(device, pair) for pair in ViewOracle(world).predict(asked)]
    ways: dict[str, Callable[[], list[Matches]]] = {
        "plain": lambda: [_plain(pair) for pair in pairs],
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


def _plain(pair: SymmetricPair) -> Matches:
    """What `match_batch` finds by default, by the plain search."""
    views = ((pair.ii, pair.ji), (pair.ij, pair.jj))
    decodings = [tuple(Described(v.descriptors, v.descriptor_confidence) for v in both) for both in views]
    size = pair.ii.confidence.shape[::-1]
    return symmetric_matches(decodings).without_border(size, size)


def _on(device: torch.device, pair: SymmetricPair) -> SymmetricPair:
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


def alignment(options: argparse.Namespace) -> None:
    """Cameras of the recorded scene and of synthetic ones, by the original's alignment and by ours, on one core."""
    recorded = read_scene(options.recorded)
    truth = np.asarray(recorded.truth["cam2w"], np.float64)
    scenes = {"recorded scene": (recorded.problem(), truth, recorded.truth["K"][0, 0])}
    for name, mover in (("arc", None), ("arc, mover masked", sliding_box(8))):
        world = scenes_of_sets.film(scenes_of_sets.arc(), mover=mover)
        problem = scenes_of_sets.problem_of(world, scenes_of_sets.near_pairs(8), masked=mover is not None)
        scenes[name] = (problem, world.world_from_camera, world.intrinsics[:, 0])
    rows = []
    for name, (problem, true_poses, true_focal_px) in scenes.items():
        for who, way in ALIGNMENTS.items():
            began = time.process_time()
            poses, focal_px = way(problem)
            cpu_s = time.process_time() - began
            off = scenes_of_sets.off(poses, focal_px, true_poses, true_focal_px)
            figures = (f"{1e3 * off.ate_m:.1f}", f"{1 / off.scale - 1:+.2%}", f"{off.rotation_deg:.3f}")
            rows.append((name, who, *figures, f"{off.focal:.2%}", f"{cpu_s:.2f}"))
    header = ("Scene", "Alignment", "ATE mm", "scale error", "rotation deg", "focal error", "CPU s")
    table("Aligning 8 frames of 128 x 96", header, rows)


def _by_original(problem: SparseProblem, shared_lens: bool) -> tuple[np.ndarray, np.ndarray]:
    placed = align_as_original(problem, OriginalSettings(shared_lens=shared_lens)).placed
    return placed.world_from_camera.double().numpy(), placed.focal_px.double().numpy()


def _by_ours(problem: SparseProblem, lens: str) -> tuple[np.ndarray, np.ndarray]:
    solved = solve_sparse(problem, lens)
    return solved.world_from_camera, solved.focal_px


#: Who aligns: (N, 4, 4) poses and (N,) focal lengths of a problem.
ALIGNMENTS: dict[str, Callable[[SparseProblem], tuple[np.ndarray, np.ndarray]]] = {
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


#: What can be measured; to add a part, write a function that takes the options and prints a table.
PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "network": network,
    "precision": precision,
    "matching": matching,
    "alignment": alignment,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables of the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=(512, 384), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=1, help="how many frames or pairs the network has at once")
    parser.add_argument("--precision", choices=PRECISIONS, default="exact")
    parser.add_argument("--compiled", action="store_true", help="blocks and heads through torch.compile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--matched", type=int, default=2, metavar="PAIRS", help="how many pairs are matched, 6 at most")
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="a folder with the recorded scene")
    options = parser.parse_args(arguments)
    for part in options.only:
        PARTS[part](options)


if __name__ == "__main__":
    main()
