"""How fast a capture is imported into Blender, played and added to: `python benchmarks/blender_import.py --help`.

Run it in a Python that has the `bpy` wheel of the Blender to measure. Synthetic captures: 65 frames of 512 x 288
pixels and 300 of 500 x 300, every pixel a coloured point. Frame change is `scene.frame_set` with the evaluation of
everything in the scene, after a first pass over all frames; append is what one more frame of a running job takes until
the scene is evaluated with it. Every row is measured in a process of its own; memory is what its first import and
playing it added. Times are medians, by the clock / of the processors (all threads together; what other work on a busy
machine does not change much), and a budget is held or not by the smaller of the two.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blender_addon.scene import ImportOptions, ImportReport, import_capture, nodes
from blender_addon.scene.imported import PLAYER, ROLE
from blender_addon.scene.points import FRAME, CloudFactory, frame_cloud
from blender_addon.wire.capture import (
    Capture,
    ClipInfo,
    EngineStamp,
    FrameReport,
    PlateMap,
    ShotReport,
    read_capture,
    write_capture,
)


def synthetic_capture(frames: int, width: int, height: int) -> Capture:
    """A rough hill seen by a camera that slides past it; a disc on it moves. Every pixel has depth and colour."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    shift = np.linspace(0, 0.5, frames)
    depth = np.empty((frames, height, width), np.float32)
    dynamic = np.empty((frames, height, width), bool)
    for i, s in enumerate(shift):
        depth[i] = 4 + 0.5 * np.sin(5 * (x + s)) * np.cos(4 * y) + rng.normal(0, 0.005, x.shape)
        dynamic[i] = np.hypot(x - 1 + 2 * s, y) < 0.3
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    cameras[:, 0, 3] = np.linspace(0, 1, frames)
    focal = 0.9 * width
    return Capture(
        clip=ClipInfo("hill.mp4", (width, height), Fraction(24), tuple(range(frames)), tuple(np.arange(frames) / 24)),
        plate_map=PlateMap(1.0, 1.0),
        engine=EngineStamp("synthetic", "1", "GPL-3.0-or-later", True),
        settings={},
        metric=True,
        confidence_meaning="random",
        confidence_default=0.3,
        world_from_camera=cameras,
        intrinsics=np.tile([focal, focal, width / 2, height / 2], (frames, 1)),
        rgb=rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8),
        depth=depth,
        confidence=rng.random((frames, height, width), np.float32).astype(np.float16),
        dynamic=dynamic,
        frames=tuple(FrameReport(True) for _ in range(frames)),
        shot=ShotReport("moving", None, "user"),
    )


def resident_mb() -> float:
    """Memory this process holds now; NaN where the system does not say (only Linux does)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return float("nan")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Clock:
    """Seconds since it was made, by the clock and of the processors."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._began[0], time.process_time() - self._began[1]


def play(scene: bpy.types.Scene, passes: int) -> np.ndarray:
    """(N, 2) seconds of each frame change, warm."""
    times = []
    for number in range(passes + 1):
        for frame in range(scene.frame_start, scene.frame_end + 1):
            clock = Clock()
            scene.frame_set(frame)
            if number:
                times.append(clock.read())
    return np.array(times)


def append(
    scene: bpy.types.Scene, capture: Capture, frames: bpy.types.Collection, keep: np.ndarray | None
) -> np.ndarray:
    """(10, 2) seconds of adding each of the last ten frames to a player that has all others, and evaluating it."""
    last = range(capture.frame_count - 10, capture.frame_count)
    for ob in [ob for ob in frames.objects if ob[FRAME] in last]:
        bpy.data.objects.remove(ob)
    times = []
    with CloudFactory() as factory:
        for frame in last:
            scene.frame_set(scene.frame_start + frame)
            clock = Clock()
            frames.objects.link(
                frame_cloud(capture, factory, frames.name, frame, None if keep is None else keep[frame])
            )
            bpy.context.view_layer.update()
            times.append(clock.read())
    return np.array(times)


