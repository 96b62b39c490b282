"""What the two-view network costs on a device, how near it comes to the device's speed, and what the fast path changes.

    python -m benchmarks.network [--device cuda] [--size 512 288] [--pairs 8] [--precision fast] [--no-deviations]

The architecture is the published one at full size; its weights are random, so times, memory and operations are those of
the published checkpoint, while deviations only show what the number types do to a network of this shape. Runs in the
environment that has the test tools; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from backend.nets.pairwise import Encoded, PairwiseConfig, PairwiseNet, Pointmaps
from backend.nets.precision import EXACT, FAST, FASTEST, Precision
from backend.nets.predict import network_input
from tests.recipe import fixture_fields, fixture_state, recipe_state

PRECISIONS = {"exact": EXACT, "fast": FAST, "fastest": FASTEST}
#: What the deviation table compares with EXACT.
COMPARED = (
    ("bfloat16 trunk", replace(EXACT, trunk=torch.bfloat16)),
    ("float16 trunk", replace(EXACT, trunk=torch.float16)),
    ("float16 tokens", replace(EXACT, tokens=torch.float16)),
    ("TF32 throughout", replace(EXACT, tf32=True)),
    ("float16 heads", replace(EXACT, heads=torch.float16)),
    ("bfloat16 heads", replace(EXACT, heads=torch.bfloat16)),
    ("FAST: bfloat16 trunk, float16 tokens, TF32 heads", FAST),
    ("FASTEST: the same with float16 heads", FASTEST),
)
SALT = 100


@dataclass(frozen=True)
class Stage:
    """One part of the work for one frame or pair: operations, seconds, the device's rate at the same number type.

    `matrix_rate` is in operations a second; `peak_bytes` is the most that was allocated (on a CPU: resident) meanwhile,
    weights included, or None where the system does not tell.
    """

    name: str
    flop: int
    seconds: float
    matrix_rate: float
    peak_bytes: int | None

    def row(self) -> tuple[str, ...]:
        rate = self.flop / self.seconds
        peak = "not told" if self.peak_bytes is None else f"{self.peak_bytes / 2**30:.2f}"
        figures = (f"{self.flop / 1e9:.0f}", f"{1e3 * self.seconds:.1f}", f"{rate / 1e12:.3f}")
        return (self.name, *figures, f"{rate / self.matrix_rate:.0%}", peak)


HEADER = ("Stage", "GFLOP", "ms", "TFLOP/s", "of matrix rate", "peak GiB")


def network_rows(
    device: torch.device | str,
    precision: Precision = EXACT,
    width: int = 512,
    height: int = 288,
    batch: int = 1,
    repeats: int = 3,
    config: PairwiseConfig | None = None,
    state: dict[str, Tensor] | None = None,
    kind: type[PairwiseNet] = PairwiseNet,
) -> list[Stage]:
    """The stages of a directed pair, timed `batch` at once: medians of `repeats` after one round of warming up.

    A frame is encoded and its heads' maps are made once; a pair is then decoded and goes through both heads.
    """
    config = config or kind.Config()
    state = state or recipe_state(config, SALT)
    net = kind.from_state(config, state).calculating(precision).to(device)
    images = torch.rand(batch, 3, height, width, device=device) * 2 - 1
    grid = config.grid(height, width)
    flops = stage_flops(config, width, height, kind)
    trunk, heads = (matrix_rate(device, dtype, precision) for dtype in (precision.trunk, precision.heads))
    stages = []

    def timed(name: str, flop: int, rate: float, work: Callable[[], Any]) -> Any:
        with peak_memory(device) as peak:
            times, result = [], None
            for _ in range(1 + repeats):
                began = time.perf_counter()
                result = work()
                synchronize(device)
                times.append(time.perf_counter() - began)
        stages.append(Stage(name, flop, statistics.median(times[1:]) / batch, rate, peak()))
        return result

    with torch.inference_mode():
        tokens = timed("encode a frame", flops["encode"], trunk, lambda: net.encode(images))
        maps = timed(
            "both heads' maps of a frame",
            flops["shallow"],
            heads,
            lambda: [net.shallow(view, tokens, grid) for view in (1, 2)],
        )
        views = [Encoded(tokens, grid, shallow) for shallow in maps]
        timed("decode a pair", flops["decode"], trunk, lambda: net.decode(*views))
        seconds = stages[-1].seconds
        timed("decode and heads of a pair", flops["decode"] + flops["heads"], heads, lambda: net.pair(*views))
        both = stages.pop()
        stages.append(replace(both, name="heads of a pair", flop=flops["heads"], seconds=both.seconds - seconds))
    return stages


def stage_flops(
    config: PairwiseConfig, width: int, height: int, kind: type[PairwiseNet] = PairwiseNet
) -> dict[str, int]:
    """Floating-point operations, two a multiplication and addition, of one frame or pair, counted from the shapes.

    `shallow` is of both heads and a frame; `heads` is of both heads and a pair without it.
    """
    with torch.device("meta"), torch.inference_mode():
        net, images = kind(config), torch.empty(1, 3, height, width)
        grid = config.grid(height, width)
        tokens, encode = _counted(lambda: net.encode(images))
        maps, shallow = _counted(lambda: [net.shallow(view, tokens, grid) for view in (1, 2)])
        views = [Encoded(tokens, grid, made) for made in maps]
        _, decode = _counted(lambda: net.decode(*views))
        _, pair = _counted(lambda: net.pair(*views))
    return {"encode": encode, "shallow": shallow, "decode": decode, "heads": pair - decode}


def _counted(work: Callable[[], Any]) -> tuple[Any, int]:
    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, counter.get_total_flops()


def matrix_rate(device: torch.device | str, dtype: torch.dtype, precision: Precision) -> float:
    """Operations a second of a large product of matrices: what the device really reaches at a number type."""
    side = 8192 if torch.device(device).type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = math.inf
    with precision.applied():
        for _ in range(4):
            began = time.perf_counter()
            F.linear(a, b)
            synchronize(device)
            best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def synchronize(device: torch.device | str) -> None:
    """Wait until a device has done what it was asked."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: torch.device | str):
    """A function that says, after the block, the most bytes that were in use within it; None where nobody knows."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5", encoding="ascii")  # Linux: the resident set's high-water mark starts anew
    yield _resident_peak


def _resident_peak() -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    rows = dict(line.split(":", 1) for line in status.read_text(encoding="ascii", errors="replace").splitlines())
    return 1024 * int(rows["VmHWM"].split()[0])


@dataclass(frozen=True)
class Deviation:
    """How far a way of calculating is from float32: relative errors of points and of confidence less 1."""

    name: str
    points_median: float
    points_99: float
    confidence_median: float

    def row(self) -> tuple[str, ...]:
        return (self.name, *(f"{value:.1e}" for value in (self.points_median, self.points_99, self.confidence_median)))


DEVIATION_HEADER = ("Compared with float32", "points, median", "points, 99 %", "confidence, median")


def deviations(
    config: PairwiseConfig, state: dict[str, Tensor], device: torch.device | str, width: int, height: int
) -> Iterator[Deviation]:
    """What each row of COMPARED changes in a pair of pictures of noise and gradients; TF32 is imitated on a CPU.

    At full size, each row with 16-bit types takes minutes on a CPU that has no instructions for them.
    """
    images = [network_input(noisy_gradient(height, width, seed), device) for seed in (0, 1)]
    exact = answer(config, state, EXACT, images)
    for name, precision in COMPARED:
        yield _deviation(as_done(name, precision, device), answer(config, state, precision, images), exact)
    stored = Pointmaps(*(getattr(exact, f).half().float() for f in exact.__dataclass_fields__))
    yield _deviation("float32, answers kept in float16", stored, exact)


def as_done(name: str, precision: Precision, device: torch.device | str) -> str:
    """The name of a way of calculating, and how much of it is only imitated on the device."""
    imitated = precision.tf32 and torch.device(device).type != "cuda"
    return name + (" (TF32 imitated)" if imitated else "")


def answer(
    config: PairwiseConfig,
    state: dict[str, Tensor],
    precision: Precision,
    images: list[Tensor],
    kind: type[PairwiseNet] = PairwiseNet,
) -> Pointmaps:
    """What a network says of two pictures at a precision, its tokens kept as that has it; TF32 imitated on a CPU."""
    net = kind.from_state(config, state).calculating(precision).to(images[0].device)
    if precision.tf32 and images[0].device.type != "cuda":
        _imitate_tf32(net)
    with torch.inference_mode():
        views = []
        for image in images:
            tokens = net.encode(image).to(precision.tokens).float()
            views.append(Encoded(tokens, config.grid(*image.shape[-2:])))
        return net.pair(*views)


def _imitate_tf32(net: PairwiseNet) -> None:
    """Round what goes into the products of float32 layers to the 10 bits of mantissa that TF32 has."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)) and module.weight.dtype == torch.float32:
            module.weight = nn.Parameter(_ten_bits(module.weight), requires_grad=False)
            module.register_forward_pre_hook(lambda _, inputs: (_ten_bits(inputs[0].float()),))


