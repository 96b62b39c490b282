"""A first alignment, in closed form: cameras from pairwise similarities along the most trustworthy tree of pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from .sampled import Sampled

#: Rounds of reweighting in a robust fit.
ROUNDS = 6
#: Share of a cloud's extent that a point may miss by, at half its weight.
LOOSE = 0.03
#: How far in log depth a pair may be from the others of its first frame, at half its confidence.
ALIKE = 0.1


@dataclass(frozen=True)
class State:
    """What is solved for. `camera_from_world` (T, 4, 4), `log_scale` (E,) of each pair's points, `log_focal` (T,),
    and `log_depth` (T, P) at the sampled pixels; float64, float32 for the depth. Frames without any pair are NaN.
    """

    camera_from_world: torch.Tensor
    log_scale: torch.Tensor
    log_focal: torch.Tensor
    log_depth: torch.Tensor

    @property
    def placed(self) -> torch.Tensor:
        """(T,) bool: frames with a camera."""
        return torch.isfinite(self.camera_from_world).all(-1).all(-1)


def similarities(
    source: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, rounds: int = ROUNDS
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Robust target = s R source + t of (B, P, 3) point sets: s (B,), R (B, 3, 3), t (B, 3), relative residual (B,).

    Umeyama (1991), reweighted by a Cauchy function of the distance relative to the point's range. The residual is the
    weighted mean of that, infinite where the points do not fix a similarity.
    """
    source, target, base = source.double(), target.double(), weight.double()
    reach = target.norm(dim=-1).clamp(min=1e-9)
    weight = base / reach**2
    for _ in range(rounds):
        total = weight.sum(-1, keepdim=True).clamp(min=1e-12)
        share = (weight / total)[..., None]
        mean_s, mean_t = (share * source).sum(-2), (share * target).sum(-2)
        a, b = source - mean_s[:, None], target - mean_t[:, None]
        covariance = (share * b).mT @ a
        u, d, vt = torch.linalg.svd(covariance)
        sign = torch.ones_like(d)
        sign[:, 2] = torch.det(u @ vt).sign()
        rotation = u @ (sign[..., None] * vt)
        scale = (d * sign).sum(-1) / (share * a**2).sum((-2, -1)).clamp(min=1e-18)
        shift = mean_t - scale[:, None] * (rotation @ mean_s[..., None])[..., 0]
        off = (target - scale[:, None, None] * source @ rotation.mT - shift[:, None]).norm(dim=-1) / reach
        weight = base / reach**2 / (1 + (off / LOOSE) ** 2)
    total = base.sum(-1)
    residual = (base * off.clamp(max=1.0)).sum(-1) / total.clamp(min=1e-12)
    bad = (total < 1e-6) | (scale <= 0) | ~torch.isfinite(residual)
    return scale, rotation, shift, torch.where(bad, torch.inf, residual)


def focal_from_points(sampled: Sampled) -> torch.Tensor:
    """(E,) focal length of each pair's first view in pixels: the weighted median of what its pixels say by themselves.

    Rays near the principal point say little, so each counts by its length. NaN where nothing is in front.
    """
    z = sampled.points_i[..., 2]
    ray = sampled.points_i[..., :2] / torch.where(z > 1e-9, z, torch.nan)[..., None]
    pixel = sampled.uv - sampled.principal_point
    length = ray.norm(dim=-1)
    ratio = (pixel * ray).sum(-1) / length**2
    weight = torch.nan_to_num(sampled.weight_i * length, 0.0) * torch.isfinite(ratio)
    ratio, order = torch.nan_to_num(ratio, 1e9).sort(dim=-1)
    cumulative = weight.gather(-1, order).cumsum(-1)
    middle = torch.searchsorted(cumulative, cumulative[:, -1:] / 2).clamp(max=ratio.shape[1] - 1)
    focal = ratio.gather(-1, middle)[:, 0]
    return torch.where((cumulative[:, -1] > 0) & (focal > 0), focal, torch.nan)


