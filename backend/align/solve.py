"""The solver: cameras, lens, scales and depth of sampled pairs, by damped Gauss-Newton on a robust cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from .normal import Noise, evaluate, normal_equations, scales, weighted
from .sampled import Sampled
from .start import State
from .unknowns import Knowns, Unknowns

#: Steps at most in one round, and the relative gain below which a round ends.
STEPS = 12
ENOUGH = 1e-4
#: Rounds with the scales of the residuals found anew.
ROUNDS = 3
#: Share that a network's residuals count for: its errors are alike over a picture.
SHARE = 0.05


@dataclass(frozen=True)
class Solved:
    """A state, the noise found on the way, and how many steps it took."""

    state: State
    noise: Noise
    cost: float
    steps: int


def solve(
    sampled: Sampled,
    state: State,
    knowns: Knowns = Knowns(),
    *,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    share: float = SHARE,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Solved:
    """Improve a state until it gains no more. `progress` is told the fraction done and may raise to stop."""
    unknowns = Unknowns(sampled.edges, len(state.log_focal), knowns)
    state = with_knowns(state, knowns)
    taken = 0
    for number in range(rounds):
        noise = scales(sampled, evaluate(sampled, state), share)
        residuals = evaluate(sampled, state)
        cost, weights = weighted(sampled, residuals, noise)
        damping = 1e-4
        for step_number in range(steps):
            progress((number + step_number / steps) / rounds)
            normal = normal_equations(sampled, state, residuals, weights)
            before = cost
            for _ in range(6):
                system = unknowns.assemble(normal, state, damping)
                step = system.step(damping)
                if step is not None:
                    trial = unknowns.moved(state, step, system, normal)
                    trial_residuals = evaluate(sampled, trial)
                    trial_cost, trial_weights = weighted(sampled, trial_residuals, noise)
                    if trial_cost < cost:
                        state, residuals, cost, weights = trial, trial_residuals, trial_cost, trial_weights
                        damping = max(damping / 10, 1e-8)
                        break
                damping *= 10
            taken += 1
            if before - cost < ENOUGH * abs(cost):
                break
    return Solved(state, noise, cost, taken)


def with_knowns(state: State, knowns: Knowns) -> State:
    """The state with what is known put in."""
    if knowns.focal_px is not None:
        state = replace(state, log_focal=knowns.focal_px.to(state.log_focal).log())
    elif not knowns.per_frame_focal:
        state = replace(state, log_focal=state.log_focal.median().expand_as(state.log_focal).clone())
    if knowns.locked:
        eye = torch.eye(4, dtype=torch.float64, device=state.log_focal.device)
        state = replace(state, camera_from_world=eye.expand(len(state.log_focal), 4, 4).clone())
    return state
