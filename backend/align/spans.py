"""Very long clips: the solve over all frames, done in spans that a linear system can hold, between fixed neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from .sampled import Sampled
from .solve import Solved, solve
from .start import State
from .unknowns import NOTHING_KNOWN, Knowns

#: Most unknowns that are solved at once: a dense system of so many takes 0.5 GB.
MOST = 8000
#: Frames of a span, by which the next one begins half a span later, and how often the clip is gone through.
SPAN, SWEEPS = 200, 2


def solve_whole(
    sampled: Sampled,
    state: State,
    knowns: Knowns = NOTHING_KNOWN,
    progress: Callable[[float], None] = lambda fraction: None,
    *,
    most: int = MOST,
    span: int = SPAN,
) -> Solved:
    """`solve`, of any number of frames: at once where `most` unknowns allow it, else in spans.

    The lens is then taken from the state, and frames beside a span keep their cameras while it is solved.
    """
    frames = len(state.log_focal)
    if 6 * frames + len(sampled.edges) <= most:
        return solve(sampled, state, knowns, progress=progress)
    reach = int((sampled.edges[:, 1] - sampled.edges[:, 0]).abs().max())
    begins = list(range(0, frames, span // 2))
    total = SWEEPS * len(begins)
    for turn in range(total):
        begin = begins[turn % len(begins)]
        own = slice(begin, min(begin + span, frames))
        around = slice(max(0, begin - reach), min(frames, own.stop + reach))
        low, high = sampled.edges.min(dim=1).values, sampled.edges.max(dim=1).values
        inside = (low >= around.start) & (high < around.stop)
        mine = inside & (high >= own.start) & (low < own.stop)
        if not bool(mine.any()):
            continue
        poses = state.camera_from_world[around].clone()
        if knowns.camera_from_world is None:
            free = slice(own.start - around.start, own.stop - around.start)
            given = poses.clone()
            given[free] = torch.nan
            if begin == 0:  # nothing before it: its first placed camera is the origin
                first = int(torch.nonzero(state.placed[around])[0])
                given[first] = poses[first]
        else:
            given = poses.clone()
            unknown = ~torch.isfinite(knowns.camera_from_world[around]).all(-1).all(-1)
            at = torch.arange(around.start, around.stop, device=poses.device)
            given[unknown.to(poses.device) & (at >= own.start) & (at < own.stop)] = torch.nan
        part = State(poses, state.log_scale[mine], state.log_focal[around], state.log_depth[around])
        solved = solve(
            sampled.where(mine).between(torch.arange(frames, device=poses.device) - around.start),
            part,
            replace(knowns, camera_from_world=given, focal_px=state.log_focal[around].exp(), locked=False),
            rounds=1,
            progress=lambda fraction, turn=turn: progress((turn + fraction) / total),
        )
        state = _put(state, solved.state, around, mine)
    return replace(solved, state=state)


def _put(state: State, part: State, frames: slice, pairs: torch.Tensor) -> State:
    """The state with a part of its frames and pairs replaced."""
    poses, depth, scale = state.camera_from_world.clone(), state.log_depth.clone(), state.log_scale.clone()
    poses[frames], depth[frames], scale[pairs] = part.camera_from_world, part.log_depth, part.log_scale
    return replace(state, camera_from_world=poses, log_depth=depth, log_scale=scale)
