"""What the classical engine costs on this machine, stage by stage: the constants of backend/classical/cost.py.

    python -m benchmarks.estimate

The demo clip is reconstructed at several sizes and lengths, each in a process of its own, so that its peak of memory is
that run's alone. Times are seconds of processor time, which another program on the machine does not change; the wall
clock is shown beside. For each stage, what fits best of: a constant, and so much for each frame, each frame and million
pixels of the point grid, and each frame and million pixels of the plate as it is stored.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from scipy.optimize import nnls

from backend.estimate import estimate
from backend.machine import this_machine
from backend.pipeline import reconstruct
from backend.run import Run
from backend.wire import ClipSettings, Estimate, JobSettings

from .classical import DEMO, LENS

#: (frames, long side of the grid, factor by which the plate is enlarged)
CASES = ((12, 256, 1), (40, 256, 1), (12, 512, 1), (40, 512, 1), (16, 512, 2), (12, 768, 2))
PLATE = (640, 360)


@dataclass
class ProcessorRun(Run):
    """A run that also keeps the processor time of each stage, of all its threads."""

    processor_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, part: float = 1.0) -> Iterator[None]:
        began = time.process_time()
        with super().stage(name, part):
            yield
        self.processor_s[name] = self.processor_s.get(name, 0.0) + time.process_time() - began


def enlarged(factor: int, folder: Path) -> Path:
    """The demo clip with a plate so many times as large."""
    if factor == 1:
        return DEMO / "clip.mp4"
    path = folder / "large.mp4"
    with av.open(str(DEMO / "clip.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.bit_rate = PLATE[0] * factor, PLATE[1] * factor, 20_000_000
        for frame in source.decode(video=0):
            rgb = cv2.resize(
                frame.to_ndarray(format="rgb24"), (stream.width, stream.height), interpolation=cv2.INTER_CUBIC
            )
            target.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        target.mux(stream.encode(None))
    return path


def estimated(frames: int, long_side: int, factor: int) -> Estimate:
    """What the artist is told of a case beforehand, on this machine, which has not learned anything yet."""
    settings = JobSettings(clip=ClipSettings(last_frame=frames - 1, long_side=long_side), lens=LENS)
    size = PLATE[0] * factor, PLATE[1] * factor
    return estimate(*size, frames, 24.0, settings, this_machine(), Path("no jobs"))


def one(frames: int, long_side: int, factor: int) -> None:
    """Reconstruct one case and print what it took, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        clip = enlarged(factor, Path(folder))
        run, began = ProcessorRun(work_dir=Path(folder)), time.monotonic()
        settings = JobSettings(clip=ClipSettings(last_frame=frames - 1, long_side=long_side), lens=LENS)
        reconstruct(clip, Path(folder) / "capture", settings, run)
        taken = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"stages": run.processor_s, "wall_s": taken, "peak": 1024 * peak}))


def main() -> None:
    if len(sys.argv) > 1:
        one(*map(int, sys.argv[1:]))
        return
    rows, results = [], []
    print(
        "| Frames | Grid | Plate | processor s | wall s | estimated s | peak MB | estimated MB |\n" + "|---" * 8 + "|"
    )
    for frames, long_side, factor in CASES:
        command = [sys.executable, "-m", "benchmarks.estimate", str(frames), str(long_side), str(factor)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
        result = json.loads(told)
        aspect = PLATE[1] / PLATE[0]
        rows.append((frames, long_side**2 * aspect / 1e6, PLATE[0] * PLATE[1] * factor**2 / 1e6))
        results.append(result)
        total = sum(result["stages"].values())
        said = estimated(frames, long_side, factor)
        print(
            f"| {frames} | {long_side} | {PLATE[0] * factor} | {total:.1f} | {result['wall_s']:.1f} "
            f"| {said.seconds_low:.0f} to {said.seconds_high:.0f} "
            f"| {result['peak'] / 1e6:.0f} | {said.memory_bytes / 1e6:.0f} |",
            flush=True,
        )
    frames, grid, plate = np.array(rows).T
    features = np.stack([np.ones_like(frames), frames, frames * grid, frames * plate], axis=1)
    print(
        "\n| Stage | constant | a frame | a frame and grid Mpx | a frame and plate Mpx | off by |\n" + "|---" * 6 + "|"
    )
    for stage in results[0]["stages"]:
        show(stage, features, np.array([r["stages"][stage] for r in results]))
    show("MB of memory at the peak", features, np.array([r["peak"] / 1e6 for r in results]))


def show(name: str, features: np.ndarray, values: np.ndarray) -> None:
    """One row: the constants that fit relative to the values, and how far off the worst case is."""
    weights = 1 / np.maximum(values, 1e-3)
    fit, _ = nnls(features * weights[:, None], values * weights)
    off = np.abs(features @ fit / values - 1).max()
    print(f"| {name} | " + " | ".join(f"{c:.3g}" for c in fit) + f" | {off:.0%} |")


if __name__ == "__main__":
    main()
