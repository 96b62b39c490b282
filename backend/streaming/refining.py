"""The camera of a streamed clip refined: windows of neighbouring frames aligned by what their pictures show.

Each window is an alignment of its own: depth as the network has it, points followed from picture to picture, and the
solver of `backend/sparse`, which finds cameras and a size for every frame's depth. Only ties between frames leave it,
so memory does not grow but for these; together with what the network says, and with loops, they make the path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch

from ..geometry.rigid import Similarity, poses_from
from ..geometry.trajectory import has_pose
from ..matching.matches import Matches
from ..sparse.canonical import CanonicalView, anchor_pixels, spread
from ..sparse.problem import PairMatches, SparseProblem
from ..sparse.solve import Knowns, solve_sparse
from .following import View, corners, follow, motion, seen_from
from .pose_graph import Nodes, Tie, solve_graph
from .poses import picture_step

#: Frames of a window, and how many of them the next one has too.
LENGTH, OVERLAP = 16, 5
#: How far apart in time frames of a window are matched.
GAPS = (1, 2, 4, 8)
#: Points followed from a frame.
POINTS = 180
#: A loop that misses by so many standard deviations after all is a wrong one.
REJECT = 5.0
#: Frames that are compared to learn how wrong the network's steps are, what they are taken to be without, and at least.
LEAST_TESTED, UNTESTED, LEAST_NOISE = 8, (0.02, 0.02, 0.05), 1e-4
#: Errors of a tie from a window: log scale, turn (radians), shift as a share of the frame's middle depth.
TIE_NOISE = (0.004, 0.001, 0.0015)


class Frames(Protocol):
    """The clip as refinement reads it: views one by one, in order of `len`."""

    def __len__(self) -> int: ...

    def view(self, n: int) -> View:
        """Frame n; its depth is in the frame's own unit."""


class LoopSource(Protocol):
    """What finds ties between frames that are far apart in time: `LoopFinder` of `loops.py`."""

    def __call__(
        self, frames: Frames, nodes: Nodes, placed: np.ndarray, progress: Callable[[float], None]
    ) -> Sequence[Tie]: ...


@dataclass(frozen=True)
class RefinedPath:
    """`world_from_camera` (T, 4, 4), NaN where there is none, and `scale` (T,) that a frame's depth must be multiplied
    by to have the world's unit. `tied` (T,) bool: frames whose pictures say how they stand to their neighbours; for
    others the network does. `loops` are the pairs of frames that hold the path together, `rejected` those that were
    found but contradict it."""

    world_from_camera: np.ndarray
    scale: np.ndarray
    tied: np.ndarray
    loops: tuple[tuple[int, int], ...] = ()
    rejected: tuple[tuple[int, int], ...] = ()


