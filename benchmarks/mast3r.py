"""What the MASt3R engine's parts cost on a device: the network, matching beside the plain search, alignment.

    python -m benchmarks.mast3r [--device cuda] [--size 512 384] [--precision fast] [--only network engine]

The network has its published shape and random weights, so it costs what the published one costs; what it says is thrown
away, and an oracle's answers (tests/view_oracle.py) go on in its place. Nothing is downloaded. Without a graphics card
a pair takes seconds in the network, and many more in the plain search.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from backend.clip import Clip
from backend.engines.mast3r import MASt3REngine
from backend.mast3r.models import LaterViews
from backend.matching.reciprocal import nearest_in_blocks
from backend.monst3r.models import precision_of
from backend.nets.mast3r import MatchingConfig, MatchingNet, MatchingViews
from backend.nets.precision import EXACT, Precision
from backend.nets.predict import network_input
from backend.nets.predict_views import ViewPredictor
from backend.wire import ClipSettings, JobSettings, MASt3RSettings, PlateMap
from tests.conformance.mast3r_network import small_network
from tests.recipe import matching_net
from tests.view_oracle import ViewOracle
from tests.worlds import World, as_capture, film, hand_held, square_intrinsics

from .mast3r_parts import alignment, matching, on_device, where
from .monst3r import PLATE, MeasuredRun
from .network import (
    COMPARED,
    HEADER,
    PRECISIONS,
    answer,
    as_done,
    network_rows,
    noisy_gradient,
    table,
)

RECORDED = Path(__file__).parent.parent / "tests" / "fixtures" / "mast3r"


def network(options: argparse.Namespace) -> None:
    """Time, memory and operations of a frame's encoding, and of a directed pair."""
    width, height = options.size
    way = replace(PRECISIONS[options.precision], compiled=options.compiled)
    net = full_size_network()
    stages = network_rows(
        options.device, way, width, height, options.pairs, options.repeats, net.config, net.state_dict(), MatchingNet
    )
    how = f"{options.precision}{', compiled' if options.compiled else ''}, {options.pairs} at once"
    rate = f"a matrix product reaches {stages[0].matrix_rate / 1e12:.2f} TFLOP/s"
    table(f"The network on {where(options)}, {width} x {height}, {how}; {rate}", HEADER, (s.row() for s in stages))


def full_size_network() -> MatchingNet:
    """The published network, its weights by a formula."""
    return matching_net(MatchingConfig())


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


class BenchmarkEngine(MASt3REngine):
    """The engine with a network of random weights, whose answers are thrown away for an oracle's."""

    def __init__(self, world: World, network: MatchingNet) -> None:
        self.world, self.network, self.asked = world, network, 0

    def view_source(self, pictures, options, device, run):
        real = ViewPredictor(self.network, pictures, device, precision_of(options, device), run)

        class Replaced:
            tokens = real.tokens

            @staticmethod
            def predict(pairs):
                for said in real.predict(pairs):
                    self.asked += 1
                    with run.by_oracle():
                        (true,) = oracle.predict([(said.i, said.j)])
                        true = on_device(device, true)
                    del said
                    yield true

        oracle = ViewOracle(self.world)
        return LaterViews(Replaced), ()


def engine(options: argparse.Namespace) -> None:
    """A whole capture of a rendered room by stage; the network works, and an oracle's answers go on in its place."""
    width, height = options.size
    frames = options.frames or (24 if "cuda" in options.device else 3)
    lens = square_intrinsics(0.9 * width, width, height, frames)
    world = film(hand_held(frames), lens, width, height)
    plate = film(world.world_from_camera, lens * PLATE, width * PLATE, height * PLATE)
    clip = Clip(as_capture(world, (width * PLATE, height * PLATE)).clip, plate.rgb, PlateMap(1.0, 1.0))
    settings = MASt3RSettings(precision=options.precision)
    job = JobSettings("mast3r", ClipSettings(long_side=max(options.size)), engine_settings=settings)
    benchmark = BenchmarkEngine(world, full_size_network())
    with tempfile.TemporaryDirectory() as folder:
        run = MeasuredRun(work_dir=Path(folder), device=options.device)
        benchmark.reconstruct(clip, job, run)
    seconds = run.seconds()
    told = {name: "not told" if peak is None else f"{peak / 2**30:.2f}" for name, peak in run.peaks.items()}
    rows = [(name, f"{taken:.2f}", told[name]) for name, taken in seconds.items()]
    rows.append(("all", f"{sum(seconds.values()):.2f}", ""))
    title = f"{where(options)}: {frames} frames at {width} x {height}, {benchmark.asked} pairs, {options.precision}"
    table(title, ("Stage", "s", "peak GiB"), rows)


#: What can be measured; to add a part, write a function that takes the options and prints a table.
PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "network": network,
    "precision": precision,
    "matching": matching,
    "alignment": alignment,
    "engine": engine,
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
    parser.add_argument("--frames", type=int, default=0, help="of the whole capture; by default few without a GPU")
    options = parser.parse_args(arguments)
    for part in options.only:
        PARTS[part](options)


if __name__ == "__main__":
    main()
