"""Canonical views: what all pairs say of one frame in its own camera, as running sums. specs/mast3r.md section 3.2."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..align.original_views import weiszfeld_focal
from ..wire import UserError
from .views import View

#: Side of the block of pixels that shares one anchor of depth.
BLOCK = 8
_LEAST_CONFIDENCE = 0.999  # of the network is 1: what is above counts
_EPS = 1e-8
#: Focal lengths are kept within these multiples of that of a 60 degree lens on the longer side.
_FOCAL_RANGE = (0.5, 3.5)


@dataclass(frozen=True)
class CanonicalView:
    """One frame in its own camera, on the device of its sums.

    `points` (H, W, 3) metres; `depth_ratio` (H, W): a pixel's depth over that of its block's anchor, 1 at the anchor's
    own pixel; `confidence` (H, W), 0 in the mask; `focal_px` of principal point (W/2, H/2); `core_depth` (H/8, W/8):
    the anchors' depth. In the mask all values are what the network said: only their confidence is taken.
    """

    points: Tensor
    depth_ratio: Tensor
    confidence: Tensor
    focal_px: float
    core_depth: Tensor


class CanonicalSums:
    """Running sums over all views of one frame by itself (`SymmetricPair.ii` and `jj`): 32 bytes a pixel.

    `mask` (H, W) bool is True on movers. Pixels there end with confidence 0, say nothing about the lens, and are no
    block's anchor unless all of the block is masked: else the still pixel nearest to the block's middle is.
    """

    def __init__(self, mask: Tensor | None = None) -> None:
        self._mask = mask
        self._count = 0

    def add(self, view: View) -> None:
        """Raises ValueError for a size that is no multiple of 8, or another than before."""
        points = view.points if view.points.dtype.itemsize >= 4 else view.points.float()
        confidence = view.confidence.to(points.dtype)
        if not self._count:
            self._start(points)
        if points.shape != self._points.shape:
            raise ValueError(f"a view of {list(points.shape)} among those of {list(self._points.shape)}")
        weight = confidence - _LEAST_CONFIDENCE
        x, y, z = points.unbind(-1)
        anchor = spread(points.reshape(-1, 3)[self._anchor].movedim(-1, 0)).movedim(0, -1)
        reach = torch.linalg.vector_norm(torch.stack([x, y], -1) - anchor[..., :2], dim=-1).clamp(min=_EPS)
        angle = torch.atan(((z - anchor[..., 2].clamp(min=_EPS)) / reach).double())  # its tangent will be steep
        self._points += weight[..., None] * points
        self._weight += weight
        self._square += weight * weight
        self._angle += weight * angle
        self._reach += reach
        self._count += 1

    def _start(self, points: Tensor) -> None:
        height, width = points.shape[:2]
        if height % BLOCK or width % BLOCK:
            raise ValueError(f"{width} x {height} is not whole blocks of {BLOCK}")
        if self._mask is None:
            self._mask = torch.zeros(height, width, dtype=torch.bool)
        self._mask = self._mask.to(points.device)
        self._anchor = anchor_pixels(self._mask)
        self._points = torch.zeros_like(points)
        self._weight, self._square, self._reach = points.new_zeros(3, height, width)
        self._angle = torch.zeros_like(self._weight, dtype=torch.float64)

    def finish(self, centre: tuple[float, float] | None = None) -> CanonicalView:
        """The view; `centre` is the principal point where that is known.

        Raises UserError for a frame without any view, and for one that is masked all over.
        """
        if not self._count or bool(self._mask.all()):
            why = "all of it is masked" if self._count else "no pair has it"
            raise UserError(f"A frame cannot be aligned: {why}", "leave it out, or mask less")
        points = self._points / self._weight[..., None]
        core_depth = points[..., 2].flatten()[self._anchor]
        slope = torch.tan(self._angle / self._weight).to(points)
        ratio = 1 + self._reach / self._count * slope / spread(core_depth)
        # an anchor is not near itself: its reach is the least there is, not nothing
        ratio.view(-1)[self._anchor] = 1
        focal = weiszfeld_focal(points.masked_fill(self._mask[..., None], math.nan)[None], centre).item()
        height, width = self._mask.shape
        normal = max(height, width) / (2 * math.tan(math.radians(30)))
        focal = min(max(focal, _FOCAL_RANGE[0] * normal), _FOCAL_RANGE[1] * normal)
        confidence = (self._square / self._weight).masked_fill(self._mask, 0)
        return CanonicalView(points, ratio, confidence, focal, core_depth)


def anchor_pixels(mask: Tensor) -> Tensor:
    """(H/8, W/8) flat index of each block's anchor: its pixel (4, 4), or of (H, W) `mask` the nearest one outside."""
    height, width = mask.shape
    offset = (torch.arange(BLOCK, device=mask.device) - BLOCK // 2) ** 2
    distance = (offset[:, None] + offset).flatten()
    blocks = mask.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK).movedim(1, 2).flatten(2)
    within = (distance + 2 * BLOCK**2 * blocks).argmin(-1)
    row = torch.arange(height // BLOCK, device=mask.device)[:, None] * BLOCK + within // BLOCK
    column = torch.arange(width // BLOCK, device=mask.device) * BLOCK + within % BLOCK
    return row * width + column


def spread(blocks: Tensor) -> Tensor:
    """(..., H/8, W/8) values of blocks for each of their pixels, (..., H, W)."""
    return blocks.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
