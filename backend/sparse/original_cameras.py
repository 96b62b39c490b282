"""The original's cameras, lenses and depths, in the coordinates its Adam walks in. specs/mast3r.md section 3.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import roma
import torch
from torch import Tensor
from torch.nn.functional import normalize

from .anchors import Anchored
from .canonical import CanonicalView
from .tree import Tree

#: Focal lengths stay within these multiples of the picture's diagonal.
_FOCAL_RANGE = (0.25, 10.0)


@dataclass(frozen=True)
class Spots:
    """M pixels of any frames: `frame` (M,), `xy` (M, 2) as floats, and their `anchor` and `ratio` as of `Anchored`."""

    frame: Tensor
    xy: Tensor
    anchor: Tensor
    ratio: Tensor

    @classmethod
    def of(cls, frame: int, pixels: Anchored) -> Spots:
        return cls(torch.full_like(pixels.anchor, frame), pixels.xy.to(pixels.ratio.dtype), pixels.anchor, pixels.ratio)


def gathered(spots: Sequence[Spots]) -> Spots:
    """All of them, one after the other."""
    return Spots(*(torch.cat([getattr(s, name) for s in spots]) for name in ("frame", "xy", "anchor", "ratio")))


@dataclass(frozen=True)
class Placed:
    """N frames in one world: `rotation` (N, 3, 3) and `position` (N, 3), world from camera; `focal_px` (N,);
    `centre_px` (N, 2), the principal points; `anchor_depth` (N, A). `first_focal_px` (N,) is that of their views."""

    rotation: Tensor
    position: Tensor
    focal_px: Tensor
    centre_px: Tensor
    anchor_depth: Tensor
    first_focal_px: Tensor

    @property
    def world_from_camera(self) -> Tensor:
        """(N, 4, 4)."""
        top = torch.cat([self.rotation, self.position[..., None]], 2)
        return torch.cat([top, top.new_tensor([0, 0, 0, 1.0]).expand(len(top), 1, 4)], 1)

    def depth(self, spots: Spots) -> Tensor:
        """(M,) z-depth: relief within a block flattens as the lens grows longer than its view's was."""
        flatter = (self.first_focal_px / self.focal_px)[spots.frame]
        return self.anchor_depth[spots.frame, spots.anchor] * (1 + (spots.ratio - 1) * flatter)

    def points(self, spots: Spots) -> Tensor:
        """(M, 3) in the world."""
        frame, depth = spots.frame, self.depth(spots)
        slope = (spots.xy - self.centre_px[frame]) / self.focal_px[frame, None]
        return self.to_world(frame, torch.cat([slope * depth[:, None], depth[:, None]], 1))

    def to_world(self, frame: Tensor, points: Tensor) -> Tensor:
        """(M, 3) points of the cameras of `frame` (M,), in the world."""
        return torch.einsum("mij,mj->mi", self.rotation[frame], points) + self.position[frame]

    def to_camera(self, frame: Tensor, points: Tensor) -> Tensor:
        """(M, 3) points of the world in the cameras of `frame` (M,)."""
        return torch.einsum("mji,mj->mi", self.rotation[frame], points - self.position[frame])


class Parameters:
    """What is walked in. Cameras hang on each other along the tree, each by the middle of what it sees; `log_size`
    scales a frame's depth, and the smallest frame's size is always 1; a longer lens draws its camera back."""

    def __init__(
        self,
        views: Sequence[CanonicalView],
        size: tuple[int, int],
        tree: Tree,
        shared_lens: bool = False,
        first_intrinsics: Tensor | None = None,
    ) -> None:
        core = torch.stack([view.core_depth.flatten() for view in views])
        count = len(views)
        self._tree, self._size = tree, core.new_tensor(size)
        self._first_focal = core.new_tensor([view.focal_px for view in views])
        centre = core.new_full((count, 2), 0.5)
        if first_intrinsics is not None:
            self._first_focal = first_intrinsics[:, 0, 0].to(core)
            centre = first_intrinsics[:, :2, 2].to(core) / self._size
        focal = self._first_focal
        if shared_lens:
            weight = torch.stack([view.confidence.mean() for view in views])
            weight = weight / weight.sum()
            focal, centre = (weight * focal).sum()[None], (weight[:, None] * centre).sum(0)[None]
        self._middle = core.median(1).values
        self.turn = core.new_tensor([0, 0, 0, 1.0]).repeat(count, 1)
        self.shift = core.new_zeros(count, 3)
        self.log_size = core.new_zeros(count)
        self.log_focal = focal.log()
        self.centre = centre
        self.relief = core / self._middle[:, None]

    def placed(self) -> Placed:
        """The frames that the parameters stand for."""
        count = len(self.turn)
        size, diagonal = self.log_size.exp(), torch.linalg.vector_norm(self._size).item()
        focal = self.log_focal.exp().clip(_FOCAL_RANGE[0] * diagonal, _FOCAL_RANGE[1] * diagonal).expand(count)
        centre = self.centre.expand(count, 2)
        gauge = 1 / size.min()
        middle = size * self._middle * focal / self._first_focal
        depth = gauge * (middle[:, None] + (self.relief - 1) * (self._middle * size)[:, None])
        turn, shift = self._chained()
        ahead = torch.cat([self._size / focal[:, None] * (0.5 - centre), torch.ones_like(focal)[:, None]], 1)
        back = torch.einsum("nij,nj->ni", turn, middle[:, None] * ahead)
        return Placed(turn, gauge * (shift - back), focal, centre * self._size, depth, self._first_focal)

    def _chained(self) -> tuple[Tensor, Tensor]:
        own = roma.unitquat_to_rotmat(normalize(self.turn, dim=-1))
        turn: list[Tensor] = list(own)
        shift = list(self.shift)
        for parent, child in self._tree.edges:
            shift[child] = turn[parent] @ self.shift[child] + shift[parent]
            turn[child] = turn[parent] @ own[child]
        return torch.stack(turn), torch.stack(shift)
