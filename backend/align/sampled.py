"""A sample of the pixels of every pair: all that the solver reads, so that its cost does not grow with the picture."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .predictions import PairFlows, PairPredictions


@dataclass(frozen=True)
class Sampled:
    """P pixels `uv` (P, 2) of E pairs (i, j), the same in every frame.

    `points_i`, `points_j` (E, P, 3) and their weights `weight_i`, `weight_j` (E, P), the logarithm of the confidence;
    `flow` (E, P, 2) from i to j with `flow_weight` (E, P), 0 where it must not count. `size` is (width, height).
    """

    edges: torch.Tensor
    uv: torch.Tensor
    points_i: torch.Tensor
    points_j: torch.Tensor
    weight_i: torch.Tensor
    weight_j: torch.Tensor
    flow: torch.Tensor
    flow_weight: torch.Tensor
    size: tuple[int, int]
    centre: tuple[float, float] | None = None

    @property
    def principal_point(self) -> torch.Tensor:
        """(2,) `centre`, or else (W/2, H/2), as MonST3R's family has it (facts sheet, section 4)."""
        centre = self.centre or (self.size[0] / 2, self.size[1] / 2)
        return torch.tensor(centre, dtype=self.uv.dtype, device=self.uv.device)

    def where(self, keep: torch.Tensor | slice) -> Sampled:
        """The pairs for which `keep` (E,) is true, or a stretch of them."""
        return replace(self, **{name: getattr(self, name)[keep] for name in _PER_PAIR})

    def joined(self, other: Sampled) -> Sampled:
        """The pairs of both; they must be sampled at the same pixels."""
        return replace(self, **{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in _PER_PAIR})

    def between(self, frames: torch.Tensor) -> Sampled:
        """The same with frames renamed: n becomes `frames[n]`."""
        return replace(self, edges=frames.to(self.edges.device)[self.edges])

    def without_flow(self) -> Sampled:
        """The same, with no flow counted."""
        return replace(self, flow_weight=torch.zeros_like(self.flow_weight))

    def still(self, moving: torch.Tensor) -> Sampled:
        """The same, without the flow of pixels that `moving` (T, H, W) bool has in a pair's first frame."""
        x, y = self.uv.long().to(moving.device).T
        still = ~moving[self.edges[:, 0]][:, y, x]
        return replace(self, flow_weight=self.flow_weight * still.to(self.flow_weight))


_PER_PAIR = ("edges", "points_i", "points_j", "weight_i", "weight_j", "flow", "flow_weight")


def sample_pixels(size: tuple[int, int], count: int) -> torch.Tensor:
    """(P, 2) int64 pixels (x, y) on a regular grid over (width, height), about `count` of them."""
    width, height = size
    step = max(1.0, (width * height / count) ** 0.5)
    across, down = max(2, round(width / step)), max(2, round(height / step))
    x = ((torch.arange(across) + 0.5) * width / across).long()
    y = ((torch.arange(down) + 0.5) * height / down).long()
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)


def sample(
    predictions: PairPredictions,
    flows: PairFlows | None,
    pixels: torch.Tensor,
    device: torch.device | str = "cpu",
    centre: tuple[float, float] | None = None,
) -> Sampled:
    """What `predictions` and `flows` (of the same edges) say at `pixels` (P, 2), as float32 on `device`.

    A weight is the logarithm of the confidence (facts sheet, section 8.3), 0 where a prediction is not finite.
    """
    x, y = pixels.to(predictions.points_i.device).T

    def at(array: torch.Tensor) -> torch.Tensor:
        return array[:, y, x].to(device, torch.float32)

    points_i, points_j = at(predictions.points_i), at(predictions.points_j)
    weights = []
    for points, confidence in ((points_i, predictions.confidence_i), (points_j, predictions.confidence_j)):
        weight = at(confidence).clamp(min=1.0).log()
        weights.append(torch.where(torch.isfinite(points).all(-1) & torch.isfinite(weight), weight, 0.0))
    edges = predictions.edges.to(device)
    count = len(pixels)
    flow = torch.zeros(len(edges), count, 2, device=device)
    flow_weight = torch.zeros(len(edges), count, device=device)
    if flows is not None:
        fx, fy = pixels.to(flows.flow.device).T
        flow = flows.flow[:, :, fy, fx].movedim(1, -1).to(device, torch.float32)
        flow_weight = flows.valid[:, fy, fx].to(device, torch.float32)
        flow_weight = flow_weight * torch.isfinite(flow).all(-1)
    return Sampled(
        edges=edges,
        uv=pixels.to(device, torch.float32),
        points_i=torch.nan_to_num(points_i, 0.0, 0.0, 0.0),
        points_j=torch.nan_to_num(points_j, 0.0, 0.0, 0.0),
        weight_i=weights[0],
        weight_j=weights[1],
        flow=torch.nan_to_num(flow, 0.0, 0.0, 0.0),
        flow_weight=flow_weight,
        size=predictions.size,
        centre=centre,
    )
