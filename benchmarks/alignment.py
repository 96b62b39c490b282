"""Our alignment beside the original's, on scenes with known truth: errors, CPU seconds, memory.

    python -m benchmarks.alignment [--fixtures FOLDER] [--only NAME ...] [--without-original]

FOLDER is laid out like the recorded fixtures of MonST3R (ga/scene.npz, pairs.npz, flow.npz): one more scene, the first.
The others are from tests/worlds.py, with an oracle of the fixtures' noise in the network's place. Both methods get the
same predictions and flows in the same process, on one thread. The original is our implementation of it, which
`python -m tests.conformance` holds to recorded values; the long walk is too long for it at full size, so both get that
scene at half the size. Memory is what each holds through its solve, beside what it was given: of the original what
autograd keeps for the backward pass (151 bytes an edge and pixel; facts sheet, section 12), of ours the largest sum of
tensors alive in the solver.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from backend.align.align import align
from backend.align.graph import make_pairs
from backend.align.original import align_as_original
from backend.align.predictions import PairFlows, PairPredictions
from backend.align.sampled import sample, sample_pixels
from backend.align.solve import solve, with_knowns
from backend.align.start import start
from backend.align.unknowns import NOTHING_KNOWN, Knowns
from backend.geometry.trajectory import absolute_trajectory_error
from tests import worlds
from tests.pair_oracle import FlowOracle, PairOracle

from .live_tensors import LiveTensors

GRAPH = "swinstride-5-noncyclic"
AUTOGRAD_BYTES = 151


@dataclass(frozen=True)
class Scene:
    """What both methods get, what is true, and what ours is told."""

    name: str
    predictions: PairPredictions
    flows: PairFlows
    world_from_camera: np.ndarray
    depth: np.ndarray
    dynamic: np.ndarray
    focal_px: np.ndarray
    knowns: Knowns = NOTHING_KNOWN


@dataclass(frozen=True)
class Row:
    """One method on one scene; lengths as the truth has them, NaN for a camera that stands still."""

    ate: float
    rotation_deg: float
    focal_error: float
    depth_abs_rel: float
    mask_iou: float
    cpu_s: float
    held_mb: float


SCENES: dict[str, tuple[Callable[[], worlds.World], Knowns]] = {
    "hand-held": (worlds.hand_held_room, NOTHING_KNOWN),
    "fast pan": (worlds.fast_pan, NOTHING_KNOWN),
    "locked off": (worlds.locked_off, Knowns(locked=True)),
    "locked off, not told": (worlds.locked_off, NOTHING_KNOWN),
    "zoom": (worlds.zooming, Knowns(per_frame_focal=True)),
    "large mover": (worlds.large_mover, NOTHING_KNOWN),
    "walk, 300 frames": (lambda: worlds.long_walk(width=48, height=32), NOTHING_KNOWN),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path, help="recorded fixtures of MonST3R")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(SCENES)}")
    parser.add_argument("--without-original", action="store_true", help="ours alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = [] if options.fixtures is None else [lambda: recorded(options.fixtures)]
    scenes += [lambda n=n: synthetic(n) for n in options.only or SCENES]
    print(f"{'':<22}{'':<10}{'ATE':>8}{'rot deg':>9}{'focal':>8}{'AbsRel':>8}{'IoU':>7}{'CPU s':>9}{'held MB':>9}")
    for make in scenes:
        scene = make()
        for who, method in (("original", by_original), ("ours", by_ours)):
            if who == "original" and options.without_original:
                continue
            r = method(scene)
            print(
                f"{scene.name:<22}{who:<10}{r.ate:8.4f}{r.rotation_deg:9.3f}{r.focal_error:8.2%}{r.depth_abs_rel:8.4f}"
                f"{r.mask_iou:7.3f}{r.cpu_s:9.1f}{r.held_mb:9.2f}",
                flush=True,
            )


def recorded(folder: Path) -> Scene:
    """The scene of the recorded fixtures."""
    scene, pairs, flow = (dict(np.load(folder / "ga" / f"{name}.npz")) for name in ("scene", "pairs", "flow"))
    edges = torch.from_numpy(scene["edges"]).long()
    names = ("pred_i", "pred_j", "conf_i", "conf_j")
    return Scene(
        "recorded scene",
        PairPredictions(edges, *(torch.from_numpy(pairs[name]) for name in names)),
        PairFlows(edges, torch.from_numpy(flow["flow"]), torch.ones(pairs["conf_i"].shape, dtype=torch.bool)),
        scene["poses_c2w"],
        scene["depth"],
        scene["dynamic_mask"],
        np.full(len(scene["depth"]), scene["K"][0, 0]),
    )


def synthetic(name: str) -> Scene:
    """A scene of `SCENES`."""
    make, knowns = SCENES[name]
    world = make()
    pairs = make_pairs(GRAPH, len(world.depth), symmetrize=True)
    return Scene(
        name,
        PairOracle(world).predict(pairs),
        FlowOracle(world).predict(pairs),
        world.world_from_camera,
        world.depth,
        world.dynamic,
        world.intrinsics[:, 0],
        knowns,
    )


def by_ours(scene: Scene) -> Row:
    """Our alignment."""
    began = time.process_time()
    found = align(scene.predictions, scene.flows, len(scene.depth), knowns=scene.knowns)
    cpu_s = time.process_time() - began
    poses = np.linalg.inv(found.camera_from_world.numpy())
    return judge(scene, poses, found.depth, found.moving, found.focal_px, cpu_s, held_by_solver(scene))


def by_original(scene: Scene) -> Row:
    """The original's alignment, with the settings of its demo."""
    predictions = scene.predictions.to(torch.float32)
    flows = replace(scene.flows, flow=scene.flows.flow.float())
    began = time.process_time()
    found = align_as_original(predictions, flows)
    cpu_s = time.process_time() - began
    held = AUTOGRAD_BYTES * predictions.confidence_i.numel()
    state = found.state
    return judge(scene, state.world_from_camera.numpy(), state.depth, found.dynamic, state.focal_px, cpu_s, held)


def held_by_solver(scene: Scene) -> int:
    """Bytes that our solver holds beside its sample, at most, with flow."""
    width, height = scene.predictions.size
    pixels = sample_pixels((width, height), min(600, width * height // 20))
    sampled = sample(scene.predictions, scene.flows, pixels)
    first = with_knowns(start(sampled, len(scene.depth)), scene.knowns)
    with LiveTensors() as live:
        solve(sampled, first, scene.knowns, rounds=1, steps=2)
    return live.peak


def judge(scene: Scene, poses, depth, moving, focal_px, cpu_s: float, held: int) -> Row:
    """A result against the truth; depth at one scale for all frames, the median ratio."""
    try:
        path = absolute_trajectory_error(np.asarray(poses, np.float64), scene.world_from_camera)
        ate, rotation = path.ate_rmse, path.rotation_deg_rmse
    except ValueError:
        ate = rotation = float("nan")
    depth, moving = np.asarray(depth), np.asarray(moving)
    scale = np.median(scene.depth / depth)
    either = (moving | scene.dynamic).sum()
    return Row(
        ate=ate,
        rotation_deg=rotation,
        focal_error=float(np.abs(np.asarray(focal_px) / scene.focal_px - 1).mean()),
        depth_abs_rel=float(np.abs(depth * scale / scene.depth - 1).mean()),
        mask_iou=float((moving & scene.dynamic).sum() / either) if either else 1.0,
        cpu_s=cpu_s,
        held_mb=held / 1e6,
    )


if __name__ == "__main__":
    main()
