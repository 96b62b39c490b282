"""What the original makes of its cameras: points of matches, depth of every pixel, cleaned. specs/mast3r.md 3.6."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..align.cleaning import without_floaters
from .anchors import all_anchored, match_pixels
from .original_cameras import Placed, Spots
from .problem import SparseProblem


@dataclass(frozen=True)
class DenseViews:
    """(N, H, W) z-`depth`, `points` (N, H, W, 3) in the world, `confidence` (N, H, W): 0 where another view contradicts
    (`without_floaters`)."""

    depth: Tensor
    points: Tensor
    confidence: Tensor


def sparse_points(placed: Placed, problem: SparseProblem) -> list[Tensor]:
    """(M, 3) points in the world of all match pixels of each frame, as `match_pixels` has them."""
    return [placed.points(Spots.of(n, p)) for n, p in enumerate(match_pixels(problem.views, problem.pairs))]


def dense_views(placed: Placed, problem: SparseProblem) -> DenseViews:
    """Every pixel by its anchor's depth."""
    width, height = problem.size
    spots = [Spots.of(n, all_anchored(view)) for n, view in enumerate(problem.views)]
    depth = torch.stack([placed.depth(s).reshape(height, width) for s in spots])
    points = torch.stack([placed.points(s).reshape(height, width, 3) for s in spots])
    confidence = torch.stack([view.confidence for view in problem.views])
    cleaned = without_floaters(
        points, depth, placed.world_from_camera, placed.focal_px, placed.centre_px, confidence.to(depth)
    )
    return DenseViews(depth, points, cleaned)
