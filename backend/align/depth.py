"""The full-resolution pass: every pixel's depth and confidence, for cameras and scales that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .motion import Cameras, pixel_grid
from .normal import Noise
from .predictions import PairFlows, PairPredictions

#: Rounds of reweighting.
ROUNDS = 4
#: What a pair's depth counts for beside its flow. A network's errors are alike over a picture, but less so at one pixel
#: from pair to pair: more than the solver gives them, less than if they were independent.
SHARE = 0.3
#: A Cauchy weight of so many standard deviations loses 5 % of what a mean makes of errors without outliers.
EFFICIENT = 2.385
#: A point nearer than this share of the depth that another frame sees behind it hangs in front of that.
IN_FRONT = 0.95


def fuse_frame(
    frame: int,
    predictions: PairPredictions,
    flows: PairFlows | None,
    static: torch.Tensor,
    cameras: Cameras,
    log_scale: torch.Tensor,
    noise: Noise,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and confidence (H, W) of one frame; 0 where no pair says anything.

    `log_scale` (E,) is each pair's, NaN of pairs that must not count; `static` (H, W) bool says where flow may be
    believed. Depth minimises the solver's cost (`normal.py`) pixel by pixel. Confidence is the network's, meaned over
    the pairs, each counting above 1 only as far as its depth agrees with the rest.
    """
    device = static.device
    edges = predictions.edges
    depths, weights = [], []
    for side, points, confidence in (
        (0, predictions.points_i, predictions.confidence_i),
        (1, predictions.points_j, predictions.confidence_j),
    ):
        mine = torch.nonzero((edges[:, side] == frame) & torch.isfinite(log_scale).to(edges.device))[:, 0]
        if not len(mine):
            continue
        scale = log_scale[mine.to(log_scale.device)].float().exp().to(device)[:, None, None]
        cloud = points[mine].to(device, torch.float32)
        if side:
            rotation, shift = cameras.between(edges[mine, 0].to(device), edges[mine, 1].to(device))
            z = scale * (cloud * rotation[:, None, None, 2]).sum(-1) + shift[:, 2, None, None]
        else:
            z = scale * cloud[..., 2]
        sure = confidence[mine].to(device, torch.float32)
        ok = torch.isfinite(z) & (z > 1e-6) & torch.isfinite(sure)
        depths.append(torch.where(ok, z, 1.0).log())
        weights.append(torch.where(ok, sure, 1.0))
    if not depths:
        nothing = torch.zeros(static.shape, device=device)
        return nothing, nothing.clone()
    given, confidence = torch.cat(depths), torch.cat(weights)
    base = confidence.log()
    total = base.sum(0)
    known = total > 0
    log_depth = (base * given).sum(0) / total.clamp(min=1e-9)
    counts = torch.isfinite(log_scale).to(edges.device)
    terms = _flow_terms(frame, flows, counts, static, cameras) if flows is not None else None
    for _ in range(ROUNDS):
        off = given - log_depth
        agreement = 1 / (1 + (off / (EFFICIENT * noise.depth)) ** 2)
        weight = base * agreement * SHARE / noise.depth**2
        gradient, curvature = (weight * off).sum(0), weight.sum(0)
        if terms is not None:
            pull, stiffness = terms(log_depth, noise.flow)
            gradient, curvature = gradient + pull, curvature + stiffness
        log_depth = log_depth + (gradient / curvature.clamp(min=1e-12)).clamp(-0.2, 0.2)
    off = given - log_depth
    agreement = 1 / (1 + (off / (EFFICIENT * noise.depth)) ** 2)
    mean = 1 + (agreement * (confidence - 1)).sum(0) / len(confidence)
    return torch.where(known, log_depth.exp(), 0.0), torch.where(known, mean, 0.0)


