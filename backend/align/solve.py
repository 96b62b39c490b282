"""The solver: cameras, lens, scales and depth of sampled pairs, by damped Gauss-Newton on a robust cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ..geometry.rigid import Similarity, mean_rotation
from ..geometry.trajectory import has_pose
from .normal import Noise, cost_of, evaluate, normal_equations, scales
from .sampled import Sampled
from .start import State
from .unknowns import NOTHING_KNOWN, Knowns, Unknowns

#: Steps at most in one round, and the relative gain below which a round ends.
STEPS = 12
ENOUGH = 3e-4
#: Rounds with the scales of the residuals found anew.
ROUNDS = 2
#: Share that a network's residuals count for: its errors are alike over a picture.
SHARE = 0.05
#: A pair says nothing when half of its pixels land further off than this share of the focal length, or this far in log
#: depth, or when the network's confidence is less than this above 1.
PLACE_LIMIT, DEPTH_LIMIT, CONFIDENCE_LIMIT = 0.15, 0.4, 0.02
#: A frame is placed when at least this share of its pairs says something.
GOOD_SHARE = 0.34


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
    knowns: Knowns = NOTHING_KNOWN,
    *,
    rounds: int = ROUNDS,
    steps: int = STEPS,
    share: float = SHARE,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Solved:
    """Improve a state until it gains no more. `progress` is told the fraction done and may raise to stop."""
    unknowns = Unknowns(sampled.edges, len(state.log_focal), knowns)
    taken = 0
    for number in range(rounds):
        noise = scales(sampled, state, share)
        cost = cost_of(sampled, state, noise)
        damping = 1e-4
        for step_number in range(steps):
            progress((number + step_number / steps) / rounds)
            normal = normal_equations(sampled, state, noise)
            before = cost
            for _ in range(6):
                system = None
                system = unknowns.assemble(normal, state, damping)
                step = system.step(damping)
                if step is not None:
                    trial = unknowns.moved(state, step, system, normal)
                    trial_cost = cost_of(sampled, trial, noise)
                    if trial_cost < cost:
                        state, cost = trial, trial_cost
                        damping = max(damping / 10, 1e-8)
                        break
                damping *= 10
            normal = system = None  # not held while the next ones are made
            taken += 1
            if before - cost < ENOUGH * abs(cost):
                break
    return Solved(state, noise, cost, taken)


def with_knowns(state: State, knowns: Knowns) -> State:
    """The state with what is known put in; known poses also give the world's scale, where they travel."""
    placed = state.placed
    if knowns.focal_px is not None:
        state = replace(state, log_focal=knowns.focal_px.to(state.log_focal).log())
    elif not knowns.per_frame_focal:
        state = replace(state, log_focal=state.log_focal.median().expand_as(state.log_focal).clone())
    poses = state.camera_from_world
    if knowns.locked:
        eye = torch.eye(4, dtype=poses.dtype, device=poses.device).expand_as(poses)
        state = replace(state, camera_from_world=torch.where(placed[:, None, None], eye, torch.nan))
    elif knowns.camera_from_world is not None:
        given = knowns.camera_from_world.to(poses)
        known = torch.isfinite(given).all(-1).all(-1)
        to_known = _into_known_world(poses, given)
        moved = torch.linalg.inv(
            torch.as_tensor(
                to_known.apply_to_poses(np.linalg.inv(poses.cpu().numpy())), dtype=poses.dtype, device=poses.device
            )
        )
        state = replace(
            state,
            camera_from_world=torch.where(known[:, None, None], given, moved),
            log_scale=state.log_scale + np.log(to_known.scale),
            log_depth=state.log_depth + float(np.log(to_known.scale)),
        )
    return state


def _into_known_world(camera_from_world: torch.Tensor, known_camera_from_world: torch.Tensor) -> Similarity:
    """What brings the solved cameras to the known ones; of scale 1 where these stand still.

    The turn is from the orientations, since the centres of a path that is nearly straight leave one open.
    """
    ours, theirs = (np.linalg.inv(a.cpu().numpy()) for a in (camera_from_world, known_camera_from_world))
    both = has_pose(ours) & has_pose(theirs)
    if not both.any():
        return Similarity(1.0, np.eye(3), np.zeros(3))
    ours, theirs = ours[both], theirs[both]
    turn = mean_rotation(theirs[:, :3, :3] @ np.swapaxes(ours[:, :3, :3], 1, 2))
    from_mean, to_mean = ours[:, :3, 3].mean(0), theirs[:, :3, 3].mean(0)
    a, b = (ours[:, :3, 3] - from_mean) @ turn.T, theirs[:, :3, 3] - to_mean
    extent, along = float((a * a).sum()), float((a * b).sum())
    scale = along / extent if extent > 0 and along > 1e-12 * extent else 1.0
    return Similarity(scale, turn, to_mean - scale * turn @ from_mean)


def good_pairs(sampled: Sampled, state: State) -> torch.Tensor:
    """(E,) bool: pairs whose points fall near their own pixels, at depths near those of other pairs."""
    r = evaluate(sampled, state)
    focal = state.log_focal.exp().float()
    i, j = sampled.edges.T

    def middle(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(torch.where(weights > 0, values, torch.nan).nanmedian(dim=-1).values, torch.inf)

    place = torch.maximum(
        middle(r.place_i.norm(dim=-1), sampled.weight_i) / focal[i],
        middle(r.place_j.norm(dim=-1), sampled.weight_j * r.q_front) / focal[j],
    )
    depth = torch.maximum(
        middle(r.depth_i.abs(), sampled.weight_i), middle(r.depth_j.abs(), sampled.weight_j * r.q_front)
    )
    in_front = r.q_front.float().mean(-1) > 0.5
    sure = torch.minimum(sampled.weight_i.mean(-1), sampled.weight_j.mean(-1)) > CONFIDENCE_LIMIT
    return (place < PLACE_LIMIT) & (depth < DEPTH_LIMIT) & in_front & sure


def placed_frames(sampled: Sampled, state: State) -> torch.Tensor:
    """(T,) bool: frames that enough of their pairs agree on. The worst frame leaves first, its pairs with it."""
    good = good_pairs(sampled, state).cpu()
    edges = sampled.edges.cpu()
    frames = len(state.log_focal)
    placed = state.placed.cpu()
    others = edges[:, 0] != edges[:, 1]
    while bool(placed.any()):
        counts = placed[edges].all(-1) & others
        met = torch.bincount(edges[counts].flatten(), minlength=frames)
        fine = torch.bincount(edges[counts & good].flatten(), minlength=frames)
        share = torch.where(placed, fine / met.clamp(min=1), torch.inf)
        worst = int(share.argmin())
        if float(share[worst]) >= GOOD_SHARE:
            break
        placed[worst] = False
    return placed.to(state.log_focal.device)
