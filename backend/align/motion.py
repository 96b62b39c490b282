"""Motion masks: pixels whose optical flow the camera's own motion does not explain, for every pair and frame.

The original compares flow and ego-flow by a distance that it scales to 0..1 within each pair, so that one bad pixel
hides the rest (facts sheet, section 7). Here the distance is in units of what noise explains: that of the flow, and
along the epipolar line that of the depth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .predictions import PairFlows

#: Scores are cut here, in units of the threshold, so that a strong mover's edge stays where it is in a mean.
HIGHEST = 2.0
#: Standard deviations at a threshold of 1.
DEVIATIONS = 4.0
#: Noise of a flow in pixels at 512 across, at least.
FLOW_FLOOR_PX = 0.35
#: Noise of a logarithm of depth, at least: what a network does not know of a surface.
DEPTH_FLOOR = 0.03


@dataclass(frozen=True)
class Cameras:
    """T cameras: `camera_from_world` (T, 4, 4), `focal_px` (T,), principal point `centre`, None for (W/2, H/2)."""

    camera_from_world: torch.Tensor
    focal_px: torch.Tensor
    centre: tuple[float, float] | None = None

    def between(self, i: torch.Tensor, j: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotation (E, 3, 3) and translation (E, 3) of j's cameras from i's, float32."""
        a, b = self.camera_from_world[i], self.camera_from_world[j]
        rotation = b[:, :3, :3] @ a[:, :3, :3].mT
        return rotation.float(), (b[:, :3, 3] - (rotation @ a[:, :3, 3:])[..., 0]).float()