def refine_stream(
    frames: Frames,
    world_from_camera: np.ndarray,
    scale: np.ndarray,
    loops: LoopSource | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RefinedPath:
    """The path of (T, 4, 4) streamed poses and (T,) scales of depth, refined; the first frame that has a pose keeps it.

    Frames without a pose get one where their pictures tie them to others. `loops` finds ties between frames that are
    far apart in time, given the frames, their places by the windows alone, which (T,) have one, and a `progress` of its
    own. That is told the fraction done and may raise to stop.
    """
    count = len(frames)
    ties: list[Tie] = []
    for found in window_ties(frames, world_from_camera, scale, lambda done: progress(0.8 * done)):
        ties += found
    tied = np.zeros(count, bool)
    for tie in ties:
        tied[[tie.i, tie.j]] = True
    start, placed = _chained(world_from_camera, scale, ties)
    ties += network_ties(world_from_camera, scale, start, ties)
    path, kept, rejected = _solved(start, placed, ties, [])
    if loops is not None and placed.any():
        found = [
            t
            for t in loops(frames, path, placed, lambda done: progress(0.8 + 0.2 * done))
            if placed[t.i] and placed[t.j]
        ]
        path, kept, rejected = _solved(path, placed, ties, found)
    progress(1.0)
    nan = np.where(placed, 0.0, np.nan)
    poses = poses_from(path.rotation, path.shift) + nan[:, None, None]
    return RefinedPath(
        *_in_the_networks_unit(poses, np.exp(path.log_scale), scale, placed), tied, tuple(kept), tuple(rejected)
    )


def window_ties(
    frames: Frames, world_from_camera: np.ndarray, scale: np.ndarray, progress: Callable[[float], None]
) -> Iterator[list[Tie]]:
    """The ties between neighbouring frames of each window in turn; the views of one are held."""
    count = len(frames)
    begins = [*range(0, max(count - LENGTH, 0), LENGTH - OVERLAP), max(count - LENGTH, 0)]
    views: dict[int, View] = {}
    pairs: dict[tuple[int, int], Matches] = {}
    for number, begin in enumerate(begins):
        window = range(begin, min(begin + LENGTH, count))
        views = {n: views[n] if n in views else frames.view(n) for n in window}
        pairs = {p: m for p, m in pairs.items() if p[0] >= begin}
        for part, gap in enumerate(GAPS):
            progress((number + 0.5 * part / len(GAPS)) / len(begins))
            for i in window[:-gap]:
                if (i, i + gap) not in pairs:
                    pairs[i, i + gap] = _match(views, i, i + gap, world_from_camera, scale)
        inside = {p: m for p, m in pairs.items() if p[0] in views and p[1] in views and len(m)}
        yield _align(window, views, inside, scale) if inside else []


def network_ties(world_from_camera: np.ndarray, scale: np.ndarray, chained: Nodes, ties: Sequence[Tie]) -> list[Tie]:
    """What the streamed poses say of neighbouring frames that no window has tied.

    It is taken to be as wrong as it is, by the chain of windows, where these have tied frames.
    """
    known = np.flatnonzero(has_pose(world_from_camera))
    streamed = Nodes.of(
        [_similarity(p, s) if np.isfinite(p).all() else Similarity() for p, s in zip(world_from_camera, scale)]
    )
    by_window = {(t.i, t.j) for t in ties}
    i, j = known[:-1], known[1:]
    said = streamed[i].inverse().after(streamed[j])
    seen = chained[i].inverse().after(chained[j])
    both = np.array([pair in by_window for pair in zip(i, j)], bool)
    noise = np.array(UNTESTED)
    if both.sum() >= LEAST_TESTED:
        off = np.abs(seen[both].inverse().after(said[both]).vectors())
        noise = np.array([1.4826 * np.median(off[:, part]) for part in (slice(0, 1), slice(1, 4), slice(4, 7))])
    return [
        Tie(int(i[k]), int(j[k]), said.similarity(k), tuple(np.maximum(noise, LEAST_NOISE) * np.sqrt(j[k] - i[k])))
        for k in np.flatnonzero(~both)
    ]


def _match(views: dict[int, View], i: int, j: int, world_from_camera: np.ndarray, scale: np.ndarray) -> Matches:
    """Pixels of frame i found in frame j, which agree with one camera; none where they do not."""
    guess = None
    if np.isfinite(world_from_camera[[i, j]]).all():
        guess = (
            _similarity(world_from_camera[i], scale[i]).inverse().compose(_similarity(world_from_camera[j], scale[j]))
        )
    a, b = views[i], views[j]
    step = picture_step(a, b, guess)
    if step is None:
        return _matches(np.zeros((0, 2)), np.zeros((0, 2)))
    # once more from where the camera is now known to be: more points find home
    xy_a = corners(a, POINTS)
    start, _ = seen_from(b, step.b_from_a, a.points(xy_a, a.depth_at(xy_a)))
    usable = np.isfinite(start).all(1)
    xy_a, start = xy_a[usable], start[usable]
    xy_b, ok = follow(a, b, xy_a, start)
    found = motion(a, b, xy_a[ok], xy_b[ok])
    if found is None:
        return _matches(np.zeros((0, 2)), np.zeros((0, 2)))
    return _matches(xy_a[ok][found.inliers], xy_b[ok][found.inliers])


def _matches(xy_a: np.ndarray, xy_b: np.ndarray) -> Matches:
    return Matches(torch.from_numpy(np.asarray(xy_a, np.float64)), torch.from_numpy(xy_b), torch.ones(len(xy_a)))


def _align(window: range, views: dict[int, View], pairs: dict[tuple[int, int], Matches], scale) -> list[Tie]:
    """The ties between neighbours of a window that could be aligned."""
    first = views[window[0]]
    height, width = first.grey.shape
    problem = SparseProblem(
        [_canonical(views[n], float(scale[n])) for n in window],
        [PairMatches(i - window[0], j - window[0], m) for (i, j), m in sorted(pairs.items())],
        (width, height),
    )
    knowns = Knowns(np.array([views[n].focal_px for n in window]), principal_point=first.centre)
    solved = solve_sparse(problem, "locked", knowns)
    nodes = {
        n: _similarity(solved.world_from_camera[k], scale[n] * np.exp(solved.log_size[k]))
        for k, n in enumerate(window)
        if solved.registered[k]
    }
    ties = []
    for i, j in pairwise(nodes):
        depth = views[i].depth
        middle = float(np.median(depth[depth > 0]))
        size, turn, shift = TIE_NOISE
        ties.append(Tie(i, j, nodes[i].inverse().compose(nodes[j]), (size, turn, shift * middle)))
    return ties


def _canonical(view: View, scale: float) -> CanonicalView:
    """A frame as the solver takes it, its depth in about the world's unit."""
    depth = torch.from_numpy(view.depth).double() * scale
    known = depth > 0
    middle = depth[known].median() if bool(known.any()) else depth.new_tensor(1.0)
    depth = torch.where(known, depth, middle)
    core = depth.flatten()[anchor_pixels(~known)]
    height, width = view.depth.shape
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    points = torch.from_numpy(view.points(np.stack([x, y], 1), depth.numpy().reshape(-1)))
    return CanonicalView(points.reshape(height, width, 3), depth / spread(core), known.float(), view.focal_px, core)


def _chained(world_from_camera: np.ndarray, scale: np.ndarray, ties: Sequence[Tie]) -> tuple[Nodes, np.ndarray]:
    """Where the windows' ties lead from frame to frame, and which (T,) frames have a place. Where no tie leads on, the
    network's step from the frame before does."""
    count = len(world_from_camera)
    known = has_pose(world_from_camera)
    step: dict[int, Tie] = {}
    for tie in ties:
        step.setdefault(tie.j, tie)
    nodes: list[Similarity | None] = [None] * count
    last = None
    for n in range(count):
        tie = step.get(n)
        if tie is not None and nodes[tie.i] is not None:
            nodes[n] = nodes[tie.i].compose(tie.i_from_j)
        elif known[n]:
            own = _similarity(world_from_camera[n], scale[n])
            nodes[n] = own
            if last is not None:
                nodes[n] = nodes[last].compose(_similarity(world_from_camera[last], scale[last]).inverse()).compose(own)
        if nodes[n] is not None and known[n]:
            last = n
    # frames before the first pose
    for tie in reversed(ties):
        if nodes[tie.i] is None and nodes[tie.j] is not None:
            nodes[tie.i] = nodes[tie.j].compose(tie.i_from_j.inverse())
    placed = np.array([node is not None for node in nodes])
    return Nodes.of([node or Similarity() for node in nodes]), placed


def _solved(start: Nodes, placed: np.ndarray, ties: Sequence[Tie], loops: Sequence[Tie]):
    """The graph of placed frames solved; loops that contradict it at the end are left out, and it is solved again."""
    number = np.cumsum(placed) - 1
    rejected: list[Tie] = []
    loops = list(loops)
    while True:
        every = [
            Tie(int(number[t.i]), int(number[t.j]), t.i_from_j, t.noise)
            for t in (*ties, *loops)
            if placed[t.i] and placed[t.j]
        ]
        inside, missed = solve_graph(start[placed], every)
        wrong = missed[len(every) - len(loops) :] > REJECT if loops else np.zeros(0, bool)
        if not wrong.any():
            break
        rejected += [t for t, bad in zip(loops, wrong) if bad]
        loops = [t for t, bad in zip(loops, wrong) if not bad]
    whole = Nodes(start.log_scale.copy(), start.rotation.copy(), start.shift.copy())
    whole.log_scale[placed], whole.rotation[placed], whole.shift[placed] = (
        inside.log_scale,
        inside.rotation,
        inside.shift,
    )
    return whole, [(t.i, t.j) for t in loops], [(t.i, t.j) for t in rejected]


def _in_the_networks_unit(poses: np.ndarray, now: np.ndarray, before: np.ndarray, placed: np.ndarray):
    """Poses and scales in the unit that the network has on the whole, about the first placed camera."""
    if not placed.any():
        return poses, now
    factor = float(np.exp(np.median(np.log(before[placed] / now[placed]))))
    origin = poses[placed][0, :3, 3]
    poses = poses.copy()
    poses[:, :3, 3] = origin + factor * (poses[:, :3, 3] - origin)
    return poses, np.where(placed, now * factor, before)


def _similarity(pose: np.ndarray, scale: float) -> Similarity:
    return Similarity(float(scale), pose[:3, :3], pose[:3, 3])
