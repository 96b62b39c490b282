"""Cameras, lenses and depth of compared images."""

from __future__ import annotations

import numpy as np

from ..sparse.first_cameras import first_cameras
from ..sparse.observations import observe
from ..sparse.solve import solve_raw
from .spreading import Aligned


def solve(compared, keys, given, shared, locked, options, run):
    problem = compared.problem()
    o = observe(problem)
    n = len(problem.views)
    f = compared.focal_px.copy()
    lens = "shared" if shared else "each"
    if given.focal_px is not None:
        f = given.focal_px[keys]
        lens = "locked"
    first = first_cameras(o, f, n, len(problem.pairs), run.seed)
    state, noise = solve_raw(o, first, np.log(f), lens)
    return state, first


def every_pixel(compared, solution, masks, options, run):
    state, first = solution
    n = len(compared.focal_px)
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = state.rotation
    poses[:, :3, 3] = state.place
    poses[~first.placed] = np.nan
    rel = np.exp(state.relief.reshape(compared.core_depth.shape) + state.log_size[:, None, None])
    core = compared.core_depth * rel
    depth = np.kron(core, np.ones((8, 8))) * compared.depth_ratio
    w, h = compared.size
    conf = np.maximum(compared.confidence, compared.mover_confidence)
    return Aligned(poses, np.exp(state.log_focal), np.tile([w / 2, h / 2], (n, 1)) + state.centre, depth, conf)
