"""Our sparse alignment beside the original's, on a recorded scene with known truth.

    python -m benchmarks.sparse_alignment FOLDER [--without-original]

FOLDER is laid out like the recorded fixtures of MASt3R. Three kinds of rows: ours, by how lenses are treated (`each`
is the default: a focal length a frame, the principal point in the middle); the original as it was recorded; and our
implementation of it, run here on the same input on one thread, which `python -m tests.conformance mast3r` holds to the
records.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from backend.geometry.rigid import rotation_angles_deg
from backend.sparse.original import align_as_original
from backend.sparse.problem import SparseProblem
from backend.sparse.solve import Knowns, Lens, solve_sparse
from tests.conformance.mast3r_scene import Case, Scene, read_scene

#: Recorded cases that are shown: the original's default, its principal point fixed, and one lens.
CASES = ("default", "no_pp", "shared")


@dataclass(frozen=True)
class Figures:
    """Against the truth after the best similarity: `ate_m`, `scale` (truth over estimate), mean relative focal error,
    mean angle between relative rotations; and CPU seconds."""

    ate_m: float
    scale: float
    focal: float
    rotation_deg: float
    cpu_s: float


def figures(scene: Scene, world_from_camera: np.ndarray, focal_px: np.ndarray, cpu_s: float) -> Figures:
    error = scene.path_error(world_from_camera)
    a, b = np.triu_indices(scene.frames, 1)
    ours, true = (
        np.swapaxes(poses[a, :3, :3], -1, -2) @ poses[b, :3, :3]
        for poses in (np.asarray(world_from_camera, np.float64), scene.truth["cam2w"])
    )
    rotation = rotation_angles_deg(np.swapaxes(ours, -1, -2) @ true).mean()
    focal = np.abs(np.asarray(focal_px) / scene.truth["K"][0, 0] - 1).mean()
    return Figures(error.ate_rmse, error.alignment.scale, float(focal), float(rotation), cpu_s)


def ours(scene: Scene, problem: SparseProblem, lens: Lens) -> Figures:
    """Our solver; a locked lens is the true one."""
    knowns = Knowns(focal_px=np.full(scene.frames, scene.truth["K"][0, 0])) if lens == "locked" else Knowns()
    solution, cpu_s = timed(lambda: solve_sparse(problem, lens, knowns))
    return figures(scene, solution.world_from_camera, solution.focal_px, cpu_s)


def timed(what: Callable) -> tuple:
    """What it answers, and its CPU seconds."""
    start = time.process_time()
    return what(), time.process_time() - start


def recorded(case: Case) -> Figures:
    names = ("ate_sim3_rmse_m", "scale_gt_over_est", "focal_rel_err_mean", "rel_rot_deg_mean", "cpu_s")
    return Figures(*(case.recorded[name] for name in names))


def run_original(scene: Scene, case: Case) -> Figures:
    result, cpu_s = timed(lambda: align_as_original(scene.problem(), case.settings))
    return figures(scene, result.placed.world_from_camera.numpy(), result.placed.focal_px.numpy(), cpu_s)


def show(name: str, f: Figures) -> None:
    print(
        f"{name:<28} {1e3 * f.ate_m:8.2f} {f.scale:8.4f} {100 * f.focal:8.2f} {f.rotation_deg:9.3f} {f.cpu_s:8.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without-original", action="store_true", help="do not run our implementation of it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = read_scene(options.folder)
    problem = scene.problem()
    print(f"{'':<28} {'ATE mm':>8} {'scale':>8} {'focal %':>8} {'rot. deg':>9} {'CPU s':>8}")
    ours(scene, problem, "each")  # the first call pays for loading
    for lens in ("each", "shared", "locked"):
        show(f"ours, lens {lens}", ours(scene, problem, lens))
    cases = [case for case in scene.cases if case.name in CASES]
    for case in cases:
        show(f"recorded, {case.name}", recorded(case))
    for case in () if options.without_original else cases:
        show(f"original run here, {case.name}", run_original(scene, case))


if __name__ == "__main__":
    main()
