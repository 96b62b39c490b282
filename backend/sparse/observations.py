"""Matches as flat arrays: each says, once in either direction, where a pixel of one frame is seen in another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canonical import BLOCK
from .problem import SparseProblem

#: A frame's depth at a match is used where prediction and block say more than this share of the frame's middle depth.
LEAST_DEPTH = 1e-3
#: Matches of all pairs that are used at most; more are thinned, alike in every pair.
MOST_MATCHES = 1_000_000


@dataclass(frozen=True)
class Observations:
    """M of them, in order of (source, target, anchor). Pixels are relative to the middle of the picture.

    `pair` (M,) is the place in `problem.pairs`; `source`, `target` (M,) are frames; `anchor` (M,) is the source's and
    `target_anchor` the target's among all N * `anchors_per_frame`; `pixel`, `target_pixel` (M, 2); `log_depth` and
    `target_log_depth` (M,) are predicted there; `weight` (M,) is 0 to 1 by confidence, around half where it is usual.
    """

    pair: np.ndarray
    source: np.ndarray
    target: np.ndarray
    anchor: np.ndarray
    target_anchor: np.ndarray
    pixel: np.ndarray
    target_pixel: np.ndarray
    log_depth: np.ndarray
    target_log_depth: np.ndarray
    weight: np.ndarray
    anchors_per_frame: int

    def __len__(self) -> int:
        return len(self.source)

    def where(self, keep: np.ndarray) -> Observations:
        """Those that `keep` chooses, which must leave them in order."""
        arrays = {name: value[keep] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return Observations(**arrays, anchors_per_frame=self.anchors_per_frame)


def observe(
    problem: SparseProblem, most_matches: int = MOST_MATCHES, centre: tuple[float, float] | None = None
) -> Observations:
    """All matches of some confidence whose ends have a depth, in both directions. `centre` stands for the middle of the
    picture where that is not where the lenses look. Matches may lie between pixels: depth is that of the nearest."""
    width, height = problem.size
    columns, rows = width // BLOCK, height // BLOCK
    log_depths = np.stack([_log_depth(view) for view in problem.views]) if problem.views else np.zeros((0, 1, 1))
    total = sum(len(p.matches) for p in problem.pairs)
    share = min(1.0, most_matches / max(total, 1))
    parts = []
    for number, pair in enumerate(problem.pairs):
        a, b = pair.matches.xy_1.cpu().numpy(), pair.matches.xy_2.cpu().numpy()
        confidence = pair.matches.confidence.cpu().numpy().astype(np.float64)
        if share < 1:
            chosen = np.linspace(0, len(a), int(len(a) * share), endpoint=False).astype(np.int64)
            a, b, confidence = a[chosen], b[chosen], confidence[chosen]
        depth_a, depth_b = (log_depths[n, y, x] for n, (x, y) in ((pair.i, _nearest(a)), (pair.j, _nearest(b))))
        keep = (confidence > 0) & np.isfinite(depth_a) & np.isfinite(depth_b)
        parts.append((number, pair.i, pair.j, a[keep], b[keep], depth_a[keep], depth_b[keep], confidence[keep]))
    usual = np.median(np.concatenate([p[-1] for p in parts])) if any(len(p[-1]) for p in parts) else 1.0
    middle = np.array(centre or (width / 2, height / 2))

    def directed(number, i, j, a, b, depth_a, depth_b, confidence) -> dict[str, np.ndarray]:
        count = len(a)
        block_a, block_b = (
            n * rows * columns + (y // BLOCK) * columns + x // BLOCK
            for n, (x, y) in ((i, _nearest(a)), (j, _nearest(b)))
        )
        order = np.argsort(block_a, kind="stable")
        values = {
            "pair": np.full(count, number, np.int32),
            "source": np.full(count, i, np.int32),
            "target": np.full(count, j, np.int32),
            "anchor": block_a,
            "target_anchor": block_b,
            "pixel": a - middle,
            "target_pixel": b - middle,
            "log_depth": depth_a,
            "target_log_depth": depth_b,
            "weight": confidence / (confidence + usual),
        }
        return {name: value[order] for name, value in values.items()}

    both = [directed(*p) for p in parts]
    both += [directed(n, j, i, b, a, depth_b, depth_a, c) for n, i, j, a, b, depth_a, depth_b, c in parts]
    both = sorted((p for p in both if len(p["source"])), key=lambda p: (p["source"][0], p["target"][0]))
    if not both:
        both = [directed(0, 0, 0, np.zeros((0, 2), np.int64), np.zeros((0, 2), np.int64), *np.zeros((3, 0)))]
    arrays = {name: np.concatenate([p[name] for p in both]) for name in both[0]}
    return Observations(**arrays, anchors_per_frame=rows * columns)


def _nearest(xy: np.ndarray) -> np.ndarray:
    """(2, M) columns and rows of the pixels nearest to (M, 2)."""
    return np.floor(xy + 0.5).astype(np.int64).T


def _log_depth(view) -> np.ndarray:
    """(H, W) of the anchors' depth and the pixels' ratio to it; NaN where that is not a depth, or nothing is sure."""
    ratio = view.depth_ratio.cpu().numpy().astype(np.float64)
    core = view.core_depth.cpu().numpy().astype(np.float64)
    depth = np.kron(core, np.ones((BLOCK, BLOCK))) * ratio
    good = np.isfinite(depth) & (view.confidence.cpu().numpy() > 0)
    good &= depth > LEAST_DEPTH * np.median(core)
    return np.where(good, np.log(np.where(good, depth, 1.0)), np.nan)
