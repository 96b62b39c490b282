"""The solver's cost, and its normal equations over frames and anchors.

Unknowns of a frame (LOCAL): a turn and a step in its own axes, log size, log focal length, principal point. A size
scales all depths of its frame; a change of lens moves them as a dolly would, so that what is seen keeps its extent.
Of an anchor (its relief): by how much its log depth differs from what its frame predicts, held near 0. A match says
where the source's point is seen in the target, in px, and that it has the depth there that the target's anchor has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse
from scipy.spatial.transform import Rotation

from .observations import Observations

#: Unknowns of one frame, and where they stand.
LOCAL = 10
SIZE, FOCAL, CENTRE = 6, 7, slice(8, 10)
#: Observations that are worked on at once.
CHUNK = 60_000
#: A point nearer to a camera than this share of its predicted depth there is not before it.
NEAREST = 0.02
#: Standard deviation of what all predicted log focal lengths are off by together.
COMMON_FOCAL = 0.1


@dataclass(frozen=True)
class State:
    """N frames: `rotation` (N, 3, 3) and `place` (N, 3), world from camera; `log_size`, `log_focal` (N,); `centre`
    (N, 2) of the principal point off the middle; `relief` (N * anchors,) of log depths off the prediction.
    """

    rotation: np.ndarray
    place: np.ndarray
    log_size: np.ndarray
    log_focal: np.ndarray
    centre: np.ndarray
    relief: np.ndarray

    def moved(self, step: np.ndarray, relief: np.ndarray) -> State:
        """By (N, LOCAL) and (N * anchors,)."""
        return State(
            self.rotation @ Rotation.from_rotvec(step[:, :3]).as_matrix(),
            self.place + np.einsum("nab,nb->na", self.rotation, step[:, 3:6]),
            self.log_size + step[:, SIZE],
            self.log_focal + step[:, FOCAL],
            self.centre + step[:, CENTRE],
            self.relief + relief,
        )


@dataclass(frozen=True)
class Noise:
    """Standard deviations: of matches in `pixel`s, of log `depth` between frames, and of what is held to a prior:
    `relief`, log `size`, log `focal`, `centre` in px. `sharp`: matches that are far off count for nothing; `joint`, not
    with it: one that is off in the picture is a wrong one, and says nothing of depth, too.
    """

    pixel: float
    depth: float
    relief: float
    size: float
    focal: float
    centre: float
    sharp: bool = False
    joint: bool = False


@dataclass(frozen=True)
class Held:
    """What `frames` (N,) bool are held to: `log_focal` (N,), at which depths were predicted, a common `log_size`.

    A lens that is not the predicted one keeps either the depth or the width of what was predicted. `with_focal` (N,) is
    how much of a change of lens goes into the size that keeps a frame's points nearest to the predicted ones.
    """

    frames: np.ndarray
    log_focal: np.ndarray
    with_focal: np.ndarray
    log_size: float = 0.0

    def size_off(self, state: State) -> np.ndarray:
        """(N,) of log sizes."""
        return state.log_size + self.with_focal * (state.log_focal - self.log_focal) - self.log_size


@dataclass(frozen=True)
class Views:
    """M observations seen in their targets: `pixel` (M, 2) and `log_depth` (M,) off there, 0 where not in `front` (M,).

    `point`, `seen` (M, 3): in the source's camera and in the target's; `rotation` (M, 3, 3): target from source.
    """

    pixel: np.ndarray
    log_depth: np.ndarray
    front: np.ndarray
    point: np.ndarray
    seen: np.ndarray
    rotation: np.ndarray

    @cached_property
    def pixel_square(self) -> np.ndarray:
        return (self.pixel * self.pixel).sum(-1)


def views(o: Observations, state: State, held: Held) -> Views:
    """What the state says of each observation."""
    focal, dolly = np.exp(state.log_focal), state.log_size + state.log_focal - held.log_focal
    depth = np.exp(o.log_depth + dolly[o.source] + state.relief[o.anchor])
    point = np.empty((len(o), 3))
    point[:, :2] = (o.pixel - state.centre[o.source]) * (depth / focal[o.source])[:, None]
    point[:, 2] = depth
    starts = meetings(o)[:-1]
    into = np.swapaxes(state.rotation[o.target[starts]], -1, -2)
    between = into @ state.rotation[o.source[starts]]
    shift = (into @ (state.place[o.source[starts]] - state.place[o.target[starts]])[..., None])[..., 0]
    which = np.repeat(np.arange(len(starts)), np.diff(meetings(o)))
    rotation = between[which]
    seen = (rotation @ point[..., None])[..., 0] + shift[which]
    predicted = o.target_log_depth + dolly[o.target] + state.relief[o.target_anchor]
    front = seen[:, 2] > NEAREST * np.exp(predicted)
    z = np.where(front, seen[:, 2], 1.0)
    pixel = seen[:, :2] * (focal[o.target] / z)[:, None] + state.centre[o.target] - o.target_pixel
    pixel *= front[:, None]
    return Views(pixel, np.where(front, np.log(z) - predicted, 0.0), front, point, seen, rotation)


def meetings(o: Observations) -> np.ndarray:
    """(K + 1,) where the observations of each source in each target begin, and the end."""
    if not len(o):
        return np.zeros(1, np.int64)
    other = (o.source[1:] != o.source[:-1]) | (o.target[1:] != o.target[:-1])
    return np.r_[0, np.flatnonzero(other) + 1, len(o)]


def chunks(o: Observations) -> Iterator[Observations]:
    """Whole meetings, about CHUNK observations at once."""
    start = 0
    for end, following in zip(meetings(o)[1:], np.r_[meetings(o)[2:], -1]):
        if following < 0 or following - start > CHUNK:
            yield o.where(np.s_[start:end])
            start = end


def weights(o: Observations, v: Views, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """(M,) each, of squared pixels and log depths: by noise, confidence, and how far off they are (`lost`)."""
    power = 2 if noise.sharp else 1
    pixel, depth = v.pixel_square / noise.pixel**2, (v.log_depth / noise.depth) ** 2
    right = o.weight * v.front
    if noise.joint:
        by_pixel = right / (1 + pixel + np.log1p(depth))
        by_depth = by_pixel / (1 + depth)
    else:
        by_pixel, by_depth = right / (1 + pixel) ** power, right / (1 + depth) ** power
    return by_pixel / noise.pixel**2, by_depth / noise.depth**2


def lost(pixel: np.ndarray, depth: np.ndarray, noise: Noise) -> np.ndarray:
    """What squared residuals, in units of the noise, cost twice: Cauchy's function, or the sharper one of Geman and
    McClure, for which a match that is far off does not exist.

    A depth that is off alone, as at edges, is forgiven. `joint` is for cameras that are nearly right: believed in their
    depths, wrong matches draw all lenses, and the scale with them, to one side.
    """

    if noise.sharp:
        return pixel / (1 + pixel) + depth / (1 + depth)
    return np.log1p(pixel + np.log1p(depth)) if noise.joint else np.log1p(pixel) + np.log1p(depth)


def cost(o: Observations, state: State, noise: Noise, held: Held) -> float:
    """What is minimised; a match behind a camera costs as much as one that is a hundred times the noise off."""
    total = 0.0
    for part in chunks(o):
        v = views(part, state, held)
        missed = lost(v.pixel_square / noise.pixel**2, (v.log_depth / noise.depth) ** 2, noise)
        total += 0.5 * float(part.weight @ np.where(v.front, missed, lost(np.array(1e4), np.array(1e4), noise)))
    total += 0.5 * float(np.log1p((state.relief / noise.relief) ** 2).sum())
    far = np.abs(held.size_off(state)[held.frames]) / noise.size
    total += 0.5 * float(np.where(far < 1, far**2, 2 * far - 1).sum())
    off = (state.log_focal - held.log_focal)[held.frames]
    total += (
        0.5 * float(((off - off.mean()) ** 2).sum()) / noise.focal**2 + 0.5 * float((off**2).sum()) / COMMON_FOCAL**2
    )
    return total + 0.5 * float((state.centre[held.frames] ** 2).sum()) / noise.centre**2


class Layout:
    """Where an anchor's meetings with frames stand: B blocks, in order of (anchor, frame).

    `anchor`, `frame` (B,); `slots` (4, M): of each observation, those of its anchor with source and target, and of the
    target's anchor with source and target.
    """

    def __init__(self, o: Observations, frames: int) -> None:
        keys = [a.astype(np.int64) * frames + f for a in (o.anchor, o.target_anchor) for f in (o.source, o.target)]
        unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        self.anchor, self.frame = np.divmod(unique, frames)
        self.slots = inverse.reshape(4, -1)
        self.frames, self.anchors_per_frame = frames, o.anchors_per_frame


@dataclass(frozen=True)
class Normal:
    """Normal equations of N cameras and N * anchors reliefs.

    `cameras` (N * LOCAL, N * LOCAL), `own` (N * anchors,) the anchors' diagonal, `between` the rest of them, sparse,
    `cross` (B, LOCAL) by `layout`; gradients `by_camera` (N * LOCAL,) and `by_anchor` (N * anchors,).
    """

    layout: Layout
    cameras: np.ndarray
    own: np.ndarray
    between: sparse.csr_matrix
    cross: np.ndarray
    by_camera: np.ndarray
    by_anchor: np.ndarray

    @cached_property
    def crossing(self) -> sparse.bsr_matrix:
        """(N * anchors, N * LOCAL)"""
        ends = np.searchsorted(self.layout.anchor, np.arange(len(self.own) + 1))
        shape = (len(self.own), len(self.by_camera))
        return sparse.bsr_matrix((self.cross[:, None], self.layout.frame, ends), shape=shape)

    @cached_property
    def own_above(self) -> np.ndarray:
        """(N * anchors,) a diagonal that is more than `own` and `between` together."""
        return self.own + np.asarray(abs(self.between).sum(1)).reshape(-1)

    def eliminated(self) -> np.ndarray:
        """(N * LOCAL, N * LOCAL) the cameras' matrix without the anchors, as if they were `own_above` only."""
        matrix, layout = self.cameras.copy(), self.layout
        ends = np.searchsorted(layout.anchor, np.arange(layout.frames + 1) * layout.anchors_per_frame)
        for start, end in pairwise(ends):
            if start == end:
                continue
            partners, column = np.unique(layout.frame[start:end], return_inverse=True)
            used, row = np.unique(layout.anchor[start:end], return_inverse=True)
            dense = np.zeros((len(used), len(partners), LOCAL))
            dense[row, column] = self.cross[start:end]
            dense = dense.reshape(len(used), -1)
            where = (partners[:, None] * LOCAL + np.arange(LOCAL)).reshape(-1)
            matrix[np.ix_(where, where)] -= dense.T @ (dense / self.own_above[used, None])
        return matrix