def start(sampled: Sampled, frame_count: int) -> State:
    """A state from the point maps alone. Needs, of each frame, a pair in which it comes first (a symmetric graph).

    Each pair (i, j) with a pair (j, k) gives the motion between i and j, by bringing j's points in camera i onto j's
    points in camera j. The tree of least residual links the frames; scales follow from all pairs by least squares.
    """
    edges = sampled.edges.cpu().numpy()
    device = sampled.uv.device
    best = _own_view(sampled, frame_count)
    usable = np.flatnonzero(best[edges[:, 1]] >= 0)
    usable = usable[edges[usable, 0] != edges[usable, 1]]
    own = torch.as_tensor(best[edges[usable, 1]], device=device)
    at = torch.as_tensor(usable, device=device)
    weight = torch.sqrt(sampled.weight_j[at] * sampled.weight_i[own])
    scale, rotation, shift, residual = (
        a.cpu().numpy() for a in similarities(sampled.points_j[at], sampled.points_i[own], weight)
    )
    # j's camera from i's, in units of j's own view: x_own = s R x_pair + t.
    linked = np.isfinite(residual)
    i, j = edges[usable].T
    cost = np.full((frame_count, frame_count), np.inf)
    index = np.full((frame_count, frame_count), -1)
    for k in np.flatnonzero(linked):
        a, b = sorted((i[k], j[k]))
        if residual[k] < cost[a, b]:
            cost[a, b], index[a, b] = residual[k], k
    # A pair's unit of length in that of its first frame's own view: the median ratio of the depths there.
    first = torch.as_tensor(np.maximum(best[edges[:, 0]], 0), device=device)
    log_z = sampled.points_i[..., 2].clamp(min=1e-9).log()
    ratio = (log_z[first] - log_z).median(dim=-1).values.double().cpu().numpy()
    step = ratio[usable] - np.log(np.maximum(scale, 1e-18))
    log_own, camera_from_world = _along_the_tree(cost, index, i, j, step, rotation, shift, frame_count)
    log_scale = np.nan_to_num(log_own[edges[:, 0]] + ratio)

    focal = focal_from_points(sampled).double().cpu().numpy()
    if not np.isfinite(focal).any():
        focal = np.full(len(edges), 1.2 * max(sampled.size))
    log_focal = np.full(frame_count, np.log(np.nanmedian(focal)))
    for n in range(frame_count):
        mine = focal[(edges[:, 0] == n) & np.isfinite(focal)]
        if len(mine):
            log_focal[n] = np.log(np.median(mine))
    depth = torch.zeros(frame_count, len(sampled.uv), device=device)
    for n in range(frame_count):
        if best[n] >= 0:
            depth[n] = torch.log(sampled.points_i[best[n]][..., 2].clamp(min=1e-9)) + float(np.nan_to_num(log_own[n]))
    return State(
        camera_from_world=torch.as_tensor(camera_from_world, device=device),
        log_scale=torch.as_tensor(log_scale, device=device),
        log_focal=torch.as_tensor(log_focal, device=device),
        log_depth=depth,
    )


def _own_view(sampled: Sampled, frame_count: int) -> np.ndarray:
    """(T,) the pair that tells each frame's own view best, of those in which it comes first; -1 where there is none.

    That of the greatest confidence, as far as its depth agrees with the median of the frame's other pairs.
    """
    first = sampled.edges[:, 0].cpu().numpy()
    sure = sampled.weight_i.mean(-1)
    z = sampled.points_i[..., 2]
    shape = torch.where((z > 1e-9) & (sampled.weight_i > 0), z, torch.nan).log()
    shape = shape - shape.nanmedian(dim=-1, keepdim=True).values
    best = np.full(frame_count, -1)
    for n in range(frame_count):
        mine = np.flatnonzero((first == n) & (sure > 0).cpu().numpy())
        if not len(mine):
            continue
        at = torch.as_tensor(mine, device=shape.device)
        off = (shape[at] - shape[at].nanmedian(dim=0).values).abs().nan_to_num(torch.inf).median(dim=-1).values
        best[n] = mine[int((sure[at] / (1 + (off / ALIKE) ** 2)).argmax())]
    return best


def _along_the_tree(cost, index, i, j, step, rotation, shift, frame_count):
    """(T,) log scale of each frame's own view and (T, 4, 4) cameras, from pairwise motions along a minimum tree.

    Pair k takes i[k] to j[k] by `rotation[k]` and `shift[k]`, which is in units of j's own view; `step[k]` is the log
    of i's unit in j's.
    """
    a, b = np.nonzero(np.isfinite(cost))
    graph = coo_matrix((cost[a, b] + 1e-6, (a, b)), shape=cost.shape)
    tree = minimum_spanning_tree(graph)
    degree = np.bincount(np.concatenate(tree.nonzero()), minlength=frame_count)
    root = int(np.argmax(degree))
    order, before = breadth_first_order(tree, root, directed=False)
    log_own = np.full(frame_count, np.nan)
    cameras = np.full((frame_count, 4, 4), np.nan)
    log_own[root], cameras[root] = 0.0, np.eye(4)
    for n in order[1:]:
        p = before[n]
        k = index[min(n, p), max(n, p)]
        motion = np.eye(4)
        motion[:3, :3] = rotation[k]
        forward = j[k] == n
        log_own[n] = log_own[p] + (step[k] if forward else -step[k])
        motion[:3, 3] = shift[k] * np.exp(log_own[j[k]])
        cameras[n] = (motion if forward else np.linalg.inv(motion)) @ cameras[p]
    return log_own, cameras
