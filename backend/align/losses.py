"""The original's alignment loss as a pure function of cameras, depth and pair similarities: the reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from .predictions import PairFlows, PairPredictions

_EPS = 1e-6


@dataclass(frozen=True)
class AlignmentState:
    """What alignment looks for: T cameras with depth on an H x W grid, and the place of E pairs in the world.

    `depth` (T, H, W) z-depth; `world_from_camera` (T, 4, 4) rigid; `focal_px` (T,), equal entries for one lens. A
    point x of pair e stands at `pair_scale[e] * (pair_rotation[e] @ x + pair_translation[e])` in the world.
    """

    depth: Tensor
    world_from_camera: Tensor
    focal_px: Tensor
    pair_scale: Tensor  # (E,)
    pair_rotation: Tensor  # (E, 3, 3)
    pair_translation: Tensor  # (E, 3)


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms; the defaults are those of the original's demo (facts sheet, section 8.3)."""

    smooth_weight: float = 0.01
    translation_weight: float = 1.0  # of translation against rotation, inside the smoothness term
    flow_weight: float = 0.01
    flow_threshold_px: float = 25.0  # a flow term above this counts as 0
    flow_outlier: float = 50.0  # elements of the flow term from here on are left out
    depth_weight: float = 0.0
    flow_per_pair: bool = False  # mean over pairs of each pair's own mean, as the original's loop over pairs has it


@dataclass(frozen=True)
class AlignmentLoss:
    """`total`, and its terms before weighting. A flow term above its threshold is 0 here too."""

    total: Tensor
    points: Tensor
    smooth: Tensor
    flow: Tensor
    depth: Tensor


def alignment_loss(
    state: AlignmentState,
    predictions: PairPredictions,
    flows: PairFlows | None = None,
    dynamic: Tensor | None = None,
    initial_depth: Tensor | None = None,
    settings: LossSettings = LossSettings(),
) -> AlignmentLoss:
    """The loss of section 8.3 of the facts sheet; differentiable in every tensor of `state`.

    `flows` must hold each pair of `predictions` both ways; without it there is no flow term. `dynamic` (T, H, W)
    bool leaves moving pixels out of the flow term and weighs them in the depth term, which needs `initial_depth`
    (T, H, W). Raises ValueError where flows are missing.
    """
    zero = state.depth.new_zeros(())
    if dynamic is None:
        dynamic = torch.zeros_like(state.depth, dtype=torch.bool)
    points = points_term(state, predictions)
    smooth = smoothness_term(state.world_from_camera, settings.translation_weight)
    flow = depth = zero
    if flows is not None:
        flow = flow_term(state, predictions.edges, flows, dynamic, settings)
        flow = torch.where(flow > settings.flow_threshold_px, zero, flow)
    if settings.depth_weight:
        if initial_depth is None:
            raise ValueError("the depth term needs initial_depth")
        depth = depth_term(state.depth, initial_depth, dynamic)
    total = points + settings.smooth_weight * smooth + settings.flow_weight * flow + settings.depth_weight * depth
    return AlignmentLoss(total, points, smooth, flow, depth)


def points_term(state: AlignmentState, predictions: PairPredictions) -> Tensor:
    """Distance between each frame's points and what each pair says of them, weighted by ln confidence.

    The mean over all pixels of all pairs for the first views, plus the same for the second views.
    """
    world = transform_points(state.world_from_camera, camera_points(state.depth, state.focal_px))
    i, j = predictions.edges.unbind(1)
    term = state.depth.new_zeros(())
    for frame, points, confidence in (
        (i, predictions.points_i, predictions.confidence_i),
        (j, predictions.points_j, predictions.confidence_j),
    ):
        placed = place_pairs(state, points.to(world.dtype))
        distance = torch.linalg.vector_norm(world[frame] - placed, dim=-1)
        term = term + (confidence.to(world.dtype).log() * distance).sum() / distance.numel()
    return term


def smoothness_term(world_from_camera: Tensor, translation_weight: float) -> Tensor:
    """Sum over neighbouring frames of ||R_t' R_t+1 - I||_F + weight * ||R_t' (T_t+1 - T_t)||."""
    rotation, position = world_from_camera[:, :3, :3], world_from_camera[:, :3, 3]
    inverse = rotation[:-1].transpose(1, 2)
    turn = inverse @ rotation[1:] - torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    step = (inverse @ (position[1:] - position[:-1])[..., None])[..., 0]
    return torch.linalg.matrix_norm(turn).sum() + translation_weight * torch.linalg.vector_norm(step, dim=-1).sum()