def normal_equations(o: Observations, layout: Layout, state: State, noise: Noise, held: Held) -> Normal:
    """At a state, with the robust weights of there."""
    frames = layout.frames
    blocks = np.zeros((frames, frames, LOCAL, LOCAL))
    gradient = np.zeros((frames, LOCAL))
    soft = 1 / (noise.relief**2 + state.relief**2)
    own, by_anchor = soft.copy(), soft * state.relief
    cross = np.zeros((len(layout.anchor), LOCAL))
    between = []
    start = 0
    for part in chunks(o):
        rows, by_depth, by_target, missed = _rows(part, state, noise, held)
        own += np.bincount(part.anchor, (by_depth * by_depth).sum(1), len(own))
        own += np.bincount(part.target_anchor, by_target * by_target, len(own))
        by_anchor += np.bincount(part.anchor, (by_depth * missed).sum(1), len(own))
        by_anchor += np.bincount(part.target_anchor, by_target * missed[:, 2], len(own))
        between.append(by_depth[:, 2] * by_target)
        slots = layout.slots[:, start : start + len(part)]
        across = ((rows * by_depth[..., None]).sum(1), rows[:, 2] * by_target[:, None])
        for slot, values in zip(slots, (a[:, half] for a in across for half in (np.s_[:LOCAL], np.s_[LOCAL:]))):
            np.add.at(cross.reshape(-1), (slot[:, None] * LOCAL + np.arange(LOCAL)).reshape(-1), values.reshape(-1))
        bounds = meetings(part)
        for first, end in pairwise(bounds):
            i, j = part.source[first], part.target[first]
            flat = rows[first:end].reshape(-1, 2 * LOCAL)
            h, g = flat.T @ flat, flat.T @ missed[first:end].reshape(-1)
            blocks[i, i] += h[:LOCAL, :LOCAL]
            blocks[i, j] += h[:LOCAL, LOCAL:]
            blocks[j, i] += h[LOCAL:, :LOCAL]
            blocks[j, j] += h[LOCAL:, LOCAL:]
            gradient[i] += g[:LOCAL]
            gradient[j] += g[LOCAL:]
        start += len(part)
    half = sparse.coo_matrix((np.concatenate(between), (o.anchor, o.target_anchor)), (len(own), len(own))).tocsr()
    matrix = blocks.swapaxes(1, 2).reshape(frames * LOCAL, frames * LOCAL)
    gradient = gradient.reshape(-1)
    _hold(matrix, gradient, state, noise, held)
    return Normal(layout, matrix, own, (half + half.T).tocsr(), cross, gradient, by_anchor)


