"""What a capture costs with the MonST3R engine: time and memory of each stage, operations and the rate they reach.

    python -m benchmarks.monst3r [--device cuda] [--frames 65] [--size 512 288] [--precision fast] [--preview]
                                 [--window 100] [--no-refinement]

The networks have their published shapes and random weights, so they cost what the published ones cost; what they say is
thrown away, and an oracle's answers (tests/pair_oracle.py) go on in its place, so that alignment, masks and refinement
work on a scene as they would. The plate is a rendered room of twice the size. Everything runs once to warm up on a few
frames. Writing the capture is not in it. Without a graphics card few frames are taken: a pair takes seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from backend.align.predictions import PairFlows, PairPredictions
from backend.clip import Clip
from backend.engines.monst3r import MonST3REngine
from backend.monst3r.models import precision_of
from backend.nets.pairwise import PairwiseConfig, PairwiseNet
from backend.nets.predict import PairPredictor
from backend.nets.raft import RaftFlow, new_raft
from backend.run import Run
from backend.wire import ClipSettings, JobSettings, MonST3RSettings, PlateMap
from tests.pair_oracle import FlowOracle, PairOracle
from tests.recipe import recipe_state
from tests.worlds import World, as_capture, film, hand_held, sliding_box, square_intrinsics

from .network import SALT, matrix_rate, peak_memory, stage_flops, synchronize, table

PLATE = 2  # how many times the grid's size the plate is
WARM_UP_FRAMES = 4


@dataclass
class MeasuredRun(Run):
    """A run that keeps the most memory that each stage took; what oracles cost is taken out of the time."""

    peaks: dict[str, int | None] = field(default_factory=dict)
    not_ours: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, part: float = 1.0) -> Iterator[None]:
        with peak_memory(self.device) as peak:
            with super().stage(name, part):
                yield
                synchronize(self.device)
            self.peaks[name] = max(filter(None, (self.peaks.get(name), peak())), default=None)

    @contextmanager
    def by_oracle(self) -> Iterator[None]:
        """What is done in here is not the engine's."""
        synchronize(self.device)
        began = time.monotonic()
        yield
        self.not_ours[self._stage] = self.not_ours.get(self._stage, 0.0) + time.monotonic() - began

    def seconds(self) -> dict[str, float]:
        """Each stage's own time."""
        return {name: taken - self.not_ours.get(name, 0.0) for name, taken in self.timings}


@dataclass
class Replaced:
    """A predictor whose answers are thrown away for those of an oracle."""

    real: PairPredictor | RaftFlow
    oracle: PairOracle | FlowOracle
    run: MeasuredRun
    asked: int = 0

    def predict(self, edges) -> PairPredictions | PairFlows:
        self.real.predict(edges)
        self.asked += len(edges)
        with self.run.by_oracle():
            return self.oracle.predict(np.asarray(edges).tolist())


class BenchmarkEngine(MonST3REngine):
    """The engine with networks of random weights, and oracles for what they say."""

    def __init__(self, world: World, network: PairwiseNet) -> None:
        self.world, self.network = world, network

    def pair_source(self, pictures, options, device, run, total):
        precision = precision_of(options, device)
        real = PairPredictor(self.network, pictures, device, precision, run, total, options.pairs_at_once)
        self.pairs = Replaced(real, PairOracle(self.world), run)
        return self.pairs, ()

    def flow_source(self, pictures, options, run):
        half = torch.float16 if torch.device(run.device).type == "cuda" else torch.float32
        model = new_raft(options.flow.removeprefix("raft_")).to(run.device)
        real = RaftFlow(pictures, model, run, updates=options.flow_updates, precision=half)
        return Replaced(real, FlowOracle(self.world), run), ()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--frames", type=int, default=0)
    parser.add_argument("--size", nargs=2, type=int, default=(512, 288), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--precision", choices=("auto", "exact", "fast", "fastest"), default="auto")
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--neighbours", type=int, default=5)
    parser.add_argument("--preview", action="store_true")
    parser.add_argument("--no-refinement", action="store_true", help="without bundle adjustment on the plate")
    options = parser.parse_args()
    frames = options.frames or (65 if "cuda" in options.device else 4)
    settings = MonST3RSettings(
        mode="preview" if options.preview else "full",
        precision=options.precision,
        window_frames=options.window,
        neighbours=options.neighbours,
        refine_camera=not options.no_refinement,
    )
    config = PairwiseConfig()
    network = PairwiseNet.from_state(config, recipe_state(config, SALT))
    width, height = options.size
    reconstruct(network, WARM_UP_FRAMES, (width, height), settings, options.device)
    run, pairs = reconstruct(network, frames, (width, height), settings, options.device)
    report(run, pairs, frames, (width, height), settings, options.device)


def reconstruct(
    network: PairwiseNet, frames: int, size: tuple[int, int], settings: MonST3RSettings, device: str
) -> tuple[MeasuredRun, int]:
    """One capture of a rendered room: the run with its figures, and how many pairs the network was asked for."""
    width, height = size
    lens = square_intrinsics(0.9 * width, width, height, frames)
    cameras = hand_held(frames)
    world = film(cameras, lens, width, height, sliding_box(frames))
    plate = film(cameras, lens * PLATE, width * PLATE, height * PLATE, world.mover)
    info = as_capture(world, (width * PLATE, height * PLATE)).clip
    clip = Clip(info, plate.rgb, PlateMap(1.0, 1.0))
    job = JobSettings("monst3r", ClipSettings(long_side=max(size)), engine_settings=settings)
    engine = BenchmarkEngine(world, network)
    with tempfile.TemporaryDirectory() as folder:
        run = MeasuredRun(work_dir=Path(folder), device=device)
        engine.reconstruct(clip, job, run)
    return run, engine.pairs.asked


def report(
    run: MeasuredRun, pairs: int, frames: int, size: tuple[int, int], settings: MonST3RSettings, device: str
) -> None:
    """Print the table."""
    config = PairwiseConfig()
    flops = stage_flops(config, *size)
    precision = precision_of(settings, torch.device(device))
    rate = matrix_rate(device, precision.trunk, precision)
    network = frames * (flops["encode"] + flops["shallow"]) + pairs * (flops["decode"] + flops["heads"])
    where = torch.cuda.get_device_name(device) if "cuda" in device else "CPU"
    rows = []
    seconds = run.seconds()
    for name, taken in seconds.items():
        flop, share = "", ""
        if name == "Comparing frames":
            flop = f"{network / 1e12:.1f}"
            share = f"{network / taken / rate:.0%}"
        peak = run.peaks[name]
        rows.append((name, f"{taken:.2f}", flop, share, "not told" if peak is None else f"{peak / 2**30:.2f}"))
    peaks = [p for p in run.peaks.values() if p is not None]
    rows.append(("all", f"{sum(seconds.values()):.2f}", "", "", f"{max(peaks) / 2**30:.2f}" if peaks else "not told"))
    title = (
        f"{where}: {frames} frames at {size[0]} x {size[1]}, {pairs} pairs, {settings.mode} mode, "
        f"precision {settings.precision}; a matrix product reaches {rate / 1e12:.1f} TFLOP/s"
    )
    table(title, ("Stage", "s", "TFLOP", "of matrix rate", "peak GiB"), rows)
    if pairs:
        taken = seconds["Comparing frames"]
        print(f"\n{taken / pairs:.3f} s a pair, {network / pairs / 1e9:.0f} GFLOP with its share of the encoder")


if __name__ == "__main__":
    main()
