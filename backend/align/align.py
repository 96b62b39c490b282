"""Global alignment, whole: from the predictions and flows of pairs to cameras, depth, confidence and motion scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..wire import UserError
from .depth import cleaned, fuse
from .motion import Cameras, motion_scores
from .normal import Noise
from .predictions import PairFlows, PairPredictions
from .sampled import Sampled, sample, sample_pixels
from .solve import Solved, placed_frames, solve, with_knowns
from .start import State, start
from .unknowns import NOTHING_KNOWN, Knowns

#: Pixels of every frame that the solver reads, and the least share of a small picture's.
PIXELS = 600
SPARSEST = 20
#: Fewer placed frames than this share are a failure.
MIN_PLACED = 0.3


@dataclass(frozen=True)
class MoverOptions:
    """What is taken to move. `known` (T, H, W) bool is what the user says; `find` adds what the flow tells, where the
    score is above `threshold`."""

    known: torch.Tensor | None = None
    find: bool = True
    threshold: float = 1.0


FIND_THEM = MoverOptions()


@dataclass(frozen=True)
class Aligned:
    """What alignment found of T frames.

    `camera_from_world` (T, 4, 4) float64, NaN of frames that could not be placed, `focal_px` (T,) float64; `depth`,
    `confidence` and `scores` (T, H, W) float32 on the host, the last in units of the threshold of motion; `moving` the
    mask of it; `sampled` and `state` what the solver ended with, of the pairs that `log_scale` (E,) is not NaN for.
    """

    camera_from_world: torch.Tensor
    focal_px: torch.Tensor
    depth: torch.Tensor
    confidence: torch.Tensor
    scores: torch.Tensor
    moving: torch.Tensor
    log_scale: torch.Tensor
    noise: Noise
    sampled: Sampled
    state: State

    @property
    def placed(self) -> torch.Tensor:
        """(T,) bool: frames with a camera."""
        return self.state.placed


def align(
    predictions: PairPredictions,
    flows: PairFlows | None,
    frame_count: int,
    *,
    knowns: Knowns = NOTHING_KNOWN,
    movers: MoverOptions = FIND_THEM,
    clean: bool = True,
    pixels: int = PIXELS,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
    look: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] | None = None,
) -> Aligned:
    """Align pairs. Raises UserError when too few frames can be placed.

    With `clean`, points that hang in front of what other frames see lose their confidence.

    Cameras first from the point maps alone; these tell what moves, and the flow of the rest then makes them precise.
    `look` gets camera_from_world (T, 4, 4), focal_px (T,) and depth (T, H, W) as soon as there are some.
    """

    def part(begin: float, end: float) -> Callable[[float], None]:
        return lambda fraction: progress(begin + (end - begin) * fraction)

    width, height = predictions.size
    at = sample_pixels(predictions.size, min(pixels, width * height // SPARSEST))
    sampled = sample(predictions, flows, at, device, knowns.centre)
    solved, keep = _place(sampled.without_flow(), frame_count, knowns, part(0, 0.2))
    sampled = sampled.where(keep)
    log_scale = torch.full((len(keep),), torch.nan, dtype=torch.float64, device=device)

    def fused(solved: Solved, moving: torch.Tensor, with_flow: bool, report: Callable[[float], None]):
        log_scale[keep] = solved.state.log_scale
        used = flows if with_flow else None
        return fuse(
            range(frame_count),
            predictions,
            used,
            moving,
            cameras_of(solved.state, knowns),
            log_scale,
            solved.noise,
            report,
        )

    scores = torch.zeros(frame_count, height, width, device=device)
    moving = scores > 0
    if movers.known is not None:
        moving = moving | movers.known.to(device)
    if flows is not None:
        for begin in (0.2, 0.5):
            if movers.find:
                depth, _ = fused(solved, moving, False, part(begin, begin + 0.05))
                cameras = cameras_of(solved.state, knowns)
                if look is not None:
                    look(cameras.camera_from_world.cpu(), cameras.focal_px.cpu(), depth.cpu())
                scores = motion_scores(flows, depth.to(device), cameras, progress=part(begin + 0.05, begin + 0.12))
                moving = scores > movers.threshold
                if movers.known is not None:
                    moving = moving | movers.known.to(device)
            solved = solve(sampled.still(moving), solved.state, knowns, progress=part(begin + 0.12, begin + 0.3))
    depth, confidence = fused(solved, moving, flows is not None, part(0.8, 0.95))
    if clean:
        cameras = cameras_of(solved.state, knowns)
        confidence = cleaned(depth, confidence, moving.cpu(), cameras, predictions.edges, part(0.95, 1))
    return Aligned(
        camera_from_world=solved.state.camera_from_world,
        focal_px=solved.state.log_focal.exp(),
        depth=depth,
        confidence=confidence,
        scores=scores.cpu(),
        moving=moving.cpu(),
        log_scale=log_scale,
        noise=solved.noise,
        sampled=sampled.still(moving),
        state=solved.state,
    )


def _place(
    sampled: Sampled, frame_count: int, knowns: Knowns, progress: Callable[[float], None]
) -> tuple[Solved, torch.Tensor]:
    """Cameras from the point maps alone, and which pairs (E,) they rest on. Frames that do not fit are left out."""
    keep = torch.ones(len(sampled.edges), dtype=torch.bool, device=sampled.edges.device)
    while True:  # ends, since every round that is not the last has fewer pairs
        used = sampled.where(keep)
        first = with_knowns(start(used, frame_count), knowns)
        check_placed(first.placed, frame_count)
        linked = keep & first.placed[sampled.edges].all(-1)
        if int(linked.sum()) < int(keep.sum()):
            keep = linked
            continue
        solved = solve(used, first, knowns, progress=progress)
        placed = placed_frames(used, solved.state)
        check_placed(placed, frame_count)
        still = keep & placed[sampled.edges].all(-1)
        if int(still.sum()) == int(keep.sum()):
            return solved, keep
        keep = still


def check_placed(placed: torch.Tensor, frame_count: int) -> None:
    """Raise UserError when too few frames have a camera, of which `placed` (T,) bool tells."""
    count = int(placed.sum())
    if count < max(2, MIN_PLACED * frame_count):
        raise UserError(
            f"The camera could be placed for only {count} of {frame_count} frames",
            "use a part of the clip whose frames show more of the same things",
        )


def cameras_of(state: State, knowns: Knowns) -> Cameras:
    """The cameras of a state."""
    return Cameras(state.camera_from_world, state.log_focal.exp(), knowns.centre)
