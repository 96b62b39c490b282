"""Sparse problems of worlds with known truth: views with a network's errors, matches with rounding and outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import zoom

from backend.geometry.rigid import Similarity, rotation_angles_deg, similarity_between
from backend.matching.matches import Matches
from backend.sparse.canonical import CanonicalSums
from backend.sparse.problem import PairMatches, SparseProblem
from backend.sparse.views import View
from tests import worlds
from tests.worlds import Mover, World

WIDTH, HEIGHT, FOCAL_PX = 128, 96, 110.0


@dataclass(frozen=True)
class Errors:
    """Standard deviations: of a decoding's log scale, log focal and smooth log depth, of a match in px before rounding;
    the share of matches that are wrong, and how many pairs of pixels are tried."""

    scale: float = 0.04
    focal: float = 0.02
    smooth_depth: float = 0.02
    match_px: float = 0.4
    outliers: float = 0.05
    tries: int = 900


EXACT = Errors(0, 0, 0, 0, 0)


def film(
    cameras: np.ndarray,
    focal_px: float | np.ndarray = FOCAL_PX,
    width: int = WIDTH,
    height: int = HEIGHT,
    mover: Mover | None = None,
) -> World:
    """A room seen by cameras of the solver's principal point: W/2, H/2 from the first pixel's centre."""
    focal = np.broadcast_to(focal_px, len(cameras)).astype(float)
    middle = np.tile([width / 2 + 0.5, height / 2 + 0.5], (len(cameras), 1))
    pillars = ((1.2, 3.8), (-1.4, 3.2), (0.1, 4.3))
    return worlds.film(cameras, np.c_[focal, focal, middle], width, height, mover, pillars=pillars)


def arc(frames: int = 8, turn: float = 0.5, seed: int = 0) -> np.ndarray:
    """(N, 4, 4) cameras on an arc of 2.4 m, looking at the middle of the room."""
    rng = np.random.default_rng(seed)
    s = np.linspace(-1, 1, frames)
    places = np.c_[1.2 * s, rng.normal(0, 0.15, frames), 0.4 * s**2 + rng.normal(0, 0.05, frames)]
    turns = rng.normal(0, 0.02, (frames, 3)) + np.c_[-turn * s, 0 * s, 0 * s]
    return np.stack([worlds.look(*t, p) for t, p in zip(turns, places)])


def near_pairs(frames: int, reach: Sequence[int] = (1, 2, 4)) -> list[tuple[int, int]]:
    return [(i, i + r) for i in range(frames) for r in reach if i + r < frames]


def problem_of(
    world: World,
    pairs: Sequence[tuple[int, int]],
    errors: Errors = Errors(),
    decodings: int = 4,
    seed: int = 0,
    masked: bool = False,
) -> SparseProblem:
    """What a network with `decodings` of each frame and a matcher would say; `masked`: nothing of the mover."""
    rng = np.random.default_rng(seed)
    views = [_canonical(world, n, errors, decodings, rng, masked) for n in range(len(world.depth))]
    found = [PairMatches(i, j, _matches(world, i, j, errors, rng, masked)) for i, j in pairs]
    return SparseProblem(views, found, world.size)


def _rays(world: World, n: int, xy: np.ndarray) -> np.ndarray:
    f, _, cx, cy = world.intrinsics[n]
    return np.concatenate([(xy - [cx - 0.5, cy - 0.5]) / f, np.ones((*xy.shape[:-1], 1))], -1)


def _canonical(world, n, errors, decodings, rng, masked):
    width, height = world.size
    xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1)
    sums = CanonicalSums(torch.from_numpy(world.dynamic[n]) if masked else None)
    for _ in range(decodings):
        coarse = rng.normal(0, errors.smooth_depth, (4, 5))
        smooth = zoom(coarse, (height / 4, width / 5), order=3, mode="nearest", grid_mode=True)
        depth = world.depth[n] * np.exp(smooth + rng.normal(0, errors.scale))
        points = _rays(world, n, xy) * depth[..., None]
        points[..., :2] /= np.exp(rng.normal(0, errors.focal))
        confidence = 1 + 5 * np.exp(-np.abs(smooth) / 0.02)
        none = torch.zeros(height, width)
        sums.add(
            View(
                torch.from_numpy(points.astype(np.float32)), torch.from_numpy(confidence.astype(np.float32)), none, none
            )
        )
    return sums.finish()


def _matches(world, i, j, errors, rng, masked):
    """Pixels of i where they are seen in j, on the mover where its point went; half of each error at either end."""
    width, height = world.size
    size = np.array([width, height])
    xy = np.c_[rng.integers(0, width, errors.tries), rng.integers(0, height, errors.tries)]
    at = xy[:, 1], xy[:, 0]
    points = _rays(world, i, xy) * world.depth[i][at][:, None]
    points = points @ world.world_from_camera[i][:3, :3].T + world.world_from_camera[i][:3, 3]
    moving = world.dynamic[i][at]
    if moving.any():
        points[moving] += world.mover.centres[j] - world.mover.centres[i]
    to_j = np.linalg.inv(world.world_from_camera[j])
    seen = points @ to_j[:3, :3].T + to_j[:3, 3]
    f, _, cx, cy = world.intrinsics[j]
    with np.errstate(divide="ignore", invalid="ignore"):
        there = seen[:, :2] / seen[:, 2:] * f + [cx - 0.5, cy - 0.5]
    near = np.nan_to_num(there, nan=-1e6).round().astype(np.int64)
    inside = (seen[:, 2] > 0.1) & (near >= 0).all(-1) & (near < size).all(-1)
    near = np.where(inside[:, None], near, 0)
    visible = inside & (np.abs(np.log(np.maximum(seen[:, 2], 0.1) / world.depth[j][near[:, 1], near[:, 0]])) < 0.03)
    if masked:
        visible &= ~moving & ~world.dynamic[j][near[:, 1], near[:, 0]]
    xy, there = xy[visible], there[visible]
    here = (xy + rng.normal(0, errors.match_px, xy.shape)).round() if errors.match_px else xy
    there = there + rng.normal(0, errors.match_px, xy.shape) if errors.match_px else there
    wrong = rng.random(len(xy)) < errors.outliers
    there[wrong] = rng.uniform(0, size - 1, (int(wrong.sum()), 2))
    here, there = here.astype(np.int64), there.round().astype(np.int64)
    keep = ((here >= 0) & (here < size) & (there >= 0) & (there < size)).all(-1)
    confidence = rng.lognormal(1.2, 0.5, len(xy)) * np.where(wrong, 0.5, 1.0)
    parts = (
        torch.from_numpy(here[keep]),
        torch.from_numpy(there[keep]),
        torch.from_numpy(confidence[keep].astype(np.float32)),
    )
    return Matches(*parts)


@dataclass(frozen=True)
class Off:
    """How far a solution is from the truth, over the frames it has: `ate_m` and `scale` (truth over solution) after
    the best similarity, mean angle between relative rotations, mean relative error of focal lengths."""

    ate_m: float
    scale: float
    rotation_deg: float
    focal: float


def off(world_from_camera: np.ndarray, focal_px: np.ndarray, true_world_from_camera: np.ndarray, true_focal_px) -> Off:
    known = np.isfinite(world_from_camera).all((-1, -2))
    ours, true = world_from_camera[known], true_world_from_camera[known]
    try:
        to_true = similarity_between(ours[:, :3, 3], true[:, :3, 3])
    except ValueError:  # they stand still, or on a line
        to_true = Similarity(1, np.eye(3), (true[:, :3, 3] - ours[:, :3, 3]).mean(0))
    ate = np.sqrt(((to_true.apply(ours[:, :3, 3]) - true[:, :3, 3]) ** 2).sum(-1).mean())
    a, b = np.triu_indices(len(ours), 1)
    relative = [np.swapaxes(p[a, :3, :3], -1, -2) @ p[b, :3, :3] for p in (ours, true)]
    angles = rotation_angles_deg(np.swapaxes(relative[0], -1, -2) @ relative[1])
    focal = np.abs(focal_px[known] / np.broadcast_to(true_focal_px, known.shape)[known] - 1).mean()
    return Off(float(ate), float(to_true.scale), float(angles.mean()), float(focal))
