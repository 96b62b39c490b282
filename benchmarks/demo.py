"""The demo: `python -m benchmarks.demo --out demo` reconstructs the demo clip as an artist would, without a window.

A real local server is started and everything goes through the add-on's own operators in headless Blender: panel
settings, Reconstruct, import, render. What comes out is compared with the clip's ground truth. Writes capture/,
demo.blend and preview.png into the output folder, which is replaced only once all of it is there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import bpy
import numpy as np
from PIL import Image

import blender_addon
from backend.evaluate import Evaluation, evaluate, read_plate_masks
from backend.truth import read_truth
from backend.wire import Capture, UserError, read_capture
from blender_addon.scene.report import ImportReport
from blender_addon.ui import session
from blender_addon.wire import paths
from blender_addon.wire.folders import check_writable, names_in, staged_folder

from . import demo_views, preview

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
CLIP, TRUTH = ROOT / "benchmarks" / "demo_clip" / "clip.mp4", ROOT / "benchmarks" / "demo_clip" / "truth.npz"
FOCAL_MM, SENSOR_MM = 28.0, 36.0
SHOWN = 24  # the frame in the picture, counted from 0
LONGEST_S = 2400.0  # a busy machine with two cores
CONTENTS = {"capture", "demo.blend", "preview.png"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder that is made, or replaced")
    out = parser.parse_args().out.absolute()
    log_file = Path(tempfile.gettempdir()) / "kinora-demo.log"
    logging.basicConfig(filename=log_file, filemode="w", level=logging.INFO, encoding="utf-8")
    demo = Demo()
    try:
        demo.make(out)
    except UserError as error:
        print(f"\nThe demo ended {demo.doing}: {error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nThe demo was stopped {demo.doing}; nothing was written.", file=sys.stderr)
        return 130
    except Exception as error:
        log.exception("the demo failed %s", demo.doing)
        print(f"\nThe demo failed {demo.doing}: {error}; see {log_file}.", file=sys.stderr)
        return 1
    return 0


class Demo:
    """One run of the demo: what it is doing, and how long each part took."""

    def __init__(self) -> None:
        self.doing = "at the start"
        self.seconds: list[tuple[str, float]] = []

    @contextmanager
    def part(self, name: str, doing: str) -> Iterator[None]:
        """A named part of the run, `doing` finishes the sentence 'The demo failed ...'."""
        self.doing, began = doing, time.monotonic()
        print(f"{name} ...", flush=True)
        yield
        self.seconds.append((name, time.monotonic() - began))

    def make(self, out: Path) -> None:
        """Make everything beside `out` and put it in place last of all."""
        check_output(out)
        began = time.monotonic()
        with staged_folder(out, "The demo") as folder:
            with addon_of_its_own():
                with self.part("Starting the backend", "while starting the backend"):
                    start_backend()
                with self.part("Reconstructing through the add-on", "while reconstructing"):
                    reconstruct(folder / "capture")
                with self.part("Importing into Blender", "while importing"):
                    points = import_capture(folder / "capture")
                with self.part("Rendering two views", "while rendering"):
                    seen, aside = demo_views.render(SHOWN), demo_views.render_from_the_side(SHOWN, folder / "capture")
                with self.part("Saving demo.blend", "while saving demo.blend"):
                    save(folder / "demo.blend", out)
            with self.part("Comparing with the truth", "while comparing with the truth"):
                capture, figures = read_capture(folder / "capture"), evaluate(folder / "capture", TRUTH)
                compose(capture, figures, points, seen, aside).save(folder / "preview.png", optimize=True)
            stray = {path.name for path in folder.iterdir()} - CONTENTS
            if stray:
                raise RuntimeError(f"left over: {', '.join(sorted(stray))}")
            self.doing = "while putting the results in place"
        print(table(capture, figures, points, self.seconds, time.monotonic() - began))
        print(f"\nOpen {out / 'demo.blend'} in Blender and press play; {out / 'preview.png'} shows it at a glance.")


def check_output(out: Path) -> None:
    """Raise UserError unless `out` is free, or holds an earlier demo and nothing else."""
    check_writable(out)
    strange = set(names_in(out)) - CONTENTS - {"demo.blend1"}
    if strange:
        hint = "choose another output folder, or move it away"
        raise UserError(f"{out} holds {min(strange)}, which is not of an earlier demo", hint)


@contextmanager
def addon_of_its_own() -> Iterator[None]:
    """The add-on registered in an empty file, with a data folder of its own that knows this checkout's backend.

    On the way out the add-on stops the server that it started, and the data folder goes, unless something failed:
    the server's logs are in it.
    """
    home, keep = tempfile.mkdtemp(prefix="kinora-demo-"), False
    os.environ["KINORA_HOME"] = home
    pointer = {"python": sys.executable, "repo": str(ROOT)}
    paths.backend_pointer().write_text(json.dumps(pointer), encoding="utf-8")
    bpy.ops.wm.read_factory_settings(use_empty=True)
    blender_addon.register()
    try:
        yield
    except Exception:
        keep = True
        raise
    finally:
        blender_addon.unregister()
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


def start_backend() -> None:
    """Press Start and wait until the server answers."""
    bpy.ops.kinora.backend_start()
    pump_until(lambda session: session.state == "READY", lambda session: session.state == "OFF")


def reconstruct(folder: Path) -> None:
    """Choose clip and lens in the scene's panel, press Reconstruct, and wait for the capture in `folder`."""
    settings = bpy.context.scene.kinora
    settings.clip_path, settings.output_path = str(CLIP), str(folder)
    settings.engine, settings.import_when_done = "classical", False
    settings.lens.focal_mm, settings.lens.sensor_width_mm = FOCAL_MM, SENSOR_MM
    bpy.ops.kinora.reconstruct()
    job = session.current().job(bpy.context.scene)
    shown = ("", 0)

    def finished(_) -> bool:
        nonlocal shown
        now = (job.status, int(10 * job.fraction))
        if job.active and now != shown:
            shown = now
            left = f", {job.eta_s:.0f} s left" if job.eta_s else ""
            print(f"  {job.fraction:4.0%}  {job.status}{left}", flush=True)
        return not job.active

    pump_until(finished)
    if job.state != "DONE":
        raise UserError(job.message or f"the job is {job.state.lower()}", job.hint)


