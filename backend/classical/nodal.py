"""Nodal shots: a camera that turns without travelling, solved for its rotations and its focal length."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from ..geometry.rigid import poses_from
from ..run import Run
from .sfm import Solution
from .tracks import Observations

#: Frames are compared with those this many frames on.
OFFSETS = (1, 2, 5, 12, 30)
#: Rounds of Gauss-Newton; each reweights the residuals.
ROUNDS = 20
#: Residuals beyond this fraction of the long side lose their say (Cauchy): 1 pixel on an 854-pixel plate.
NOISE = 1.0 / 854
#: Focal lengths outside these fields of view (of the long side, in degrees) are not believed.
FOV_LIMITS_DEG = (12.0, 110.0)
#: Tracks stand on a sphere of this radius, as nothing is known of their distance.
RADIUS = 5.0


def solve_nodal(
    observations: Observations,
    frame_count: int,
    size: tuple[int, int],
    focal_px: float,
    free_focal: bool,
    run: Run,
    locked: bool = False,
) -> Solution | None:
    """Rotations of every frame that tracks join to the first, and the focal length if it is free; None if it diverges.

    Minimises the distance between points and their partners moved by K R_b^T R_a K^-1 over pairs of frames. A
    `locked` camera keeps one orientation. Points lie on a sphere about the camera.
    """
    rotations = np.tile(np.eye(3), (frame_count, 1, 1))
    if not locked:
        pairs = _pairs(observations, frame_count)
        if not pairs:
            return None
        rotations = _chain(pairs, rotations, focal_px, size)
        rotations, focal_px = _refine(pairs, rotations, focal_px, size, free_focal, run)
        low, high = (max(size) / 2 / math.tan(math.radians(fov / 2)) for fov in FOV_LIMITS_DEG[::-1])
        if not (np.isfinite(rotations).all() and low < focal_px < high):
            return None
        rotations[~_joined(pairs, frame_count)] = np.nan
    return _solution(observations, rotations, focal_px, size)


def _pairs(o: Observations, frame_count: int) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """(a, b, points in a, points in b) for frames that share tracks."""
    of_frame = [np.flatnonzero(o.frame == t) for t in range(frame_count)]
    pairs = []
    for a in range(frame_count):
        for b in (a + k for k in OFFSETS if a + k < frame_count):
            _, i, j = np.intersect1d(o.track[of_frame[a]], o.track[of_frame[b]], True, True)
            if len(i) >= 8:
                pairs.append((a, b, o.xy[of_frame[a][i]], o.xy[of_frame[b][j]]))
    return pairs


def _joined(pairs: list, frame_count: int) -> np.ndarray:
    """(T,) bool: frames that pairs join to the first."""
    a, b = np.array([p[:2] for p in pairs]).T
    graph = coo_array((np.ones(len(a)), (a, b)), shape=(frame_count, frame_count))
    _, group = connected_components(graph, directed=False)
    return group == group[0]


def _rays(xy: np.ndarray, focal_px: float, size: tuple[int, int]) -> np.ndarray:
    return np.column_stack([(xy - np.array(size) / 2) / focal_px, np.ones(len(xy))])


def _chain(pairs: list, rotations: np.ndarray, focal_px: float, size: tuple[int, int]) -> np.ndarray:
    """First guess: every frame's rotation from the one before, by robust alignment of rays."""
    rotations = rotations.copy()
    for a, b, xy_a, xy_b in pairs:
        if b != a + 1:
            continue
        from_a, from_b = (_rays(xy, focal_px, size) for xy in (xy_a, xy_b))
        from_a, from_b = (r / np.linalg.norm(r, axis=1, keepdims=True) for r in (from_a, from_b))
        weights = np.ones(len(from_a))
        for _ in range(10):
            b_from_a, _ = Rotation.align_vectors(from_b, from_a, weights)
            miss = np.linalg.norm(b_from_a.apply(from_a) - from_b, axis=1)
            weights = 1 / (1 + (miss / max(np.median(miss), 1e-5)) ** 2)
        rotations[b] = rotations[a] @ b_from_a.as_matrix().T
    return rotations


