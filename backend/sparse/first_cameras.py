"""First cameras and sizes of a sparse alignment: pairs by robust similarities, frames by averages over the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree
from scipy.sparse.linalg import splu
from scipy.spatial.transform import Rotation

from .observations import Observations

#: Tries with four matches each, and matches they are judged by.
TRIES, JUDGES = 100, 400
#: How far a match may miss, relative to its distance, to speak for a similarity.
MISS = 0.1
#: Matches that must speak for a pair, and the share of its matches.
LEAST_MATCHES, LEAST_SHARE = 15, 0.15
#: Rounds of reweighting, and the spread of sizes, rotations (radians) and places (of the depth) that counts half.
ROUNDS = 10
LOOSE_SIZE, LOOSE_ROTATION, LOOSE_PLACE = 0.05, 0.03, 0.03


@dataclass(frozen=True)
class FirstCameras:
    """N frames in the frame of `root`: `rotation` (N, 3, 3), `place` (N, 3), `log_size` (N,), `placed` (N,) bool.

    `log_size` is what a frame's own points must be scaled by; its mean over placed frames is 0. NaN where not placed.
    `good_pairs` (P,) bool: pairs whose matches fit one similarity. The root has most of them.
    """

    rotation: np.ndarray
    place: np.ndarray
    log_size: np.ndarray
    placed: np.ndarray
    root: int
    good_pairs: np.ndarray


def first_cameras(
    observations: Observations, focal_px: np.ndarray, frames: int, pairs: int, seed: int = 0
) -> FirstCameras:
    """Of the largest part that good pairs connect. `focal_px` (N,) is each frame's lens. Alone, frame 0 is placed."""
    log_size, rotation, shift = np.zeros(pairs), np.tile(np.eye(3), (pairs, 1, 1)), np.zeros((pairs, 3))
    count, ends = np.zeros(pairs, np.int64), np.zeros((pairs, 2), np.int64)
    random = np.random.default_rng(seed)
    forward = observations.where(observations.source < observations.target)
    order = np.argsort(forward.pair, kind="stable")
    for chosen in np.split(order, np.flatnonzero(np.diff(forward.pair[order])) + 1) if len(order) else ():
        number, i, j = forward.pair[chosen[0]], forward.source[chosen[0]], forward.target[chosen[0]]
        from_i = _points(forward.pixel[chosen], forward.log_depth[chosen], focal_px[i])
        in_j = _points(forward.target_pixel[chosen], forward.target_log_depth[chosen], focal_px[j])
        found = robust_similarity(from_i, in_j, forward.weight[chosen], random)
        if found is not None:
            scale, rotation[number], shift[number], count[number] = found
            log_size[number], ends[number] = np.log(scale), (i, j)
            if count[number] < LEAST_SHARE * len(chosen):
                count[number] = 0
    good = count >= LEAST_MATCHES
    i, j = ends[good].T
    weight = count[good].astype(np.float64)
    graph = sparse.coo_matrix((weight, (i, j)), (frames, frames))
    _, part = connected_components(graph, directed=False)
    placed = part == np.bincount(part).argmax()
    inside = placed[i]
    good[good] = inside
    i, j, weight = i[inside], j[inside], weight[inside]
    strength = np.bincount(np.r_[i, j], np.r_[weight, weight], frames)
    root = int(np.where(placed, strength, -1).argmax())
    nan = np.full(frames, np.nan)
    if not len(i):
        rotations = np.where(placed[:, None, None], np.eye(3), np.nan)
        return FirstCameras(rotations, rotations[:, 0] * 0, np.where(placed, 0, nan), placed, root, good)
    # X_j = s R X_i + t of points in their own units: size_i = size_j s.
    sizes = _on_graph(i, j, log_size[good][:, None], weight, frames, root, LOOSE_SIZE)[:, 0]
    sizes -= sizes[placed].mean()
    j_from_i = rotation[good]
    rotations = _rotations(i, j, j_from_i, weight, frames, root)
    across = np.einsum("eab,eb->ea", rotations[j], shift[good] * np.exp(sizes[j])[:, None])
    depth = np.exp(np.median(observations.log_depth))
    places = _on_graph(i, j, across, weight, frames, root, LOOSE_PLACE * depth)
    rotations[~placed], places[~placed], sizes[~placed] = np.nan, np.nan, np.nan
    return FirstCameras(rotations, places, sizes, placed, root, good)


def _points(pixel: np.ndarray, log_depth: np.ndarray, focal: float) -> np.ndarray:
    return np.exp(log_depth)[:, None] * np.c_[pixel / focal, np.ones(len(pixel))]


