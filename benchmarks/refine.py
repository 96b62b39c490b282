"""What camera refinement reaches on clips with truth, from cameras with the errors of the MonST3R fixtures.

    python -m benchmarks.refine [--seeds 2]

Prints a table: path error (after alignment, of the path's length), rotation error, reprojection error in plate pixels
and depth error, each before and after, and seconds. The engine is an oracle (`tests/oracle.py`): true cameras made
wrong by 1.2 % of the path, 0.21 degrees from frame to frame and 0.2 % of the focal length, and true depth by 1 %. The
last rows are clips where tracks are poor, on which refinement must never be worse.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from backend.geometry.trajectory import absolute_trajectory_error
from backend.refine import TRACKS_PER_FRAME, measured, refine_camera
from backend.refinement.cameras import Cameras
from backend.refinement.sightings import still_sightings
from backend.run import Run
from backend.wire import Capture
from tests.oracle import TrueClip, demo_clip, film_room, oracle_capture, travelling

DEMO = Path(__file__).parent / "demo_clip"
LANDSCAPE, PORTRAIT = (640, 360), (360, 640)


def clips(work_dir: Path) -> Iterator[tuple[str, TrueClip, dict]]:
    """(name, clip, what is different about its engine)."""
    yield "demo clip", demo_clip(DEMO, Run(work_dir=work_dir)), {}
    room = film_room(travelling(30), LANDSCAPE, 560.0)
    yield "room, hand-held", room, {}
    pan = travelling(30, (0.6, -0.3, 0.5), (0.35, 0.02, 0.02), seed=1)
    yield "portrait, pan and zoom 1.3x", film_room(pan, PORTRAIT, 560 * np.linspace(1, 1.3, 30)), {}
    yield "room, lens 10 % off, drift", room, {"path_error": 0.06, "step_deg": 1.0, "focal_error": 0.1}
    yield "poor: no texture", film_room(travelling(30), LANDSCAPE, 560.0, contrast=0.05, noise=6.0), {}
    yield "poor: faint texture", film_room(travelling(30), LANDSCAPE, 560.0, contrast=0.1, noise=6.0), {}
    yield "poor: 12 blurred frames", blurred(room, range(10, 22)), {}
    yield "poor: huge mover, no masks", film_room(travelling(30), LANDSCAPE, 560.0, box=1.6), {"masked": False}


def blurred(true: TrueClip, frames: range) -> TrueClip:
    """The clip with some frames out of focus beyond use."""
    pictures = np.array(true.clip.frames)
    for t in frames:
        pictures[t] = cv2.GaussianBlur(pictures[t], (0, 0), 14)
    return replace(true, clip=replace(true.clip, frames=pictures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1, help="how many draws of the engine's errors")
    options = parser.parse_args()
    print("| Clip | frames refined | path error | rotation, degrees | reprojection, px | depth error | seconds (CPU) |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, true, wrong in clips(Path(folder)):
            for seed in range(options.seeds):
                print(row(name, true, oracle_capture(true, seed, **wrong)), flush=True)


def row(name: str, true: TrueClip, capture: Capture) -> str:
    """One line of the table."""
    began, cpu = time.monotonic(), time.process_time()
    refined = refine_camera(capture, true.clip, Run(), focal_free=True)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    before, after = (absolute_trajectory_error(c.world_from_camera, true.world_from_camera) for c in (capture, refined))
    depth = [depth_error(c, true, e.alignment.scale) for c, e in ((capture, before), (refined, after))]
    figures = (
        f"{refined.shot.details['refinement']['refined_frames']} of {refined.frame_count}",
        f"{before.ate_relative:.2%} -> {after.ate_relative:.3%}",
        f"{before.rotation_deg_rmse:.3f} -> {after.rotation_deg_rmse:.3f}",
        f"{error_px(as_it_is(capture, true)):.2f} -> {error_px(refined):.2f}",
        f"{depth[0]:.2%} -> {depth[1]:.2%}",
        f"{seconds:.1f} ({cpu:.1f})",
    )
    return f"| {name} | {' | '.join(figures)} |"


def as_it_is(capture: Capture, true: TrueClip) -> Capture:
    """The capture with the errors of its own cameras measured."""
    static = still_sightings(capture, true.clip, TRACKS_PER_FRAME, Run())
    return measured(capture, true.clip, Cameras.of(capture), static, None)


def error_px(capture: Capture) -> float:
    """Mean reprojection error over the frames that have tracks."""
    errors = [f.reprojection_error_px for f in capture.frames if f.reprojection_error_px is not None]
    return float(np.mean(errors)) if errors else float("nan")


def depth_error(capture: Capture, true: TrueClip, scale: float) -> float:
    """Median relative error of depth at the scale that brings the camera's path to the true one."""
    size = capture.processed_size
    depth = np.stack([cv2.resize(d, size, interpolation=cv2.INTER_NEAREST) for d in true.depth])
    known = (depth > 0) & np.isfinite(depth) & (capture.depth > 0)
    return float(np.median(np.abs(capture.depth[known] * scale / depth[known] - 1)))


if __name__ == "__main__":
    main()
