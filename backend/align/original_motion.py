"""The original's motion masks: where optical flow is not what two cameras and their depth explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import ego_flow, positions_of, transform_points
from .original_views import PNP_CONFIDENCE, edge_scores, pose_from_points, weiszfeld_focal
from .predictions import PairFlows, PairPredictions

#: Mean normalised error above which a pixel counts as moving.
MOTION_THRESHOLD = 0.35
_PNP_ITERATIONS = 100


@dataclass(frozen=True)
class PairCameras:
    """Two views solved on their own, for M unordered pairs (i, j).

    `edges` (M, 2); `world_from_i`, `world_from_j` (M, 4, 4), one of which is the identity; `focal_i`, `focal_j` (M,)
    in pixels; `depth_i`, `depth_j` (M, H, W). `failed` (M,) bool: PnP found no pose, and the identity stands for it.
    """

    edges: Tensor
    world_from_i: Tensor
    world_from_j: Tensor
    focal_i: Tensor
    focal_j: Tensor
    depth_i: Tensor
    depth_j: Tensor
    failed: Tensor


def solve_pairs(predictions: PairPredictions) -> PairCameras:
    """Cameras and depth of each unordered pair from its two predictions; facts sheet, section 7, steps 1 to 3.

    A pair stands where and as its first direction stands in `predictions.edges`. Raises ValueError unless every pair
    is there both ways.
    """
    ways = {(i, j): e for e, (i, j) in enumerate(predictions.edges.tolist())}
    first = [e for (i, j), e in ways.items() if i != j and ways.get((j, i), -1) > e]
    if 2 * len(first) != sum(i != j for i, j in ways):
        raise ValueError("motion masks need every pair both ways")
    scores = edge_scores(predictions)
    focals = weiszfeld_focal(predictions.points_i)
    eye = torch.eye(4)
    poses_i, poses_j, depths_i, depths_j, back, failed = [], [], [], [], [], []
    for e in first:
        i, j = predictions.edges[e].tolist()
        r = ways[j, i]
        back.append(r)
        stronger, weaker = (e, r) if scores[e] > scores[r] else (r, e)
        # The second view of the stronger direction is placed in the first one's camera.
        confidence = torch.maximum(predictions.confidence_j[stronger], predictions.confidence_i[weaker])
        points = predictions.points_j[stronger]
        pose = pose_from_points(points, focals[weaker].item(), confidence > PNP_CONFIDENCE, _PNP_ITERATIONS)
        failed.append(pose is None)
        pose = eye if pose is None else pose
        depth = predictions.points_i[stronger][..., 2]
        camera_from_world = torch.linalg.inv(pose)[None].to(points)
        other_depth = transform_points(camera_from_world, points[None])[0, ..., 2]
        ours = stronger == e
        poses_i.append(eye if ours else pose)
        poses_j.append(pose if ours else eye)
        depths_i.append(depth if ours else other_depth)
        depths_j.append(other_depth if ours else depth)
    like = predictions.points_i
    return PairCameras(
        edges=predictions.edges[first],
        world_from_i=torch.stack(poses_i).to(like),
        world_from_j=torch.stack(poses_j).to(like),
        focal_i=focals[first],
        focal_j=focals[back],
        depth_i=torch.stack(depths_i),
        depth_j=torch.stack(depths_j),
        failed=torch.tensor(failed),
    )


def pair_ego_flow(pairs: PairCameras) -> tuple[Tensor, Tensor]:
    """(M, 2, H, W) flow of a static scene from i to j, and from j to i."""
    there = ego_flow(pairs.depth_i, pairs.world_from_i, pairs.world_from_j, pairs.focal_i, pairs.focal_j)
    back = ego_flow(pairs.depth_j, pairs.world_from_j, pairs.world_from_i, pairs.focal_j, pairs.focal_i)
    return there, back


def motion_error(
    predictions: PairPredictions, flows: PairFlows, frame_count: int | None = None, pairs: PairCameras | None = None
) -> Tensor:
    """(T, H, W) how unlike ego-flow each pixel's flow is: per pair from 0 to 1, and the mean over a frame's pairs.

    Facts sheet, section 7, steps 4 and 5. A pixel moves where this is above `MOTION_THRESHOLD`. NaN for a frame
    without pairs. `pairs` are those of `solve_pairs`, where they are known already.
    """
    frame_count = frame_count or int(predictions.edges.max()) + 1
    pairs = solve_pairs(predictions) if pairs is None else pairs
    total = predictions.confidence_i.new_zeros(frame_count, *predictions.confidence_i.shape[1:])
    count = total.new_zeros(frame_count)
    for explained, edges in zip(pair_ego_flow(pairs), (pairs.edges, pairs.edges.flip(1))):
        measured = flows.flow[positions_of(edges, flows.edges)].to(explained)
        error = torch.linalg.vector_norm(explained - measured, dim=1)
        low, high = error.amin((1, 2), keepdim=True), error.amax((1, 2), keepdim=True)
        frames = edges[:, 0].to(total.device)
        total.index_add_(0, frames, (error - low) / (high - low))
        count.index_add_(0, frames, torch.ones_like(frames, dtype=count.dtype))
    return total / count[:, None, None]