def _rows(o, state, noise, held):
    """Of (M, 3) residuals, the derivatives by source and target frame (M, 3, 2 * LOCAL), by the anchor (M, 3), and of
    the last one by the target's anchor (M,); then the residuals; all weighted."""
    v = views(o, state, held)
    focal = np.exp(state.log_focal)
    z = np.where(v.front, v.seen[:, 2], 1.0)
    f = focal[o.target] / z
    by_seen = np.zeros((len(o), 3, 3))
    by_seen[:, 0, 0] = by_seen[:, 1, 1] = f
    by_seen[:, :2, 2] = -v.seen[:, :2] * (f / z)[:, None]
    by_seen[:, 2, 2] = 1 / z
    by_point = by_seen @ v.rotation
    rows = np.zeros((len(o), 3, 2 * LOCAL))
    _cross(v.point, by_point, rows[..., :3])
    rows[..., 3:6] = by_point
    by_depth = (by_point @ v.point[..., None])[..., 0]
    rows[..., SIZE] = by_depth
    rows[..., FOCAL] = by_point[..., 2] * v.point[:, 2:]
    rows[..., CENTRE] = -by_point[..., :2] * (v.point[:, 2] / focal[o.source])[:, None, None]
    _cross(-v.seen, by_seen, rows[..., LOCAL : LOCAL + 3])
    rows[..., LOCAL + 3 : LOCAL + 6] = -by_seen
    rows[:, 2, LOCAL + SIZE] = rows[:, 2, LOCAL + FOCAL] = -1
    rows[:, :2, LOCAL + FOCAL] = v.seen[:, :2] * f[:, None]
    rows[:, 0, LOCAL + 8] = rows[:, 1, LOCAL + 9] = 1
    missed = np.concatenate([v.pixel, v.log_depth[:, None]], -1)
    by_pixel, by_log_depth = np.sqrt(weights(o, v, noise))
    weight = np.stack([by_pixel, by_pixel, by_log_depth], -1)
    rows *= weight[..., None]
    return rows, by_depth * weight, -by_log_depth, missed * weight


