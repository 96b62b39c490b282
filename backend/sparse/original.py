"""The original's sparse alignment: Adam on a coarse and a fine loss. The baseline that ours is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..run import Run
from .original_cameras import Parameters, Placed
from .original_losses import coarse_loss, fine_loss, tables
from .problem import SparseProblem
from .tree import Tree, kinematic_tree, match_counts

_BETAS = (0.9, 0.9)


@dataclass(frozen=True)
class OriginalSettings:
    """The settings of the original's function; its demo has `least_confidence` 0. specs/mast3r.md section 3.5."""

    coarse_steps: int = 300
    coarse_rate: float = 0.07
    fine_steps: int = 300
    fine_rate: float = 0.01
    least_confidence: float = 5.0  # of its best match, below which a pair is weak
    shared_lens: bool = False
    free_centre: bool = True  # in the fine stage
    free_depth: bool = True
    tree: str = "hclust-ward"


@dataclass(frozen=True)
class OriginalResult:
    """Where the frames end, on which tree; `losses` (steps,) before each step, fewer where one was not a number."""

    placed: Placed
    tree: Tree
    losses: Tensor


def align_as_original(
    problem: SparseProblem,
    settings: OriginalSettings = OriginalSettings(),
    *,
    first_intrinsics: Tensor | None = None,
    run: Run | None = None,
    stop_after: int | None = None,
) -> OriginalResult:
    """Align the frames of `problem` the way the original does, in the number type of its views.

    `first_intrinsics` (N, 3, 3) is where lenses start, in place of what the views say. With `stop_after` it ends after
    so many steps of the schedule. The answer is the state before the last step, as the original's is; its world is as
    it comes. Raises UserError for frames without matches that are sure enough, Cancelled when `run` is.
    """
    frames = len(problem.views)
    anchors = np.array([view.core_depth.numel() for view in problem.views])
    tree = kinematic_tree(match_counts(problem.pairs, frames), anchors, settings.tree)
    meetings, weak = tables(problem, settings.least_confidence)
    parameters = Parameters(problem.views, problem.size, tree, settings.shared_lens, first_intrinsics)
    motion = ["turn", "shift", "log_size"]
    fine = motion + ["centre"] * settings.free_centre + ["log_focal"] + ["relief"] * settings.free_depth
    stages = (
        (coarse_loss, settings.coarse_steps, settings.coarse_rate, motion),
        (fine_loss, settings.fine_steps, settings.fine_rate, fine),
    )
    left = math.inf if stop_after is None else stop_after
    placed, losses = None, []
    for loss, steps, rate, free in stages:
        shared = {"centre", "log_focal"} if settings.shared_lens else set()
        walk = _Walk(parameters, free, shared, frames)
        for step in (run or Run()).steps(min(steps, left)):
            value, here = walk.step(lambda at, loss=loss: loss(at, meetings, weak), _cosine(rate, step / steps))
            if here is None:
                break
            placed = here
            losses.append(value)
        left -= steps
    if placed is None:
        placed = parameters.placed()
    return OriginalResult(placed, tree, torch.tensor(losses, dtype=torch.float64))


def _cosine(rate: float, t: float) -> float:
    return rate * (1 + math.cos(math.pi * t)) / 2


class _Walk:
    """Adam on some of the parameters; those that all frames share stand in the original's list once for each frame."""

    def __init__(self, parameters: Parameters, free: list[str], shared: set[str], frames: int) -> None:
        for name, value in vars(parameters).items():
            if isinstance(value, Tensor):
                setattr(parameters, name, value.detach().clone().requires_grad_(name in free))
        self._parameters = parameters
        groups = ((1, [n for n in free if n not in shared]), (frames, [n for n in free if n in shared]))
        self._optimisers = [
            (times, torch.optim.Adam([getattr(parameters, n) for n in names], betas=_BETAS))
            for times, names in groups
            if names
        ]

    def step(self, loss: Callable[[Placed], Tensor], rate: float) -> tuple[float, Placed | None]:
        """The loss and the frames before the step; None, and no step, where the loss is not a number."""
        placed = self._parameters.placed()
        value = loss(placed)
        if not bool(torch.isfinite(value)):
            return value.item(), None
        for _, optimiser in self._optimisers:
            optimiser.zero_grad()
        value.backward()
        for times, optimiser in self._optimisers:
            optimiser.param_groups[0]["lr"] = rate
            for _ in range(times):
                optimiser.step()
        with torch.no_grad():
            self._parameters.turn.copy_(normalize(self._parameters.turn, dim=-1))
        return value.item(), Placed(**{name: tensor.detach() for name, tensor in vars(placed).items()})