def _ten_bits(x: Tensor) -> Tensor:
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32).view_as(x)


def _deviation(name: str, maps: Pointmaps, exact: Pointmaps) -> Deviation:
    points, confidence = [], []
    for view in (1, 2):
        ours, theirs = (getattr(m, f"pts3d_{view}").double() for m in (maps, exact))
        points.append(((ours - theirs).norm(dim=-1) / theirs.norm(dim=-1)).flatten())
        ours, theirs = (getattr(m, f"conf_{view}").double() for m in (maps, exact))
        confidence.append(((ours - theirs).abs() / (theirs - 1)).flatten())
    points, confidence = torch.cat(points), torch.cat(confidence)
    return Deviation(
        name, points.median().item(), np.quantile(points.cpu().numpy(), 0.99).item(), confidence.median().item()
    )


def noisy_gradient(height: int, width: int, seed: int) -> np.ndarray:
    """(1, H, W, 3) uint8: a gradient with noise on it."""
    rng = np.random.default_rng(seed)
    gradient = np.linspace(0, 180, width) + np.linspace(0, 40, height)[:, None]
    return (gradient[..., None] + rng.uniform(0, 35, (height, width, 3))).astype(np.uint8)[None]


def table(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a Markdown table."""
    header = list(header)
    print(f"\n{title}\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=(512, 288), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--pairs", type=int, default=1, help="how many frames or pairs at once")
    parser.add_argument("--precision", choices=PRECISIONS, default="exact")
    parser.add_argument("--compiled", action="store_true", help="blocks and heads through torch.compile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-deviations", action="store_true")
    options = parser.parse_args()
    width, height = options.size
    precision = replace(PRECISIONS[options.precision], compiled=options.compiled)
    config = PairwiseConfig()
    state = recipe_state(config, SALT)
    stages = network_rows(
        options.device, precision, width, height, options.pairs, options.repeats, config=config, state=state
    )
    where = torch.cuda.get_device_name(options.device) if "cuda" in options.device else "CPU"
    how = f"{options.precision}{', compiled' if options.compiled else ''}, {options.pairs} at once"
    table(
        f"{where}, {width} x {height}, {how}; a matrix product reaches {stages[0].matrix_rate / 1e12:.2f} TFLOP/s",
        HEADER,
        (stage.row() for stage in stages),
    )
    if options.no_deviations:
        return
    small = PairwiseConfig.from_fields(fixture_fields("dpt_mini"))
    for name, c, s in (("full size", config, state), ("a small one", small, fixture_state("dpt_mini"))):
        title = f"Random weights, {name}, 256 x 160: relative error against float32"
        table(title, DEVIATION_HEADER, (d.row() for d in deviations(c, s, options.device, 256, 160)))


if __name__ == "__main__":
    main()