def _refine(
    pairs: list, rotations: np.ndarray, focal_px: float, size: tuple[int, int], free_focal: bool, run: Run
) -> tuple[np.ndarray, float]:
    """Gauss-Newton over all rotations (world_from_camera, three parameters each) and the focal length."""
    a = np.concatenate([np.full(len(p[2]), p[0]) for p in pairs])
    b = np.concatenate([np.full(len(p[2]), p[1]) for p in pairs])
    xy_a, xy_b = (np.concatenate([p[k] for p in pairs]) - np.array(size) / 2 for k in (2, 3))
    noise = NOISE * max(size)
    unknowns = 3 * len(rotations) + 1
    for _ in range(ROUNDS):
        run.check()
        ray = np.column_stack([xy_a / focal_px, np.ones(len(xy_a))])
        turn = np.swapaxes(rotations[b], 1, 2) @ rotations[a]
        p = (turn @ ray[..., None])[..., 0]
        miss = focal_px * p[:, :2] / p[:, 2:] - xy_b
        weight = 1 / (1 + (miss**2).sum(axis=1) / noise**2)
        image_from_p = np.zeros((len(p), 2, 3))
        image_from_p[:, 0, 0] = image_from_p[:, 1, 1] = focal_px / p[:, 2]
        image_from_p[:, :, 2] = -focal_px * p[:, :2] / p[:, 2:] ** 2
        by_a = -image_from_p @ turn @ _cross(ray)
        by_b = image_from_p @ _cross(p)
        by_ray = image_from_p @ turn @ np.column_stack([-xy_a / focal_px**2, np.zeros(len(p))])[..., None]
        by_focal = by_ray[..., 0] + p[:, :2] / p[:, 2:]
        step = _gauss_newton_step(a, b, by_a, by_b, by_focal if free_focal else None, miss, weight, unknowns)
        rotations = rotations @ Rotation.from_rotvec(step[:-1].reshape(-1, 3)).as_matrix()
        focal_px += float(np.clip(step[-1], -0.2 * focal_px, 0.2 * focal_px))
    return rotations, focal_px


def _gauss_newton_step(a, b, by_a, by_b, by_focal, miss, weight, unknowns) -> np.ndarray:
    """The step that least squares asks for, with the first frame (and a fixed focal length) held."""
    rows = np.arange(2 * len(miss)).reshape(-1, 2, 1)
    columns_a, columns_b = (3 * i[:, None, None] + np.arange(3) for i in (a, b))
    shape = (len(miss), 2, 3)
    parts = [(rows, columns_a, by_a), (rows, columns_b, by_b)]
    if by_focal is not None:
        parts.append((rows, np.full((1, 1, 1), unknowns - 1), by_focal[..., None]))
    r, c, v = (
        np.concatenate([np.broadcast_to(part[k], (*shape[:2], part[2].shape[2])).ravel() for part in parts])
        for k in range(3)
    )
    jacobian = coo_array((v, (r, c)), shape=(2 * len(miss), unknowns)).tocsr()
    weights = np.repeat(weight, 2)
    normal = (jacobian.T @ jacobian.multiply(weights[:, None])).tocsc()
    held = np.full(unknowns, 1e-9)
    held[:3] = 1e12
    if by_focal is None:
        held[-1] = 1e12
    normal = normal + coo_array((held, (np.arange(unknowns),) * 2), shape=normal.shape).tocsc()
    return spsolve(normal, -jacobian.T @ (weights * miss.ravel()))


def _solution(o: Observations, rotations: np.ndarray, focal_px: float, size: tuple[int, int]) -> Solution | None:
    """Tracks on the sphere, each in the mean direction of its sightings."""
    world_from_camera = poses_from(rotations, np.zeros((len(rotations), 3)))
    world_from_camera[np.isnan(rotations).any(axis=(1, 2))] = np.nan
    o = o.where(np.isfinite(rotations[o.frame]).all(axis=(1, 2)))
    if len(o) == 0:
        return None
    _, track = np.unique(o.track, return_inverse=True)
    directions = (rotations[o.frame] @ _rays(o.xy, focal_px, size)[..., None])[..., 0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = np.stack([np.bincount(track, directions[:, k]) for k in range(3)], axis=1)
    points *= RADIUS / np.linalg.norm(points, axis=1, keepdims=True)
    relabelled = Observations(track, o.frame, o.xy)
    return Solution(focal_px, size, world_from_camera, points, relabelled, np.zeros(len(track))).with_errors()


def _cross(v: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices [v]x of (..., 3) vectors."""
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([np.stack(r, axis=-1) for r in ((o, -z, y), (z, o, -x), (-y, x, o))], axis=-2)
