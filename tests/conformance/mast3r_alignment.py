"""Conformance of sparse alignment: canonical views, anchors, trees, losses, whole runs, results; and our own solver."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import numpy as np
import torch

from backend.sparse.anchors import match_pixels
from backend.sparse.original import align_as_original
from backend.sparse.original_results import dense_views, sparse_points
from backend.sparse.solve import solve_sparse
from backend.sparse.tree import kinematic_tree, match_counts

from .mast3r_scene import Case, Scene
from .rows import Row, absent, count, near, unchecked

SETUP, FOCAL, FIRST_LOSS, LAST_LOSS = 1e-4, 1e-5, 1e-5, 5e-3
#: Runs of at most so many steps are followed step by step, to this share; later, rounding has changed the path.
SHORT, STEPS = 60, 1e-3
#: The original does not meet itself more closely in two precisions, where the summary does not say how closely.
TWICE_M, TWICE_FOCAL = 2e-4, 1e-3
#: How much farther from 1 than the original's a scale may be: it differs by as much between two precisions.
TWICE_SCALE = 2e-3
#: Our solver beside a case of the original: (its lens, the case whose cameras are to be no worse).
SOLVED = (("each", "no_pp"), ("shared", "shared"))
SCALE_OFF, CPU_SHARE = 5e-3, 0.1
#: Share of pixels that may lose their confidence in one of two and not in the other.
CLEANED = 2e-4


def setup(scene: Scene) -> Iterator[Row]:
    """Canonical views, anchors of match pixels, and the tree of every case."""
    answers, problem = scene.answers, scene.problem()
    views = problem.views
    middle = [[problem.size[0] / 2, problem.size[1] / 2]] * len(views)
    yield answers.near("setup.base_focals", [v.focal_px for v in views], FOCAL, relative=True)
    yield answers.near("setup.pps", middle, SETUP)
    yield answers.near("setup.core_depth", torch.stack([v.core_depth for v in views]), SETUP, relative=True)
    confidence = [v.confidence.double().mean() for v in views]
    yield answers.near("setup.canon_conf_mean", confidence, SETUP, relative=True)
    pixels = match_pixels(views, problem.pairs)
    for name in sorted(n for n in answers if re.fullmatch(r"setup\.\w+\.\d+", n)):
        part, n = name.split(".")[1:]
        ours = {
            "canon": views[int(n)].points,
            "canon2": views[int(n)].depth_ratio,
            "canon_conf": views[int(n)].confidence,
            "anchor_pix": pixels[int(n)].xy,
            "anchor_idx": pixels[int(n)].anchor,
            "anchor_off": pixels[int(n)].ratio,
        }.get(part)
        if ours is not None:
            exact = part in ("anchor_pix", "anchor_idx")
            yield answers.near(name, ours, 0 if exact else SETUP, relative=not exact)
    if "setup.n_corres_ordered_pairs" in answers:
        total = 2 * sum(len(pair.matches) for pair in problem.pairs)
        yield answers.near("setup.n_corres_ordered_pairs", total, 0)
    counts = match_counts(problem.pairs, len(views))
    anchors = np.array([v.core_depth.numel() for v in views])
    for case in scene.cases:
        if f"{case.name}.edges" not in answers or case.settings is None:
            yield unchecked(f"tree of {case.name}", case.unknown or "not recorded")
            continue
        tree = kinematic_tree(counts, anchors, case.settings.tree)
        yield answers.near(f"{case.name}.root", tree.root, 0)
        yield answers.near(f"{case.name}.edges", tree.edges, 0)


def first_losses(scene: Scene) -> Iterator[Row]:
    """The loss before the first step of every case, and all losses of short ones."""
    for case, theirs in _runs(scene):
        assert case.settings is not None
        whole = len(theirs) <= SHORT
        ours = _run(scene, case, len(theirs) if whole else 1).losses.numpy()
        yield near(f"{case.name} loss[0]", ours[0] / theirs[0], 1, FIRST_LOSS)
        if whole:
            yield near(f"{case.name} loss[:{len(theirs)}]", ours / theirs, np.ones(len(theirs)), STEPS)


def whole_runs(scene: Scene) -> Iterator[Row]:
    """Every case to its end: the last loss of either stage, and the cameras against the truth."""
    allowed = scene.twice.get("centre_rmse_sim3_m", TWICE_M)
    for case, theirs in _runs(scene):
        result = _run(scene, case)
        ours = result.losses.numpy()
        steps = case.settings.coarse_steps
        if len(ours) != len(theirs):
            yield Row(f"{case.name} losses", False, note=f"{len(ours)} steps instead of {len(theirs)}")
            continue
        if 0 < steps < len(theirs):
            yield near(f"{case.name} last coarse loss", ours[steps - 1] / theirs[steps - 1], 1, LAST_LOSS)
        yield near(f"{case.name} last loss", ours[-1] / theirs[-1], 1, LAST_LOSS)
        error = scene.path_error(result.placed.world_from_camera)
        yield _no_worse(
            f"{case.name} ATE, mm", 1e3 * error.ate_rmse, 1e3 * case.recorded["ate_sim3_rmse_m"], 1e3 * allowed
        )
        off, theirs_off = abs(error.alignment.scale - 1), abs(case.recorded["scale_gt_over_est"] - 1)
        yield _no_worse(f"{case.name} scale off 1", off, theirs_off, TWICE_SCALE)
        focal = result.placed.focal_px.numpy() / case.recorded["focals"]
        yield near(f"{case.name} focals", focal, np.ones(len(focal)), 2 * scene.twice.get("focal_maxrel", TWICE_FOCAL))


def results(scene: Scene) -> Iterator[Row]:
    """Points and dense views from the cameras that were recorded."""
    answers = scene.answers
    for case in scene.cases:
        if f"{case.name}.sparse_pts3d_mean" not in answers:
            yield absent(f"{case.name}.sparse_pts3d_mean")
            continue
        problem = scene.problem(case.number_type)
        placed = scene.recorded_end(case, problem)
        points = sparse_points(placed, problem)
        yield answers.near(f"{case.name}.sparse_pts3d_counts", [len(p) for p in points], 0)
        means = torch.stack([p.mean(0) for p in points])
        yield answers.near(f"{case.name}.sparse_pts3d_mean", means, SETUP, relative=True)
        if f"{case.name}.dense_depth" not in answers:
            continue
        dense = dense_views(placed, problem)
        yield answers.near(f"{case.name}.dense_depth", dense.depth, SETUP, relative=True)
        for name in sorted(n for n in answers if n.startswith(f"{case.name}.dense_pts3d_frame")):
            frame = int(re.search(r"\d+$", name)[0])
            yield answers.near(name, dense.points[frame], SETUP, relative=True)
        theirs = answers[f"{case.name}.dense_conf_clean"]
        differing = np.argwhere(np.abs(dense.confidence.numpy() - theirs) > SETUP * np.maximum(theirs, 1))
        allowed = CLEANED * theirs.size
        yield count(f"{case.name}.dense_conf_clean", differing.tolist(), theirs.size, allowed, of="pixels")


def own_solver(scene: Scene) -> Iterator[Row]:
    """Our solver on the same input: cameras no worse than the original's best settings for the lens, at a tenth of its
    time on a processor (of whatever machine), and the scale of the predictions kept."""
    problem = scene.problem()
    recorded = {case.name: case.recorded for case in scene.cases}
    for lens, name in SOLVED:
        if name not in recorded:
            yield absent(f"solver, lens {lens}: case {name}")
            continue
        begin = time.process_time()
        solution = solve_sparse(problem, lens)
        taken = time.process_time() - begin
        missing = np.flatnonzero(~solution.registered)
        yield count(f"solver, lens {lens}: frames without a camera", missing, scene.frames, of="frames")
        error = scene.path_error(solution.world_from_camera)
        theirs = recorded[name]
        yield _no_worse(f"solver, lens {lens}: ATE, mm", 1e3 * error.ate_rmse, 1e3 * theirs["ate_sim3_rmse_m"], 0)
        yield near(f"solver, lens {lens}: scale", error.alignment.scale, 1, SCALE_OFF)
        allowed = CPU_SHARE * theirs["cpu_s"]
        note = f"of {allowed:.3g} s, a tenth of the original's where it was recorded"
        yield Row(f"solver, lens {lens}: CPU, s", None, taken, allowed, note)


def _runs(scene: Scene) -> Iterator[tuple[Case, np.ndarray]]:
    """Cases that can be run, with their recorded losses."""
    for case in scene.cases:
        if case.settings is not None and f"{case.name}.loss_per_iter" in scene.answers:
            yield case, scene.answers[f"{case.name}.loss_per_iter"].astype(float)


def _run(scene: Scene, case: Case, stop_after: int | None = None):
    return align_as_original(
        scene.problem(case.number_type),
        case.settings,
        first_intrinsics=scene.first_intrinsics(case),
        stop_after=stop_after,
    )


def _no_worse(name: str, ours: float, theirs: float, allowed: float) -> Row:
    return Row(name, ours <= theirs + allowed, ours, theirs + allowed, f"the original's is {theirs:.4g}")