def flow_term(
    state: AlignmentState, edges: Tensor, flows: PairFlows, dynamic: Tensor, settings: LossSettings
) -> Tensor:
    """Mean smooth-L1 distance between the flow that camera and depth explain and the measured one, both directions.

    Over flow components whose pixel is static and whose term is below `flow_outlier`; 0 where none is.
    """
    total = state.depth.new_zeros(())
    for start, end in (edges.unbind(1), edges.flip(1).unbind(1)):
        measured = flows.flow[positions_of(torch.stack([start, end], 1), flows.edges)].to(state.depth.dtype)
        static = ~dynamic[start, None]
        camera, focal = state.world_from_camera, state.focal_px
        explained = ego_flow(state.depth[start], camera[start], camera[end], focal[start], focal[end])
        # Masked first, so that what is not finite in a moving pixel reaches neither the sum nor its gradient.
        error = smooth_l1_loss(
            torch.where(static, explained, 0.0), torch.where(static, measured, 0.0), reduction="none"
        )
        kept = static & (error < settings.flow_outlier)
        sums = torch.where(kept, error, 0.0).flatten(1).sum(1)
        counts = kept.flatten(1).sum(1)
        if settings.flow_per_pair:
            total = total + (sums / counts.clamp(min=1)).mean()
        else:
            total = total + sums.sum() / counts.sum().clamp(min=1)
    return total


def depth_term(depth: Tensor, initial_depth: Tensor, dynamic: Tensor) -> Tensor:
    """How far depth has left the initial depth, each frame's scale aside: mean over frames of a weighted variance.

    Of ln(depth / initial depth), with weight 1, and 2 on moving pixels. The facts sheet names the term and its
    weights but not its normalisation, which is ours; the original's default weight is 0.
    """
    weight = (1.0 + dynamic.to(depth.dtype)).flatten(1)
    weight = weight / weight.sum(1, keepdim=True)
    change = (depth.log() - initial_depth.log()).flatten(1)
    mean = (weight * change).sum(1, keepdim=True)
    return (weight * (change - mean) ** 2).sum(1).mean()


def ego_flow(
    depth: Tensor, world_from_camera_i: Tensor, world_from_camera_j: Tensor, focal_i: Tensor, focal_j: Tensor
) -> Tensor:
    """(E, 2, H, W) flow in pixels from i to j of a static scene; facts sheet, section 7.4.

    `depth` (E, H, W) is that of view i; poses (E, 4, 4); focals (E,).
    """
    grid = pixel_grid(depth)
    rays = camera_points(torch.ones_like(depth), focal_i)
    disparity = 1.0 / (depth + _EPS)
    rotation_i, rotation_j = world_from_camera_i[:, :3, :3], world_from_camera_j[:, :3, :3]
    baseline = world_from_camera_i[:, :3, 3] - world_from_camera_j[:, :3, 3]
    turn = rotation_j.transpose(1, 2) @ rotation_i
    shift = (rotation_j.transpose(1, 2) @ baseline[..., None])[..., 0]
    x, y, z = (_rotate(turn, rays) + shift[:, None, None] * disparity[..., None]).unbind(-1)
    centre_x, centre_y = depth.shape[2] / 2, depth.shape[1] / 2
    focal = focal_j[:, None, None]
    u = (focal * x + centre_x * z) / (z + _EPS)
    v = (focal * y + centre_y * z) / (z + _EPS)
    return torch.stack([u - grid[..., 0], v - grid[..., 1]], dim=1)


def pixel_grid(like: Tensor) -> Tensor:
    """(H, W, 2) x and y of each pixel of (..., H, W) `like`, counted from the centre of the first one."""
    h, w = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(h, dtype=like.dtype, device=like.device),
        torch.arange(w, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def camera_points(depth: Tensor, focal_px: Tensor) -> Tensor:
    """(N, H, W, 3) points in camera axes of (N, H, W) z-depth, with the principal point at (W/2, H/2)."""
    centre = depth.new_tensor([depth.shape[2] / 2, depth.shape[1] / 2])
    slopes = (pixel_grid(depth) - centre) / focal_px[:, None, None, None]
    return torch.cat([slopes * depth[..., None], depth[..., None]], dim=-1)


def transform_points(poses: Tensor, points: Tensor) -> Tensor:
    """(N, H, W, 3) points through (N, 4, 4) poses."""
    return _rotate(poses[:, :3, :3], points) + poses[:, None, None, :3, 3]


def place_pairs(state: AlignmentState, points: Tensor) -> Tensor:
    """(E, H, W, 3) points of each pair, at their places in the world."""
    moved = _rotate(state.pair_rotation, points) + state.pair_translation[:, None, None]
    return state.pair_scale[:, None, None, None] * moved


def positions_of(wanted: Tensor, edges: Tensor) -> Tensor:
    """(M,) where each of (M, 2) `wanted` pairs stands in (E, 2) `edges`. Raises ValueError for one that is absent."""
    place = {(int(i), int(j)): k for k, (i, j) in enumerate(edges.tolist())}
    try:
        return torch.tensor([place[int(i), int(j)] for i, j in wanted.tolist()], dtype=torch.long, device=edges.device)
    except KeyError as error:
        raise ValueError(f"there is no flow from frame {error.args[0][0]} to frame {error.args[0][1]}") from None


def _rotate(rotation: Tensor, points: Tensor) -> Tensor:
    return torch.einsum("nij,nhwj->nhwi", rotation, points)
