"""Compared images aligned: cameras, lenses and anchors of depth by the solver, then every pixel's depth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..monst3r.knowns import Given
from ..run import Run
from ..sparse.dense import cleaned_confidence, dense_depth
from ..sparse.solve import Knowns, SparseSolution, solve_sparse
from ..wire import MASt3RSettings, UserError
from .compared import Compared
from .spreading import Aligned


def solve(
    compared: Compared, keys: np.ndarray, given: Given, shared: bool, locked: bool, options: MASt3RSettings, run: Run
) -> SparseSolution:
    """Cameras and anchors of the frames `keys` (K,), what is `given` kept; with `locked` all stand in one place.

    Raises UserError when fewer than two images could be placed, Cancelled.
    """
    lens = "shared" if shared else "each"
    knowns = Knowns(
        focal_px=None if given.focal_px is None else given.focal_px[keys],
        world_from_camera=None if given.world_from_camera is None else given.world_from_camera[keys],
        principal_point=given.centre,
    )
    free_centre = options.principal_point and given.centre is None

    def compute() -> SparseSolution:
        problem = compared.problem(options.match_confidence)
        found = solve_sparse(
            problem, lens, knowns, free_principal_point=free_centre, seed=run.seed, progress=run.progress
        )
        return replace(found, root=int(found.root))

    made_from = {"compared": compared, "lens": lens, "knowns": knowns, "free_centre": free_centre, "seed": run.seed}
    made_from |= {"least": options.match_confidence}
    solution = run.remember("Sparse alignment", made_from, compute, (SparseSolution,))
    count = int(solution.registered.sum())
    if count < 2:
        raise UserError(
            f"Only {count} of {len(keys)} images could be placed: the network finds too little that they share",
            "use images that overlap more, or compare more of them with each other by Pairs",
        )
    if locked:
        poses = np.where(solution.registered[:, None, None], np.eye(4), np.nan)
        solution = replace(solution, world_from_camera=poses)
    return solution


def lens_disagreement(seen_px: np.ndarray, solved_px: np.ndarray) -> float:
    """How far the solved focal lengths (K,) lie from those that the network sees in each frame alone, as a share.

    NaN, of frames that were not placed, counts for nothing. Where a large mover was taken for the set, a lens that no
    picture shows is what makes its matches fit.
    """
    return float(np.expm1(np.nanmedian(np.abs(np.log(solved_px / seen_px)))))


def every_pixel(compared: Compared, solution: SparseSolution, clean: bool, run: Run) -> Aligned:
    """Depth and confidence of every pixel of the K frames; movers, which stand under masks, have the network's word.

    With `clean`, points that hang in front of what other frames see more surely lose their confidence.
    """
    lost = ~solution.registered
    views = compared.problem().views
    depth = np.zeros(compared.depth_ratio.shape, np.float32)
    for k, found in zip(run.steps(len(views)), dense_depth(views, solution)):
        depth[k] = np.where(found > 0, found, 0)
    confidence = np.where(depth > 0, compared.confidence, 0)
    if clean:
        confidence = cleaned_confidence(depth, confidence, solution, compared.edges.tolist(), progress=run.progress)
    return Aligned(
        world_from_camera=solution.world_from_camera,
        focal_px=np.where(lost, np.nanmedian(solution.focal_px), solution.focal_px),
        centre=np.where(lost[:, None], np.nanmedian(solution.principal_point, axis=0), solution.principal_point),
        depth=depth,
        confidence=np.where(depth > 0, np.maximum(confidence, compared.mover_confidence), 0),
    )
