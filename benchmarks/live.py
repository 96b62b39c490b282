"""How long Blender is held up by a job: `python benchmarks/live.py --help`.

Run it in a Python that has the `bpy` wheel of the Blender to measure. The figures are of `Session.pump`, which
Blender's timer calls: while a real server's worker shows every frame of a synthetic capture of 65 frames of 512 x 288
pixels and hands it over, and while that is imported. Headless: nothing is drawn, so an artist waits for the viewport on
top of it. Time is the wall's and this thread's own; the two differ where other programs run.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bpy
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.blender_import import synthetic_capture

ROOT = Path(__file__).resolve().parent.parent
SERVE = """
import sys
from backend.__main__ import main
sys.exit(main(["serve"], [sys.executable, "-m", "backend.server.worker", "--pipeline", "benchmarks.live"]))
"""


def reconstruct(source: Path, out: Path, settings, run, *, masks=None, replace_earlier=False, **cameras) -> Path:
    """The worker's side: the synthetic capture, every frame of it shown as an engine would."""
    from backend.export import CAPTURE_FILES
    from backend.live import show_capture
    from backend.wire import write_capture

    frames, width, height = map(int, source.read_text(encoding="utf-8").split()[:3])
    run.plan = [("Showing", 0.5), ("Writing the capture", 0.5)]
    capture = synthetic_capture(frames, width, height)
    with run.stage("Showing"):
        began = time.monotonic()
        show_capture(run, capture)
        spent_ms = (time.monotonic() - began) / frames * 1000
        logging.getLogger("backend.benchmark").info("the worker spent %.1f ms on showing a frame", spent_ms)
        while time.monotonic() < began + 0.12 * frames:  # about as fast as Blender takes them
            run.check()
            time.sleep(0.1)
    with run.stage("Writing the capture"):
        return write_capture(capture, out, CAPTURE_FILES, replace=replace_earlier)


def measure(frames: int, width: int, height: int, storage: str) -> None:
    """Run one job from the panel's button to the imported capture, and print how long each kind of pump took."""
    import blender_addon
    from blender_addon.scene.live import find_live
    from blender_addon.ui.session import current

    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    blender_addon.register()
    scene, session = bpy.context.scene, current()
    with tempfile.TemporaryDirectory() as folder:
        warm = bpy.data.images.new("warm", 1, 1)
        warm.filepath_raw = str(Path(folder) / "warm.png")
        warm.save()
        bpy.data.images.load(warm.filepath_raw)  # an application has set up its colours long before a job
        clip = Path(folder) / "hill.mp4"
        clip.write_text(f"{frames} {width} {height} {time.time()}", encoding="utf-8")
        scene.kinora.clip_path = str(clip)
        scene.kinora.import_options.storage = storage
        bpy.ops.kinora.reconstruct()
        job = session.jobs[-1]
        rows: dict[str, list[tuple[float, float]]] = {"waiting": [], "live frame": [], "import": []}
        shown = 0
        while job.active:
            before = job.state
            wall, cpu = time.perf_counter(), time.thread_time()
            pause = session.pump()
            spent = (time.perf_counter() - wall) * 1000, (time.thread_time() - cpu) * 1000
            view = find_live(job.ticket) if job.ticket else None
            count = len(view.shown) if view is not None else shown
            kind = "import" if before == "IMPORTING" else "live frame" if count != shown else "waiting"
            shown = count
            rows[kind].append(spent)
            time.sleep(pause or 0.01)
        assert job.state == "DONE", (job.message, job.hint)
        assert not job.message, job.message
        print(f"| {storage}, {frames} x {width * height:,} points | pumps | median ms | longest ms | of its own ms |")
        print("|---|---|---|---|---|")
        for kind, spent in rows.items():
            walls, cpus = np.array(spent or [(0, 0)]).T
            print(f"| {kind} | {len(spent)} | {np.median(walls):.1f} | {walls.max():.1f} | {cpus.max():.1f} |")
        total = sum(wall for wall, _ in rows["import"]) / 1000
        print(*job.log, sep="\n")
        print(f"{shown} frames were shown live; the import took {total:.2f} s of pumping")
    blender_addon.unregister()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=65)
    parser.add_argument("--size", type=int, nargs=2, default=(512, 288))
    parser.add_argument("--storage", choices=("frames", "split"), default="split")
    options = parser.parse_args()
    print(f"Blender {bpy.app.version_string}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as home:
        os.environ["KINORA_HOME"] = home
        server = subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, stdout=subprocess.PIPE)
        try:
            server.stdout.readline()  # it listens
            measure(options.frames, *options.size, options.storage)
        finally:
            server.terminate()
            server.wait(20)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