def _flow_terms(
    frame: int, flows: PairFlows, counts: torch.Tensor, static: torch.Tensor, cameras: Cameras
) -> Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]] | None:
    """A function of the log depth (H, W) and the flow's noise: how hard, and how stiffly, flow pulls at it."""
    device = static.device
    mine = torch.nonzero((flows.edges[:, 0] == frame) & counts)[:, 0]
    if not len(mine):
        return None
    pairs = flows.edges[mine].to(device)
    host = mine.to(flows.flow.device)
    flow = flows.flow[host].to(device, torch.float32).movedim(1, -1)
    base = (flows.valid[host].to(device) & static).float()
    grid = pixel_grid((static.shape[1], static.shape[0]), device, cameras.centre)
    rotation, shift = cameras.between(pairs[:, 0], pairs[:, 1])
    f_i, f_j = (cameras.focal_px[n].float()[:, None, None, None] for n in pairs.T)
    ray = torch.cat([grid / f_i, torch.ones_like(grid[..., :1]).expand(len(pairs), -1, -1, -1)], -1)
    ray = ray @ rotation.mT[:, None]

    def terms(log_depth: torch.Tensor, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
        along = ray * log_depth.exp()[..., None]
        point = along + shift[:, None, None]
        front = point[..., 2:] > 1e-6
        z = torch.where(front, point[..., 2:], 1.0)
        where = point[..., :2] / z
        miss = grid + flow - f_j * where
        by_depth = f_j * (along[..., :2] - where * along[..., 2:]) / z
        weight = base * front[..., 0] / noise**2 / (1 + miss.square().sum(-1) / noise**2)
        return (weight * (by_depth * miss).sum(-1)).sum(0), (weight * by_depth.square().sum(-1)).sum(0)

    return terms


def fuse(
    frames: Sequence[int],
    predictions: PairPredictions,
    flows: PairFlows | None,
    dynamic: torch.Tensor,
    cameras: Cameras,
    log_scale: torch.Tensor,
    noise: Noise,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and confidence (F, H, W) of F frames, on the host; `dynamic` (T, H, W) bool is where flow is not used."""
    found = []
    for number, n in enumerate(frames):
        progress(number / len(frames))
        pair = fuse_frame(n, predictions, flows, ~dynamic[n], cameras, log_scale, noise)
        found.append(tuple(a.cpu() for a in pair))
    depth, confidence = (torch.stack(a) for a in zip(*found))
    return depth, confidence


def cleaned(
    depth: torch.Tensor,
    confidence: torch.Tensor,
    dynamic: torch.Tensor,
    cameras: Cameras,
    edges: torch.Tensor,
    progress: Callable[[float], None] = lambda fraction: None,
) -> torch.Tensor:
    """`confidence` (T, H, W) lowered to 1, which says nothing, where a point hangs in front of what another frame sees.

    Static points that another frame's surface lies clearly behind, of which that frame is more confident; facts sheet,
    section 8.4. Only frames that share a pair are asked.
    """
    size = depth.shape[2], depth.shape[1]
    device = cameras.focal_px.device
    kept = confidence.clone()
    grid = pixel_grid(size, device, cameras.centre)
    middle = torch.tensor(cameras.centre or (size[0] / 2, size[1] / 2), device=device)
    order = edges[torch.argsort(edges[:, 0], stable=True)].tolist()
    for number, (i, j) in enumerate(order):
        progress(number / len(order))
        if i == j or not bool(torch.isfinite(cameras.camera_from_world[[i, j]]).all()):
            continue
        rotation, shift = cameras.between(torch.tensor([i], device=device), torch.tensor([j], device=device))
        own = depth[i].to(device)
        ray = torch.cat([grid / cameras.focal_px[i].float(), torch.ones_like(grid[..., :1])], -1)
        point = (ray * own[..., None]) @ rotation[0].mT + shift[0]
        z = point[..., 2].clamp(min=1e-6)
        at = (cameras.focal_px[j].float() * point[..., :2] / z[..., None] + middle).round().long()
        x, y = at.unbind(-1)
        inside = (x >= 0) & (y >= 0) & (x < size[0]) & (y < size[1]) & (point[..., 2] > 1e-6) & (own > 0)
        x, y = x.clamp(0, size[0] - 1), y.clamp(0, size[1] - 1)
        there, sure = depth[j].to(device)[y, x], confidence[j].to(device)[y, x]
        static = ~(dynamic[i].to(device) | dynamic[j].to(device)[y, x])
        floats = inside & static & (z < IN_FRONT * there) & (confidence[i].to(device) < sure)
        kept[i][floats.to(kept.device)] = 1.0
    return kept