def measure(folder: Path, storage: str, runs: int) -> dict[str, list[float]]:
    """What a storage takes: seconds or MB, each a list of [by the clock, of the processors] or of one number."""
    imports, changes, filtered, memory = [], [], [], None
    for _ in range(runs):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene, before, clock = bpy.context.scene, resident_mb(), Clock()
        collection = import_capture(folder, scene, ImportOptions(storage=storage, min_confidence=0.0))
        imports.append(clock.read())
        modifier = next(ob for ob in collection.objects if ob.get(ROLE) == PLAYER).modifiers[0]
        changes.append(play(scene, 2))
        memory = memory if memory is not None else resident_mb() - before
        nodes.set_input(modifier, "Min Confidence", 0.3)
        filtered.append(play(scene, 1))
    nodes.set_input(modifier, "Min Confidence", 0.0)
    blend = folder.parent / "benchmark.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    report, capture = ImportReport.read(collection), read_capture(folder)
    frames = nodes.get_input(modifier, "Frames")
    appended = append(scene, capture, frames, capture.dynamic if storage == "split" else None)
    return {
        "points": [report.points],
        "import": list(np.median(imports, axis=0)),
        "change": list(np.median(np.concatenate(changes), axis=0)),
        "slow": list(np.percentile(np.concatenate(changes), 95, axis=0)),
        "filtered": list(np.median(np.concatenate(filtered), axis=0)),
        "append": list(np.median(appended, axis=0)),
        "memory": [memory],
        "blend": [blend.stat().st_size / 2**20],
    }


#: What is measured, how it is written, and the budgets: (frames, width, height), storage, most.
COLUMNS = {
    "points": "{:,.0f}",
    "import": "{:.2f} s",
    "change": "{:.2f} ms",
    "slow": "{:.2f} ms",
    "filtered": "{:.2f} ms",
    "append": "{:.1f} ms",
    "memory": "{:.0f} MB",
    "blend": "{:.0f} MB",
}
HEADER = ["points", "import", "frame change", "slowest 5 %", "with confidence filter", "append", "memory", ".blend"]
SMALL, LARGE = (65, 512, 288), (300, 500, 300)
BUDGETS = (
    (SMALL, "split", "import", 1.5, "s"),
    (SMALL, "frames", "import", 1.5, "s"),
    (LARGE, "frames", "memory", 1000, "MB"),
    (LARGE, "frames", "change", 5, "ms"),
    (LARGE, "frames", "append", 40, "ms"),
    (LARGE, "split", "memory", 250, "MB"),
    (LARGE, "split", "change", 5, "ms"),
)


def written(name: str, values: list[float]) -> str:
    """Figures as the table has them."""
    pattern = COLUMNS[name]
    return " / ".join(pattern.format(1e3 * v if pattern.endswith("ms") else v) for v in values)


def measure_apart(size: tuple[int, int, int], runs: int) -> dict[str, dict[str, list[float]]]:
    """`measure` of every storage of a synthetic capture, each in a process of its own."""
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_capture(synthetic_capture(*size), Path(temporary) / "capture")
        for storage in ("split", "frames"):
            command = [sys.executable, __file__, "--row", storage, str(folder), "--runs", str(runs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[storage] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--runs", type=int, default=3, help="imports of the small capture; of the large one there is one"
    )
    parser.add_argument("--row", nargs=2, metavar=("STORAGE", "CAPTURE"), help="measure one row, as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(Path(options.row[1]), options.row[0], options.runs)))
        return
    print(f"Blender {bpy.app.version_string}, Python {platform.python_version()}, {os.cpu_count()} cores")
    results = {size: measure_apart(size, options.runs if size == SMALL else 1) for size in (SMALL, LARGE)}
    rows = [["capture", "storage", *HEADER], ["---"] * (2 + len(HEADER))]
    for (frames, width, height), storages in results.items():
        for storage, values in storages.items():
            rows.append([f"{frames} x {width * height:,}", storage, *(written(n, values[n]) for n in COLUMNS)])
    rows += [[], ["budget", "limit", "measured", "held"], ["---"] * 4]
    for size, storage, name, most, unit in BUDGETS:
        values = results[size][storage][name]
        held = min(values) * (1e3 if unit == "ms" else 1) <= most
        what = f"{HEADER[list(COLUMNS).index(name)]}, {storage}, {size[0]} x {size[1] * size[2]:,}"
        rows.append([what, f"{most:g} {unit}", written(name, values), "yes" if held else "NO"])
    for row in rows:
        print("| " + " | ".join(row) + " |" if row else "")


if __name__ == "__main__":
    main()
