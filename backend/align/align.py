"""Global alignment, whole: from the predictions and flows of pairs to cameras, depth, confidence and motion masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .depth import fuse
from .motion import Cameras, motion_scores
from .normal import Noise
from .predictions import PairFlows, PairPredictions
from .sampled import Sampled, sample, sample_pixels
from .solve import solve
from .start import State, start
from .unknowns import Knowns

#: Pixels of every frame that the solver reads.
PIXELS = 600


@dataclass(frozen=True)
class Aligned:
    """What alignment found of T frames: tensors on the host, float64 cameras.

    `world_from_camera` (T, 4, 4), `focal_px` (T,), `depth` and `confidence` (T, H, W), `scores` (T, H, W) of motion
    in units of the threshold, `noise` of the residuals, and the sampled problem with its state.
    """

    world_from_camera: torch.Tensor
    focal_px: torch.Tensor
    depth: torch.Tensor
    confidence: torch.Tensor
    scores: torch.Tensor
    noise: Noise
    sampled: Sampled
    state: State


def align(
    predictions: PairPredictions,
    flows: PairFlows | None,
    frame_count: int,
    *,
    knowns: Knowns = Knowns(),
    dynamic: np.ndarray | None = None,
    find_movers: bool = True,
    threshold: float = 1.0,
    pixels: int = PIXELS,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
) -> Aligned:
    """Align pairs; the cameras' world is the first frame's. Known masks (T, H, W) are `dynamic`, found ones are added.

    Cameras first from the point maps alone; these tell what moves, and the flow of the rest then makes them precise.
    """
    at = sample_pixels(predictions.size, pixels)
    sampled = sample(predictions, flows, at, device)
    without = sample(predictions, None, at, device)
    known = None if dynamic is None else torch.as_tensor(dynamic, device=device)

    def part(begin: float, end: float) -> Callable[[float], None]:
        return lambda fraction: progress(begin + (end - begin) * fraction)

    solved = solve(without, start(without, frame_count), knowns, progress=part(0, 0.2))
    width, height = predictions.size
    moving = torch.zeros(frame_count, height, width, dtype=torch.bool, device=device)
    scores = torch.zeros(frame_count, height, width, device=device)
    if flows is not None:
        for begin in (0.2, 0.5):
            if find_movers:
                cameras = cameras_of(solved.state)
                depth, _ = fuse(
                    range(frame_count), predictions, None, moving, cameras, solved.state.log_scale, solved.noise
                )
                scores = motion_scores(flows, depth.to(device), cameras, progress=part(begin, begin + 0.1))
            moving = scores > threshold if known is None else (scores > threshold) | known
            still = masked(sampled, moving, at)
            solved = solve(still, solved.state, knowns, progress=part(begin + 0.1, begin + 0.3))
    cameras = cameras_of(solved.state)
    depth, confidence = fuse(
        range(frame_count), predictions, flows, moving, cameras, solved.state.log_scale, solved.noise, part(0.8, 1)
    )
    return Aligned(
        world_from_camera=torch.linalg.inv(solved.state.camera_from_world).cpu(),
        focal_px=solved.state.log_focal.exp().cpu(),
        depth=depth,
        confidence=confidence,
        scores=scores.cpu(),
        noise=solved.noise,
        sampled=sampled,
        state=solved.state,
    )


def cameras_of(state: State) -> Cameras:
    """The cameras of a state."""
    return Cameras(state.camera_from_world, state.log_focal.exp())


def masked(sampled: Sampled, moving: torch.Tensor, pixels: torch.Tensor) -> Sampled:
    """The sample without the flow of what moves in its first frame; `moving` (T, H, W) bool."""
    from dataclasses import replace

    x, y = pixels.to(moving.device).T
    still = ~moving[sampled.edges[:, 0]][:, y, x]
    return replace(sampled, flow_weight=sampled.flow_weight * still)


def frames_of(edges: Sequence[tuple[int, int]]) -> int:
    """How many frames pairs speak of."""
    return 1 + max(max(e) for e in edges)
