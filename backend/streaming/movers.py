"""What moves: places of a frame that other frames of the clip look right through, and so were empty then.

Of a thing that moves, other frames see the ground behind: before it came, and after it has gone. What frames agree on
stands still; what is hidden from a frame, or outside of it, that frame cannot judge. A score is in units of the
threshold, as those of optical flow are (backend/align/motion.py), so that either can be asked, or both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry.camera import rays
from .sight import Sight

#: How many frames away the others are that a frame is compared with.
DISTANCES = (1, 2, 4, 6, 8, 12, 16, 24, 32)
#: Standard deviations at a score of 1.
DEVIATIONS = 4.0
#: Standard deviation of a logarithm of depth, at least: what a network does not know of a surface.
DEPTH_FLOOR = 0.02
#: How many frames must see through a place.
WITNESSES = 2
#: Scores are cut here, so that a strong mover's edge stays where it is in a mean.
HIGHEST = 2.0
#: The quarter quantile of a normal distribution's size, in standard deviations.
QUARTER = 0.3186
#: Every how many pixels two frames are compared to learn how well they agree.
STEP = 4


@dataclass(frozen=True)
class PosedDepth:
    """One frame: `depth` (H, W) in the world's unit, 0 where unknown, `world_from_camera` (4, 4), `intrinsics` (4,).

    A camera that is not finite is unknown: the frame is not judged and does not judge.
    """

    depth: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray

    def sight(self, device: torch.device | str = "cpu") -> Sight:
        """The same as a judge of places."""
        camera_from_world = np.linalg.inv(self.world_from_camera)
        return Sight.of(*(torch.tensor(a, device=device) for a in (self.depth, camera_from_world, self.intrinsics)))

    def places(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """(H, W, 3) points in the world."""
        height, width = self.depth.shape
        turned = rays(self.intrinsics, width, height) @ self.world_from_camera[:3, :3].T
        points = turned * self.depth[..., None] + self.world_from_camera[:3, 3]
        return torch.tensor(points, dtype=torch.float32, device=device)


def scores_of(frame: PosedDepth, others: Iterable[Sight], device: torch.device | str = "cpu") -> torch.Tensor:
    """(H, W) how surely each pixel of a frame was empty to other frames, 0 where none can tell.

    How far the other frame sees past the place, in units of what the two frames' disagreement explains; of all others
    the `WITNESSES`-th most, so that one frame with an error of its own decides nothing.
    """
    places, known = frame.places(device), torch.tensor(frame.depth > 0, device=device)
    most = torch.zeros((WITNESSES, *frame.depth.shape), device=device)
    for other in others:
        look = other.look(places)
        theirs, ours = look.depth[::STEP, ::STEP], torch.where(known, look.z, 0.0)[::STEP, ::STEP]
        noise = DEVIATIONS * _disagreement(theirs, ours)
        said = torch.where(known, look.clearance() / noise, 0.0)
        for n in range(WITNESSES):
            most[n], said = torch.maximum(most[n], said), torch.minimum(most[n], said)
    return most[-1].clamp(max=HIGHEST)


def _disagreement(theirs: torch.Tensor, ours: torch.Tensor) -> torch.Tensor:
    """() Standard deviation of the logarithm of depth between two frames, where both see the same.

    From the quarter quantile, so that it holds with movers and things hidden over half of the picture.
    """
    both = (theirs > 0) & (ours > 0)
    off = torch.log(theirs.clamp(min=1e-9) / ours.clamp(min=1e-9)).abs()
    quarter = torch.where(both, off, torch.nan).flatten().nanquantile(0.25)
    return torch.nan_to_num(quarter / QUARTER, 0.0).clamp(min=DEPTH_FLOOR)


class MoverWatch:
    """Frames in one at a time, in order; out comes what of the newest was empty before. Keeps a bounded past."""

    def __init__(self, distances: tuple[int, ...] = DISTANCES, device: torch.device | str = "cpu") -> None:
        self.distances, self.device = distances, device
        self._past: deque[Sight | None] = deque(maxlen=max(distances))

    def push(self, frame: PosedDepth) -> np.ndarray:
        """(H, W) float32 scores of the next frame, all 0 where its camera is unknown."""
        placed = bool(np.isfinite(frame.world_from_camera).all())
        if placed:
            others = [self._past[-d] for d in self.distances if d <= len(self._past)]
            scores = scores_of(frame, filter(None, others), self.device).cpu().numpy()
        else:
            scores = np.zeros(frame.depth.shape, np.float32)
        self._past.append(frame.sight(self.device) if placed else None)
        return scores


def mover_scores(
    frame: Callable[[int], PosedDepth],
    count: int,
    *,
    distances: tuple[int, ...] = DISTANCES,
    device: torch.device | str = "cpu",
) -> Iterator[np.ndarray]:
    """(H, W) float32 scores of each of `count` frames, in order, from those before and after it.

    `frame` gives one by its number; so many sights as twice the largest distance are held at a time.
    """
    reach = max(distances)
    sights: dict[int, Sight | None] = {}
    for t in range(count):
        for n in range(len(sights) and max(sights) + 1, min(t + reach + 1, count)):
            other = frame(n)
            sights[n] = other.sight(device) if np.isfinite(other.world_from_camera).all() else None
        sights.pop(t - reach - 1, None)
        if sights[t] is None:
            yield np.zeros(frame(t).depth.shape, np.float32)
            continue
        others = (sights.get(n) for d in distances for n in (t - d, t + d))
        yield scores_of(frame(t), filter(None, others), device).cpu().numpy()
