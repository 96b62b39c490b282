"""Oracles in a network's place: what a two-view network and an optical flow would say of a world, with known errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import map_coordinates, zoom
from scipy.spatial.transform import Rotation

from backend.align.predictions import PairFlows, PairPredictions

from .worlds import World


@dataclass(frozen=True)
class Errors:
    """Standard deviations, by default those of the fixtures' scene: of a pair's log scale, of depth (smooth over the
    picture, and from pixel to pixel), of the focal length, of the pair's relative pose (degrees; share of the median
    depth), and of the flow in pixels at 96 across."""

    scale: float = 0.2
    smooth_depth: float = 0.02
    fine_depth: float = 0.02
    focal: float = 0.02
    rotation_deg: float = 0.7
    translation: float = 0.03
    flow_px: float = 0.25


EXACT = Errors(0, 0, 0, 0, 0, 0, 0)


class PairOracle:
    """`predict(edges)` as a network would, in half precision on the host."""

    def __init__(self, world: World, errors: Errors = Errors(), seed: int = 0) -> None:
        self.world, self.errors, self.seed = world, errors, seed

    def predict(self, edges: Sequence[tuple[int, int]]) -> PairPredictions:
        made = [self._pair(int(i), int(j)) for i, j in edges]
        points_i, points_j, confidence_i, confidence_j = (
            torch.from_numpy(np.stack(part).astype(np.float16)) for part in zip(*made)
        )
        return PairPredictions(
            torch.as_tensor(np.asarray(edges)).long(), points_i, points_j, confidence_i, confidence_j
        )

    def _pair(self, i: int, j: int) -> tuple[np.ndarray, ...]:
        world, e = self.world, self.errors
        rng = np.random.default_rng([self.seed, i, j])
        scale, focal = np.exp(rng.normal(0, e.scale)), 1 + rng.normal(0, e.focal)
        own, own_log = self._cloud(i, focal, rng)
        other, other_log = self._cloud(j, focal, rng)
        i_from_j = np.linalg.inv(world.world_from_camera[i]) @ world.world_from_camera[j]
        turn = Rotation.from_rotvec(np.radians(rng.normal(0, e.rotation_deg, 3) / np.sqrt(3))).as_matrix()
        move = rng.normal(0, e.translation / np.sqrt(3), 3) * np.median(world.depth[i])
        other = other @ i_from_j[:3, :3].T + i_from_j[:3, 3]
        other = other @ turn.T + move
        sure = [1 + 5 * np.exp(-((log / 0.04) ** 2)) for log in (own_log, other_log)]
        return scale * own, scale * other, *sure

    def _cloud(self, n: int, focal: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) points of frame n in its own camera, and the error of their log depth."""
        width, height = self.world.size
        coarse = rng.normal(0, self.errors.smooth_depth, (4, 5))
        smooth = zoom(coarse, (height / 4, width / 5), order=3, mode="nearest", grid_mode=True)
        error = smooth + rng.normal(0, self.errors.fine_depth, (height, width))
        f, _, cx, cy = self.world.intrinsics[n]
        x, y = np.meshgrid(np.arange(width) + 0.5 - cx, np.arange(height) + 0.5 - cy)
        depth = self.world.depth[n] * np.exp(error)
        return np.stack([x / (f * focal) * depth, y / (f * focal) * depth, depth], -1), error


class FlowOracle:
    """`predict(edges)` as an optical flow would; not valid where the point is hidden or outside in the other frame."""

    def __init__(self, world: World, errors: Errors = Errors(), seed: int = 0) -> None:
        self.world, self.errors, self.seed = world, errors, seed

    def predict(self, edges: Sequence[tuple[int, int]]) -> PairFlows:
        made = [self._pair(int(i), int(j)) for i, j in edges]
        flow = torch.from_numpy(np.stack([m[0] for m in made]).astype(np.float16))
        valid = torch.from_numpy(np.stack([m[1] for m in made]))
        return PairFlows(torch.as_tensor(np.asarray(edges)).long(), flow.movedim(-1, 1), valid)

    def _pair(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        world = self.world
        width, height = world.size
        rng = np.random.default_rng([self.seed, i, j, 1])
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        f, _, cx, cy = world.intrinsics[i]
        points = np.stack([(x - cx) / f, (y - cy) / f, np.ones_like(x)], -1) * world.depth[i][..., None]
        points = points @ world.world_from_camera[i][:3, :3].T + world.world_from_camera[i][:3, 3]
        if world.mover is not None:
            points = points + world.dynamic[i][..., None] * (world.mover.centres[j] - world.mover.centres[i])
        points = (points - world.world_from_camera[j][:3, 3]) @ world.world_from_camera[j][:3, :3]
        f, _, cx, cy = world.intrinsics[j]
        z = np.where(points[..., 2] > 0.05, points[..., 2], 0.05)
        there = f * points[..., :2] / z[..., None] + [cx, cy]
        inside = (there > 0.5).all(-1) & (there < (width - 0.5, height - 0.5)).all(-1) & (points[..., 2] > 0.05)
        seen = map_coordinates(world.depth[j], [there[..., 1] - 0.5, there[..., 0] - 0.5], order=1, mode="nearest")
        noise = rng.normal(0, self.errors.flow_px * width / 96, (height, width, 2))
        return there - np.stack([x, y], -1) + noise, inside & (np.abs(z / seen - 1) < 0.05)
