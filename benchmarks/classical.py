"""What the classical engine reaches: the demo clip against its truth, with and without the lens, and clips of yours.

    python -m benchmarks.classical [CLIP ...]

Prints the tables that the README quotes. Runs in the backend's environment; Blender is not needed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from backend.evaluate import Evaluation, evaluate
from backend.pipeline import reconstruct
from backend.run import Run
from backend.wire import Capture, JobSettings, LensSettings, read_capture

DEMO = Path(__file__).parent / "demo_clip"
#: The lens of the demo clip, see demo_clip/make.py.
LENS = LensSettings(focal_mm=28.0, sensor_width_mm=36.0)
#: Figures that stand in the README, by their name in `Evaluation.rows`.
QUOTED = (
    "Camera path error (ATE)",
    "Camera rotation",
    "Focal length error",
    "Static depth error (Abs Rel)",
    "Static pixels measured",
    "Motion mask IoU",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="*", type=Path, help="further clips, without a truth")
    options = parser.parse_args()
    given, unknown = (measured(DEMO / "clip.mp4", JobSettings(lens=lens), True) for lens in (LENS, LensSettings()))
    print("| Demo clip | lens given | lens unknown |\n|---|---|---|")
    for (name, a), (_, b) in zip(given[0].rows(), unknown[0].rows()):
        if name in QUOTED:
            print(f"| {name} | {a} | {b} |")
    print(f"| Seconds | {given[2]:.0f} | {unknown[2]:.0f} |")
    for clip in options.clips:
        _, capture, seconds = measured(clip, JobSettings(), False)
        print(f"\n| {clip.name} | |\n|---|---|")
        for name, figure in summary(capture, seconds):
            print(f"| {name} | {figure} |")


def measured(clip: Path, settings: JobSettings, against_truth: bool) -> tuple[Evaluation | None, Capture, float]:
    """(figures against the demo's truth, the capture, seconds) of a reconstruction."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        out = reconstruct(clip, Path(folder) / "capture", settings, Run(work_dir=Path(folder)))
        seconds = time.monotonic() - began
        return evaluate(out, DEMO / "truth.npz") if against_truth else None, read_capture(out), seconds


def summary(capture: Capture, seconds: float) -> list[tuple[str, str]]:
    """What a clip without a truth tells about itself."""
    errors = [f.reprojection_error_px for f in capture.frames if f.reprojection_error_px is not None]
    differ = capture.shot.solver_disagreement
    return [
        ("Frames registered", f"{sum(f.registered for f in capture.frames)} of {capture.frame_count}"),
        ("Reprojection error", f"{np.mean(errors):.2f} px on the {capture.clip.plate_size[0]} px plate"),
        ("The two solvers differ by", "one solver only" if differ is None else f"{differ:.2%} of the path"),
        ("Seconds", f"{seconds:.0f}"),
    ]


if __name__ == "__main__":
    main()
