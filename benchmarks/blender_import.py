"""How fast a capture is imported into Blender and played: `python benchmarks/blender_import.py --help`.

Run it in a Python that has the `bpy` wheel of the Blender to measure. The capture is synthetic: 65 frames of 512 x 288
pixels, every one of them a coloured point. Frame change is `scene.frame_set` with the evaluation of everything in the
scene, after a first pass over all frames. Every row of the table is measured in a process of its own; memory is what
its first import and playing it added.
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
from blender_addon.wire.capture import (
    Capture,
    ClipInfo,
    EngineStamp,
    FrameReport,
    PlateMap,
    ShotReport,
    write_capture,
)


def synthetic_capture(frames: int, width: int, height: int) -> Capture:
    """A rough hill seen by a camera that slides past it; a disc on it moves. Every pixel has depth and colour."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
    shift = np.linspace(0, 0.5, frames)[:, None, None]
    depth = 4 + 0.5 * np.sin(5 * (x + shift)) * np.cos(4 * y) + rng.normal(0, 0.005, (frames, height, width))
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
        depth=depth.astype(np.float32),
        confidence=rng.random((frames, height, width), np.float32).astype(np.float16),
        dynamic=np.broadcast_to(np.hypot(x - 1 + 2 * shift, y) < 0.3, (frames, height, width)),
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


def play(scene: bpy.types.Scene, passes: int) -> np.ndarray:
    """Milliseconds of each frame change, warm."""
    times = []
    for number in range(passes + 1):
        for frame in range(scene.frame_start, scene.frame_end + 1):
            began = time.perf_counter()
            scene.frame_set(frame)
            if number:
                times.append(1e3 * (time.perf_counter() - began))
    return np.array(times)


def measure(folder: Path, storage: str, runs: int) -> list[str]:
    """One row of the table: the median over `runs` imports, each into an empty file."""
    seconds, changes, filtered, memory = [], [], [], None
    for _ in range(runs):
        bpy.ops.wm.read_factory_settings(use_empty=True)
        scene, before = bpy.context.scene, resident_mb()
        began = time.perf_counter()
        collection = import_capture(folder, scene, ImportOptions(storage=storage, min_confidence=0.0))
        seconds.append(time.perf_counter() - began)
        player = next(ob for ob in collection.objects if ob.modifiers and ob.modifiers[0].name == nodes.PLAYER)
        changes.append(play(scene, 2))
        memory = memory if memory is not None else resident_mb() - before
        nodes.set_input(player.modifiers[0], "Min Confidence", 0.3)
        filtered.append(play(scene, 2))
    blend = folder.parent / "benchmark.blend"
    bpy.ops.wm.save_as_mainfile(filepath=str(blend))
    report = ImportReport.read(collection)
    return [
        storage,
        f"{report.points:,}",
        f"{np.median(seconds):.2f} s",
        f"{np.median(changes):.2f} / {np.percentile(changes, 95):.2f} ms",
        f"{np.median(filtered):.2f} / {np.percentile(filtered, 95):.2f} ms",
        f"{memory:.0f} MB",
        f"{blend.stat().st_size / 2**20:.0f} MB",
        f"{report.max_camera_error_px:.5f} px",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=65)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 288), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--row", nargs=2, metavar=("STORAGE", "CAPTURE"), help="measure one row, as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(Path(options.row[1]), options.row[0], options.runs)))
        return
    width, height = options.size
    print(f"Blender {bpy.app.version_string}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print(f"{options.frames} frames of {width} x {height} = {width * height:,} points each")
    header = [
        "storage",
        "points",
        "import",
        "frame change, median / p95",
        "with confidence filter",
        "memory",
        ".blend",
        "camera",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_capture(synthetic_capture(options.frames, width, height), Path(temporary) / "capture")
        rows = [header, ["---"] * len(header)]
        for storage in ("frames", "split"):
            command = [sys.executable, __file__, "--row", storage, str(folder), "--runs", str(options.runs)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(next(line for line in done.stdout.splitlines() if line.startswith("["))))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
