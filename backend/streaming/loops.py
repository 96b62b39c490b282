"""Where a walk comes back to what it has seen: pairs of frames far apart in time that show the same place, verified.

A pair is worth a look when the cameras stand near each other and look the same way, by the path so far with the drift
it may have, or when the pictures look alike on the whole. It is a loop when features that match agree on one camera,
points followed from there do too, and both ways, there and back, say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..geometry.rigid import Similarity, rotation_angles_deg, similarity_of, vector_of
from ..localise.classic import ClassicMatcher
from ..localise.found import Picture
from ..sparse.retrieval import Whitening, pooled, strongest
from .following import Motion, View, corners, follow, motion, seen_from
from .pose_graph import Nodes, Tie
from .refining import Frames

#: Errors of a tie: log scale, turn (radians), shift as a share of the frame's middle depth and of the way between.
TIE_SCALE, TIE_TURN, TIE_SHIFT, TIE_WAY = 0.015, 0.004, 0.003, 0.02
#: Features of a picture, and those of them that tell pictures apart on the whole.
FEATURES, WORDS = 500, 200
#: Frames that are compared at most.
MOST_KEYS = 250
#: Points followed to verify a pair, and how many of them must agree.
POINTS, LEAST = 250, 25
#: How far apart there and back may end: degrees, share of the middle depth, log scale.
BACK_DEG, BACK_SHIFT, BACK_SCALE = 2.0, 0.06, 0.08


@dataclass(frozen=True)
class LoopOptions:
    """Every how many frames one is compared (`every`), from how many frames on two are `apart` in time, and how many
    earlier ones a frame is compared with: the `nearest` by the path and the most `alike`. `drift` is how far off the
    path may be, as a share of the way between two frames."""

    every: int = 4
    apart: int = 30
    nearest: int = 3
    alike: int = 2
    drift: float = 0.12


class LoopFinder:
    """Finds ties between frames far apart in time; called by `refine_stream`."""

    def __init__(self, options: LoopOptions = LoopOptions()) -> None:
        self.options = options

    def __call__(
        self,
        frames: Frames,
        nodes: Nodes,
        placed: np.ndarray,
        progress: Callable[[float], None] = lambda fraction: None,
    ) -> list[Tie]:
        """Verified ties between some of the placed frames."""
        every = max(self.options.every, -(-int(placed.sum()) // MOST_KEYS))
        keys = np.flatnonzero(placed)[::every]
        matcher = ClassicMatcher(FEATURES)
        words, middles = [], []
        for k, n in enumerate(keys):
            progress(0.5 * k / len(keys))
            view = frames.view(int(n))
            words.append(torch.from_numpy(matcher.features(_picture(int(n), view)).descriptors))
            known = view.depth[view.depth > 0]
            middles.append(float(np.median(known)) * np.exp(nodes.log_scale[n]) if len(known) else np.nan)
        pairs = self._worth_a_look(keys, nodes, np.array(middles), _likeness(words))
        ties = []
        for k, (i, j) in enumerate(pairs):
            progress(0.5 + 0.5 * k / len(pairs))
            tie = _verified(int(i), int(j), frames.view(int(i)), frames.view(int(j)), matcher)
            if tie is not None:
                ties.append(tie)
        return ties

    def _worth_a_look(self, keys, nodes: Nodes, middle: np.ndarray, likeness: np.ndarray) -> list[tuple[int, int]]:
        """(i, j) with i < j: by where the cameras stand, and by how alike the pictures are."""
        o = self.options
        places, ahead = nodes.shift[keys], nodes.rotation[keys][:, :, 2]
        travelled = np.r_[0, np.cumsum(np.linalg.norm(np.diff(places, axis=0), axis=1))]
        pairs = set()
        for b in range(len(keys)):
            earlier = np.flatnonzero(keys <= keys[b] - o.apart)
            if not len(earlier):
                continue
            away = np.linalg.norm(places[earlier] - places[b], axis=1)
            near = 0.5 * np.nan_to_num(middle[b]) + o.drift * (travelled[b] - travelled[earlier])
            turned = np.degrees(np.arccos((ahead[earlier] @ ahead[b]).clip(-1, 1)))
            may = (away < near) & (turned < 60)
            cost = away / np.maximum(near, 1e-9) + turned / 60
            chosen = earlier[may][np.argsort(cost[may], kind="stable")[: o.nearest]]
            like = earlier[np.argsort(-likeness[b, earlier], kind="stable")[: o.alike]]
            pairs |= {(keys[a], keys[b]) for a in (*chosen, *like)}
        return sorted(pairs)


def _picture(n: int, view: View) -> Picture:
    return Picture(n, np.repeat(view.grey[..., None], 3, axis=2))


def _likeness(words: list[torch.Tensor]) -> np.ndarray:
    """(K, K) how alike pictures are on the whole, by their rarest features."""
    some = [w for w in words if len(w)]
    if not some:
        return np.zeros((len(words), len(words)))
    whiten = Whitening.learned(some, 64)
    whole = [pooled(strongest(whiten(w), WORDS)[0]) if len(w) else torch.zeros(whiten.matrix.shape[1]) for w in words]
    return (torch.stack(whole) @ torch.stack(whole).T).numpy()


def _verified(i: int, j: int, a: View, b: View, matcher: ClassicMatcher) -> Tie | None:
    """The tie of two frames, None where they do not show the same place surely enough."""
    found = matcher.match(_picture(i, a), _picture(j, b), np.ones(b.grey.shape, bool))
    # features count from a picture's edge, views from the first pixel's centre
    there = motion(a, b, found.plate_xy - 0.5, found.map_xy - 0.5)
    if there is None:
        return None
    there = _followed(a, b, there)
    if there is None:
        return None
    back = _followed(b, a, there.turned_round())
    if back is None:
        return None
    forth, home = there.a_from_b, back.a_from_b
    round_trip = forth.compose(home)
    known = a.depth[a.depth > 0]
    middle = float(np.median(known))
    if (
        rotation_angles_deg(round_trip.rotation) > BACK_DEG
        or np.linalg.norm(round_trip.translation) > BACK_SHIFT * middle
        or abs(np.log(round_trip.scale)) > BACK_SCALE
    ):
        return None
    between = _between(forth, home.inverse())
    shift = TIE_SHIFT * middle + TIE_WAY * float(np.linalg.norm(between.translation))
    return Tie(i, j, between, (TIE_SCALE, TIE_TURN, shift))


def _followed(a: View, b: View, start: Motion) -> Motion | None:
    """The motion again, by points of `a` followed from where `start` has them in `b`."""
    xy_a = corners(a, POINTS)
    guess, _ = seen_from(b, start.b_from_a, a.points(xy_a, a.depth_at(xy_a)))
    height, width = b.grey.shape
    inside = (guess > 0).all(1) & (guess < (width - 1, height - 1)).all(1)
    if inside.sum() < LEAST:
        return None
    xy_b, ok = follow(a, b, xy_a[inside], guess[inside])
    found = motion(a, b, xy_a[inside][ok], xy_b[ok])
    return found if found is not None and found.inliers.sum() >= LEAST else None


def _between(one: Similarity, other: Similarity) -> Similarity:
    """Half way from one to another that is near."""
    return one.compose(similarity_of(0.5 * vector_of(one.inverse().compose(other))))