def _cross(a: np.ndarray, b: np.ndarray, into: np.ndarray) -> None:
    """(M, 3) x (M, K, 3), many times as fast as numpy's."""
    for k in range(3):
        m, n = (k + 1) % 3, (k + 2) % 3
        into[..., k] = a[:, m, None] * b[..., n] - a[:, n, None] * b[..., m]


def _hold(matrix, gradient, state, noise, held):
    """Priors of sizes, lenses and principal points, in place. What all lenses differ by together is held loosely.

    The world's scale is the mean of all frames' own, in which those that are far off count less (Huber's function).
    """
    frames = np.flatnonzero(held.frames)
    diagonal = np.zeros((len(state.log_size), LOCAL))
    missed = np.zeros_like(diagonal)
    missed[frames, CENTRE] = state.centre[frames]
    diagonal[frames, CENTRE] = 1 / noise.centre**2
    matrix[np.diag_indices_from(matrix)] += diagonal.reshape(-1)
    gradient += (diagonal * missed).reshape(-1)
    size, focal, along = frames * LOCAL + SIZE, frames * LOCAL + FOCAL, held.with_focal[frames]
    too_large = held.size_off(state)[frames]
    weight = 1 / (noise.size * np.maximum(noise.size, np.abs(too_large)))
    matrix[size, size] += weight
    matrix[focal, focal] += weight * along**2
    matrix[size, focal] += weight * along
    matrix[focal, size] += weight * along
    gradient[size] += weight * too_large
    gradient[focal] += weight * too_large * along
    off = (state.log_focal - held.log_focal)[frames]
    common = np.full((len(frames), len(frames)), 1 / max(len(frames), 1))
    hold = (np.eye(len(frames)) - common) / noise.focal**2 + np.eye(len(frames)) / COMMON_FOCAL**2
    matrix[np.ix_(focal, focal)] += hold
    gradient[focal] += hold @ off