def similarities(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """target = s R source + t in the least-squares sense: (B,), (B, 3, 3), (B, 3) of (B, M, 3) points. Umeyama 1991."""
    share = (weight / weight.sum(-1, keepdims=True))[..., None]
    mean_s, mean_t = (share * source).sum(-2), (share * target).sum(-2)
    a, b = source - mean_s[:, None], target - mean_t[:, None]
    u, d, vt = np.linalg.svd(np.swapaxes(share * b, -1, -2) @ a)
    sign = np.ones_like(d)
    sign[:, 2] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * sign[:, None]) @ vt
    scale = (d * sign).sum(-1) / np.maximum((share * a * a).sum((-2, -1)), 1e-18)
    return scale, rotation, mean_t - scale[:, None] * (rotation @ mean_s[..., None])[..., 0]


def robust_similarity(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, random: np.random.Generator
) -> tuple[float, np.ndarray, np.ndarray, int]:
    """target = s R source + t of (M, 3) points many of which are wrong, and how many speak for it; None of too few."""
    if len(source) < LEAST_MATCHES:
        return None
    share = weight / weight.sum()
    chosen = random.choice(len(source), (TRIES, 4), p=share)
    judges = random.choice(len(source), JUDGES, p=share) if len(source) > JUDGES else np.arange(len(source))
    scale, rotation, shift = similarities(source[chosen], target[chosen], weight[chosen])
    usable = (scale > 0.1) & (scale < 10)
    if not usable.any():
        return None
    scale, rotation, shift = scale[usable], rotation[usable], shift[usable]
    missed = _missed(source[judges], target[judges], scale, rotation, shift)
    best = np.argmax((weight[judges] * np.maximum(1 - (missed / MISS) ** 2, 0)).sum(-1))
    scale, rotation, shift = scale[best, None], rotation[best, None], shift[best, None]
    for _ in range(ROUNDS):
        missed = _missed(source, target, scale, rotation, shift)[0]
        sure = weight / (1 + (missed / (MISS / 2)) ** 2) ** 2
        sure /= (target * target).sum(-1)
        scale, rotation, shift = similarities(source[None], target[None], sure[None])
    count = int((_missed(source, target, scale, rotation, shift)[0] < MISS).sum())
    return float(scale[0]), rotation[0], shift[0], count


def _missed(source, target, scale, rotation, shift) -> np.ndarray:
    """(B, M) distances between similarities of (M, 3) points and where they belong, relative to the latter's."""
    moved = scale[:, None, None] * (source @ np.swapaxes(rotation, -1, -2)) + shift[:, None]
    return np.linalg.norm(moved - target, axis=-1) / np.linalg.norm(target, axis=-1)


def _on_graph(
    i: np.ndarray, j: np.ndarray, difference: np.ndarray, weight: np.ndarray, frames: int, root: int, loose: float
) -> np.ndarray:
    """(N, K) values with x_i - x_j near (E, K) differences, 0 at the root, robustly: far ones count less and less.

    `weight` (E,) is relative to others. Frames that are not connected to the root stay 0.
    """
    edges = np.arange(len(i))
    one = np.ones(len(i))
    incidence = sparse.coo_matrix((np.r_[one, -one], (np.r_[edges, edges], np.r_[i, j])), (len(i), frames)).tocsc()
    least = 1e-9 * weight.max()
    hold = sparse.coo_matrix(([weight.sum()], ([root], [root])), (frames, frames)) + least * sparse.eye(frames)
    robust = np.ones(len(i))
    for _ in range(ROUNDS):
        scaled = sparse.diags(weight * robust)
        normal = splu((incidence.T @ scaled @ incidence + hold).tocsc())
        values = normal.solve(incidence.T @ (scaled @ difference))
        missed = np.linalg.norm(values[i] - values[j] - difference, axis=-1)
        robust = 1 / (1 + (missed / loose) ** 2)
    return values


def _rotations(
    i: np.ndarray, j: np.ndarray, j_from_i: np.ndarray, weight: np.ndarray, frames: int, root: int
) -> np.ndarray:
    """(N, 3, 3) world from frames: along the strongest tree, then averaged over all pairs as small turns."""
    tree = minimum_spanning_tree(sparse.coo_matrix((1 / weight, (i, j)), (frames, frames)).tocsr())
    order, parent = breadth_first_order(tree, root, directed=False)
    between = {(a, b): r for a, b, r in zip(i.tolist(), j.tolist(), j_from_i)}
    rotations = np.tile(np.eye(3), (frames, 1, 1))
    for child in order[1:].tolist():
        above = int(parent[child])
        step = between[child, above] if (child, above) in between else between[above, child].T
        rotations[child] = rotations[above] @ step
    for _ in range(3):
        # R_j turns by a_j and R_i by a_i, in the world: exp(a_i) R_i = exp(a_j) R_j R_ji.
        turn = Rotation.from_matrix(rotations[j] @ j_from_i @ np.swapaxes(rotations[i], -1, -2)).as_rotvec()
        small = _on_graph(i, j, turn, weight, frames, root, LOOSE_ROTATION)
        rotations = Rotation.from_rotvec(small).as_matrix() @ rotations
    return rotations
