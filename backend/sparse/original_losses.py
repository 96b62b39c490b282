"""The original's losses: matches that should meet in space, then in the pictures. specs/mast3r.md section 3.5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..wire import UserError
from .anchors import anchored, match_pixels
from .original_cameras import Placed, Spots, gathered
from .problem import SparseProblem

COARSE_POWER, FINE_POWER, WEAK_POWER = 1.5, 0.5, 1.1
WEAK_SHARE = 0.01
_NEAREST = 1e-3
_PIXELS = (-1000.0, 2000.0)


@dataclass(frozen=True)
class Meetings:
    """M matches of pairs that are sure enough: `spots` (2 M,), first one end of each and then the other, and
    `confidence` (M,)."""

    spots: Spots
    confidence: Tensor


@dataclass(frozen=True)
class Weak:
    """K match pixels of frames in weak pairs, `spots`; `target` (K, 3) is where the pair says that they are, in the
    camera of `target_frame` (K,), with `confidence` (K,)."""

    spots: Spots
    target_frame: Tensor
    target: Tensor
    confidence: Tensor


def tables(problem: SparseProblem, least_confidence: float) -> tuple[Meetings, Weak | None]:
    """What the losses gather from: pairs with a match of more than `least_confidence`, and all others.

    A weak pair holds all match pixels of either frame to the middle value of their block: the one at its corner.
    Raises UserError where every pair is weak.
    """
    strong, weak_pairs = [], set()
    for pair in problem.pairs:
        if len(pair.matches) and pair.matches.confidence.max().item() > least_confidence:
            strong.append(pair)
        else:
            weak_pairs.add((pair.i, pair.j))
    if not strong:
        raise UserError("No two frames have a match that is sure enough", "lower the least confidence of matches")
    views = problem.views
    ends = [Spots.of(p.i, anchored(p.matches.xy_1, views[p.i])) for p in strong]
    ends += [Spots.of(p.j, anchored(p.matches.xy_2, views[p.j])) for p in strong]
    spots = gathered(ends)
    confidence = torch.cat([p.matches.confidence for p in strong]).to(spots.ratio)
    pixels = match_pixels(views, problem.pairs)
    held = []
    for w in problem.weak:
        own = Spots.of(w.seen, pixels[w.seen])
        if (min(w.seen, w.from_), max(w.seen, w.from_)) in weak_pairs and len(own.anchor):
            target, certainty = (t.to(own.ratio).flatten(0, 1)[own.anchor] for t in (w.points, w.confidence))
            held.append(Weak(own, torch.full_like(own.anchor, w.from_), target, certainty))
    weak = None
    if held:
        rest = (torch.cat([getattr(h, name) for h in held]) for name in ("target_frame", "target", "confidence"))
        weak = Weak(gathered([h.spots for h in held]), *rest)
    return Meetings(spots, confidence), weak


def coarse_loss(placed: Placed, meetings: Meetings, weak: Weak | None) -> Tensor:
    """How far the ends of matches are apart in space."""
    one, two = placed.points(meetings.spots).chunk(2)
    return _mean(meetings.confidence, robust(one - two, COARSE_POWER)) + _weak_loss(placed, weak)


def fine_loss(placed: Placed, meetings: Meetings, weak: Weak | None) -> Tensor:
    """How far from a pixel the other end of its match is seen, in both pictures."""
    one, two = placed.points(meetings.spots).chunk(2)
    frame = meetings.spots.frame
    x, y, z = placed.to_camera(frame, torch.cat([two, one])).unbind(-1)
    slope = torch.stack([x, y], -1) / z.clip(min=_NEAREST)[:, None]
    seen = (placed.focal_px[frame, None] * slope + placed.centre_px[frame]).clip(*_PIXELS)
    confidence = meetings.confidence.repeat(2)
    return _mean(confidence, robust(meetings.spots.xy - seen, FINE_POWER)) + _weak_loss(placed, weak)


def _weak_loss(placed: Placed, weak: Weak | None) -> Tensor | float:
    if weak is None:
        return 0.0
    apart = placed.points(weak.spots) - placed.to_world(weak.target_frame, weak.target)
    return WEAK_SHARE * _mean(weak.confidence, robust(apart, WEAK_POWER))


def robust(difference: Tensor, power: float) -> Tensor:
    """(M,) of (M, K): length to the given power, with slope 1 at 0."""
    offset = (1 / power) ** (1 / (power - 1))
    return (torch.linalg.vector_norm(difference, dim=-1) + offset) ** power - offset**power


def _mean(weight: Tensor, value: Tensor) -> Tensor:
    return (weight * value).sum() / weight.sum()
