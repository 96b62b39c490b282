"""Synthetic truth for alignment: what a perfect network and a perfect flow would say of a room with a moving board."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from backend.align.graph import make_pairs
from backend.align.losses import AlignmentState, camera_points, transform_points
from backend.align.predictions import PairFlows, PairPredictions


@dataclass(frozen=True)
class Truth:
    """Predictions, flows, the state that explains them, and the moving pixels (T, H, W)."""

    predictions: PairPredictions
    flows: PairFlows
    state: AlignmentState
    dynamic: torch.Tensor


def room_pairs(
    frame_count: int = 5,
    width: int = 48,
    height: int = 32,
    focal_px: float = 44.0,
    graph: str = "swinstride-5-noncyclic",
    board: bool = True,
    seed: int = 0,
) -> Truth:
    """Exact pairs in float64: cameras inside a box, a board that slides, every pair with a scale of its own.

    Pixels are counted from the centre of the first one, and the principal point is (W/2, H/2).
    """
    generator = torch.Generator().manual_seed(seed)
    s = torch.linspace(0, 1, frame_count, dtype=torch.float64)
    turn = torch.stack([0.03 * torch.sin(3 * s), -0.2 * s, 0.02 * s], dim=1)
    poses = torch.eye(4, dtype=torch.float64).repeat(frame_count, 1, 1)
    poses[:, :3, :3] = torch.linalg.matrix_exp(_cross(turn))
    poses[:, :3, 3] = torch.stack([0.8 * s, 0.1 * torch.sin(4 * s), 0.3 * s], dim=1)
    focal = torch.full((frame_count,), focal_px, dtype=torch.float64)

    rays = camera_points(torch.ones(frame_count, height, width, dtype=torch.float64), focal)
    direction = torch.einsum("nij,nhwj->nhwi", poses[:, :3, :3], rays)
    origin = poses[:, None, None, :3, 3]
    walls = torch.tensor([3.0, 1.5, 5.0], dtype=torch.float64)
    depth = ((torch.copysign(walls, direction) - origin) / direction).amin(-1)  # the first wall of the box that is met

    shift = torch.zeros(frame_count, 3, dtype=torch.float64)
    shift[:, 0] = 0.5 * s
    to_board = (2.5 - origin[..., 2]) / direction[..., 2]
    hit = origin + to_board[..., None] * direction - shift[:, None, None]
    dynamic = (hit[..., 0] - 0.2).abs().lt(0.3) & (hit[..., 1] - 0.2).abs().lt(0.4) & (to_board > 0)
    dynamic &= torch.tensor(board)
    depth = torch.where(dynamic, to_board, depth)

    world = transform_points(poses, camera_points(depth, focal))
    edges = torch.tensor(make_pairs(graph, frame_count))
    i, j = edges.unbind(1)
    inverse = torch.linalg.inv(poses)[i]
    scale = torch.exp(0.5 * torch.randn(len(edges), generator=generator, dtype=torch.float64))
    sized = scale[:, None, None, None]
    confidence = 1 + torch.rand(2, len(edges), height, width, generator=generator, dtype=torch.float64) * 9
    predictions = PairPredictions(
        edges,
        points_i=sized * transform_points(inverse, world[i]),
        points_j=sized * transform_points(inverse, world[j]),
        confidence_i=confidence[0],
        confidence_j=confidence[1],
    )
    moved = world[i] + torch.where(dynamic[i][..., None], (shift[j] - shift[i])[:, None, None], 0.0)
    x, y, z = transform_points(torch.linalg.inv(poses)[j], moved).unbind(-1)
    grid_y, grid_x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    flow = torch.stack([focal_px * x / z + width / 2 - grid_x, focal_px * y / z + height / 2 - grid_y], dim=1)
    state = AlignmentState(
        depth=depth,
        world_from_camera=poses,
        focal_px=focal,
        pair_scale=1 / scale,
        pair_rotation=poses[i, :3, :3],
        pair_translation=scale[:, None] * poses[i, :3, 3],
    )
    return Truth(predictions, PairFlows(edges, flow, torch.isfinite(flow).all(1)), state, dynamic)


def _cross(vectors: torch.Tensor) -> torch.Tensor:
    x, y, z = vectors.unbind(1)
    o = torch.zeros_like(x)
    return torch.stack([o, -z, y, z, o, -x, -y, x, o], dim=1).reshape(-1, 3, 3)