def pixel_grid(
    size: tuple[int, int], device: torch.device | str = "cpu", centre: tuple[float, float] | None = None
) -> torch.Tensor:
    """(H, W, 2) pixel coordinates x, y, counted from the centre of the first pixel, less the principal point `centre`.

    That is (W/2, H/2) unless it is given.
    """
    width, height = size
    centre_x, centre_y = centre or (width / 2, height / 2)
    x = torch.arange(width, dtype=torch.float32, device=device) - centre_x
    y = torch.arange(height, dtype=torch.float32, device=device) - centre_y
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def ego_flow(
    depth: torch.Tensor, cameras: Cameras, edges: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Flow that the cameras alone cause, for pairs (E, 2) of frames with `depth` (T, H, W).

    Returns the flow (E, H, W, 2), its derivative by the logarithm of depth (E, H, W, 2), and the depth in the other
    camera (E, H, W), which is not positive behind it.
    """
    i, j = edges.T
    grid = pixel_grid((depth.shape[2], depth.shape[1]), depth.device, cameras.centre)
    rotation, shift = cameras.between(i, j)
    f_i, f_j = (cameras.focal_px[n].float()[:, None, None, None] for n in (i, j))
    ray = torch.cat([grid / f_i, torch.ones_like(grid[..., :1]).expand(len(i), -1, -1, -1)], -1)
    along = (ray * depth[i][..., None]) @ rotation.mT[:, None]
    point = along + shift[:, None, None]
    z = point[..., 2:]
    safe = torch.where(z > 1e-6, z, 1.0)
    where = point[..., :2] / safe
    by_depth = f_j * (along[..., :2] - where * along[..., 2:]) / safe
    return f_j * where - grid, by_depth, z[..., 0]


def unexplained(
    flow: torch.Tensor, explained: torch.Tensor, by_depth: torch.Tensor, flow_noise: torch.Tensor, depth_noise: float
) -> torch.Tensor:
    """(E, H, W) distance of flow and ego-flow in standard deviations.

    The covariance is s^2 I + d^2 g g^T, with the flow's noise s (E,), the depth's d, and g the derivative of the
    ego-flow by the logarithm of depth; its inverse is by Sherman and Morrison.
    """
    miss = flow - explained
    s2 = flow_noise.square()[:, None, None]
    along = (miss * by_depth).sum(-1)
    g2 = by_depth.square().sum(-1)
    return ((miss.square().sum(-1) - along**2 / (s2 / depth_noise**2 + g2)).clamp(min=0) / s2).sqrt()


def motion_scores(
    flows: PairFlows,
    depth: torch.Tensor,
    cameras: Cameras,
    *,
    chunk: int = 32,
    progress: Callable[[float], None] = lambda fraction: None,
) -> torch.Tensor:
    """(T, H, W) how far each pixel moves by itself, in units of the threshold; 0 where no pair can tell.

    The mean over the pairs that begin in the frame, of those pixels where the flow is valid, each cut at 2. Then each
    frame listens to its neighbours where the flow leads: what moves does so for longer than one frame.
    """
    frames, _, width = depth.shape
    device = depth.device
    floor = FLOW_FLOOR_PX * width / 512
    total = torch.zeros_like(depth)
    count = torch.zeros_like(depth)
    edges = flows.edges.to(device)
    placed = torch.isfinite(cameras.camera_from_world).all(-1).all(-1)
    usable = torch.nonzero(placed[edges].all(-1))[:, 0]
    for begin in range(0, len(usable), chunk):
        progress(0.7 * begin / len(usable))
        part = usable[begin : begin + chunk]
        pairs, host = edges[part], part.to(flows.flow.device)
        flow = flows.flow[host].to(device, torch.float32).movedim(1, -1)
        valid = flows.valid[host].to(device)
        explained, by_depth, z = ego_flow(depth, cameras, pairs)
        valid = valid & (z > 1e-6) & (depth[pairs[:, 0]] > 0)
        noise = static_noise(flow, explained, by_depth, valid, floor)
        score = (unexplained(flow, explained, by_depth, noise, DEPTH_FLOOR) / DEVIATIONS).clamp(max=HIGHEST)
        total.index_add_(0, pairs[:, 0], torch.where(valid, score, 0.0))
        count.index_add_(0, pairs[:, 0], valid.float())
    score = total / count.clamp(min=1)
    return _carried(score, flows, frames, chunk, lambda fraction: progress(0.7 + 0.3 * fraction))


def static_noise(
    flow: torch.Tensor, explained: torch.Tensor, by_depth: torch.Tensor, valid: torch.Tensor, floor: float
) -> torch.Tensor:
    """(E,) noise of each pair's flow in pixels: from the quarter quantile of its distance across the epipolar line.

    Not the median, so that it holds with movers over half of the picture; never under `floor`.
    """
    step = 4
    part = (slice(None), slice(step // 2, None, step), slice(step // 2, None, step))
    miss = unexplained(
        flow[part], explained[part], by_depth[part], torch.ones(len(flow), device=flow.device), DEPTH_FLOOR
    )
    values = torch.where(valid[part], miss, torch.nan).flatten(1)
    quantile = torch.nan_to_num(values.nanquantile(0.25, dim=1), 0.0)
    return (quantile / 0.759).clamp(min=floor)  # the quarter quantile of a Rayleigh distribution is 0.759 deviations


def _carried(
    score: torch.Tensor, flows: PairFlows, frames: int, chunk: int, progress: Callable[[float], None]
) -> torch.Tensor:
    """The mean of each frame's score and its neighbours', looked up where the flow to them leads."""
    device = score.device
    edges = flows.edges.to(device)
    gap = (edges[:, 1] - edges[:, 0]).abs()
    nearest = torch.full((frames,), 1 << 30, device=device).scatter_reduce(0, edges[:, 0], gap, "amin")
    near = torch.nonzero(gap <= nearest[edges[:, 0]])[:, 0]
    total, count = score.clone(), torch.ones_like(score)
    for begin in range(0, len(near), chunk):
        progress(begin / len(near))
        at = near[begin : begin + chunk]
        pairs = edges[at]
        host = at.to(flows.flow.device)
        flow = flows.flow[host].to(device, torch.float32).movedim(1, -1)
        valid = flows.valid[host].to(device).float()
        there = look_up(score[pairs[:, 1]], flow)
        total.index_add_(0, pairs[:, 0], there * valid)
        count.index_add_(0, pairs[:, 0], valid)
    return total / count


def look_up(values: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """(E, H, W) `values` (E, H, W) of the other frame where the flow (E, H, W, 2) leads."""
    height, width = values.shape[1:]
    at = pixel_grid((width, height), values.device, (0.0, 0.0)) + flow
    span = torch.tensor([width - 1, height - 1], dtype=torch.float32, device=values.device)
    return torch.nn.functional.grid_sample(
        values[:, None], at / span * 2 - 1, mode="bilinear", padding_mode="border", align_corners=True
    )[:, 0]