def pump_until(done: Callable, failed: Callable = lambda session: False) -> None:
    """Do what Blender's timer does, which never fires without a window, until `done(session)`."""
    end = time.monotonic() + LONGEST_S
    current = session.current()
    while not done(current):
        if failed(current):
            raise UserError(current.note or "the backend is not there", current.hint)
        if time.monotonic() > end:
            raise UserError(f"the backend took longer than {LONGEST_S:.0f} s", "see its log")
        current.pump()
        time.sleep(0.05)


def import_capture(folder: Path) -> int:
    """Import with the add-on's operator; the number of points made."""
    bpy.ops.kinora.import_capture(directory=str(folder))
    (collection,) = bpy.context.scene.collection.children
    return ImportReport.read(collection).points


def save(blend: Path, final: Path) -> None:
    """Save the scene as `blend` with every path relative, as it will be right once its folder has become `final`."""
    settings = bpy.context.scene.kinora
    settings.capture_path = settings.output_path = "//capture"
    for datablock in bpy.data.user_map():
        if "kinora_folder" in datablock:
            datablock["kinora_folder"] = str(final / "capture")
    bpy.context.scene.frame_set(bpy.context.scene.frame_start)
    bpy.context.preferences.filepaths.save_version = 0  # no demo.blend1
    bpy.ops.wm.save_as_mainfile(filepath=str(blend), compress=True)
    settings.clip_path = bpy.path.relpath(str(CLIP))
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_as_mainfile(filepath=str(blend), compress=True)


def compose(capture: Capture, figures: Evaluation, points: int, seen: np.ndarray, aside: np.ndarray) -> Image.Image:
    """The picture of the demo."""
    truth = read_truth(TRUTH)
    with av.open(str(CLIP)) as container:
        plate = next(f for i, f in enumerate(container.decode(video=0)) if i == SHOWN).to_ndarray(format="rgb24")
    mask = read_plate_masks(capture)[SHOWN]
    path = preview.path_picture(capture.world_from_camera, truth.world_from_camera)
    return preview.compose(
        [
            preview.Panel(plate, "The plate", f"frame {SHOWN + 1} of {capture.frame_count}"),
            preview.Panel(seen, "The capture, rendered in Blender", "through the solved camera"),
            preview.Panel(aside, "The same points from another place", f"{points / 1e6:.1f} million in all frames"),
            preview.Panel(
                preview.depth_picture(capture, SHOWN),
                "Depth",
                f"{figures.depth_abs_rel:.1%} off the truth where measured; darker is guessed",
            ),
            preview.Panel(
                preview.mask_picture(plate, mask, truth.masks[SHOWN]),
                "What moves",
                f"IoU {figures.mask_iou:.2f} with the truth, which is outlined",
            ),
            preview.Panel(path, "Camera path", f"{figures.ate_relative:.2%} off the truth, which is grey"),
        ]
    )


def table(capture: Capture, figures: Evaluation, points: int, parts: list[tuple[str, float]], total_s: float) -> str:
    """What was done in which time, and how near to the truth it came."""
    times = [*parts, *((f"  {stage}", seconds) for stage, seconds in capture.timings)]
    position = next(i for i, (name, _) in enumerate(parts) if name.startswith("Reconstructing")) + 1
    times = [*parts[:position], *times[len(parts) :], *parts[position:], ("All together", total_s)]
    rows = [(name, f"{seconds:6.1f} s") for name, seconds in times]
    rows += [("Points in Blender, all frames", f"{points:,}"), *figures.rows()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(["", *(f"{name:<{width}}  {value}" for name, value in rows)])


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # without Blender's goodbye, which counts memory blocks below the table and calls them an error
