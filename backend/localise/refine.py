"""Poses, and the focal length that they share, fitted to all sightings at once: robust Levenberg-Marquardt.

Points stand still, so frames meet in the focal length alone: each frame's six unknowns are eliminated, and one equation
is left for the lens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry.rigid import invert_poses
from .pose import Pose, errors_px
from .sightings import Sightings

ROUNDS = 30
#: Steps end when they move no point by more than this many pixels.
SETTLED_PX = 1e-4
#: Least scale of the Cauchy loss, and the scale as a multiple of the median error.
LEAST_LOSS_PX, LOSS_TIMES = 0.25, 1.5


@dataclass(frozen=True)
class Fit:
    """Refined `poses` and, for each, `spread` (6,): standard deviations of turn (radians) and place (world units).

    `focal_spread` is that of the shared focal length, as a fraction of it; 0 where it was known.
    """

    poses: list[Pose]
    spread: np.ndarray
    focal_spread: float


def refine(sightings: Sequence[Sightings], poses: Sequence[Pose], max_error_px: float, free_focal: bool) -> Fit:
    """The poses (at least one) that lower a Cauchy loss of the reprojection errors of the sightings that agree.

    With `free_focal` one factor on all focal lengths is found, too. Which sightings agree is told anew at the end.
    """
    cameras = [invert_poses(p.world_from_camera) for p in poses]
    lenses = [np.array(p.intrinsics, float) for p in poses]
    used = [s.where(p.inliers) for s, p in zip(sightings, poses)]
    errors = [errors_px(s.plate_xy, s.points_world, k, invert_poses(c)) for s, k, c in zip(used, lenses, cameras)]
    loss_px = [_loss(e) for e in errors]
    damping, best = 1e-4, _cost(errors, loss_px)
    for _ in range(ROUNDS):
        blocks = [_normal(s, k, c, px) for s, k, c, px in zip(used, lenses, cameras, loss_px)]
        steps, log_focal, moved = _step(blocks, damping, free_focal)
        new_cameras = [_moved(c, d) for c, d in zip(cameras, steps)]
        new_lenses = [k * (np.exp(log_focal), np.exp(log_focal), 1, 1) for k in lenses]
        errors = [
            errors_px(s.plate_xy, s.points_world, k, invert_poses(c)) for s, k, c in zip(used, new_lenses, new_cameras)
        ]
        cost = _cost(errors, loss_px)
        if not cost <= best:
            damping *= 10
            if damping > 1e6:
                break
            continue
        cameras, lenses, damping = new_cameras, new_lenses, max(damping / 10, 1e-9)
        loss_px = [_loss(e) for e in errors]
        best = _cost(errors, loss_px)
        if moved < SETTLED_PX:
            break
    found = []
    for s, k, c in zip(sightings, lenses, cameras):
        pose = invert_poses(c)
        found.append(Pose(pose, k, errors_px(s.plate_xy, s.points_world, k, pose) < max_error_px))
    blocks = [_normal(s, k, c, px) for s, k, c, px in zip(used, lenses, cameras, loss_px)]
    spread, focal_spread = _spread(blocks, free_focal)
    return Fit(found, spread, focal_spread)


@dataclass(frozen=True)
class _Block:
    """A frame's normal equations in turn and place (6) and the logarithm of the focal length, and their noise."""

    pose: np.ndarray
    mixed: np.ndarray
    focal: float
    pose_side: np.ndarray
    focal_side: float
    variance: float
    weight: float


def _normal(sightings: Sightings, lens: np.ndarray, camera_from_world: np.ndarray, loss_px: float) -> _Block:
    p = sightings.points_world @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    z = np.maximum(p[:, 2], 1e-9)
    a, b = p[:, 0] / z, p[:, 1] / z
    zero = np.zeros_like(z)
    # Rows: how the picture of a point moves with turn and place of the camera.
    by_x = lens[0] * np.stack([-a * b, 1 + a * a, -b, 1 / z, zero, -a / z], axis=1)
    by_y = lens[1] * np.stack([-1 - b * b, a * b, a, zero, 1 / z, -b / z], axis=1)
    by_focal_x, by_focal_y = lens[0] * a, lens[1] * b
    miss_x = sightings.plate_xy[:, 0] - lens[2] - by_focal_x
    miss_y = sightings.plate_xy[:, 1] - lens[3] - by_focal_y
    squared = miss_x**2 + miss_y**2
    weight = (p[:, 2] > 1e-9) / (1 + squared / loss_px**2)
    rows = [(by_x, by_focal_x, miss_x), (by_y, by_focal_y, miss_y)]
    variance = float((weight * squared).sum() / max(1.0, 2 * weight.sum() - 6))
    return _Block(
        pose=sum((j * weight[:, None]).T @ j for j, _, _ in rows),
        mixed=sum((j * weight[:, None]).T @ f for j, f, _ in rows),
        focal=float(sum((weight * f * f).sum() for _, f, _ in rows)),
        pose_side=sum((j * weight[:, None]).T @ r for j, _, r in rows),
        focal_side=float(sum((weight * f * r).sum() for _, f, r in rows)),
        variance=variance,
        weight=float(weight.sum()),
    )


def _step(blocks: list[_Block], damping: float, free_focal: bool) -> tuple[list[np.ndarray], float, float]:
    """Each frame's step (6,), that of the log focal length, and about how many pixels a point moves by it."""
    damped = [b.pose + damping * np.diag(np.diag(b.pose)) + 1e-12 * np.eye(6) for b in blocks]
    log_focal = 0.0
    if free_focal:
        solved = [np.linalg.solve(d, np.column_stack([b.mixed, b.pose_side])) for d, b in zip(damped, blocks)]
        left = sum(b.focal * (1 + damping) - b.mixed @ s[:, 0] for b, s in zip(blocks, solved))
        side = sum(b.focal_side - b.mixed @ s[:, 1] for b, s in zip(blocks, solved))
        log_focal = float(np.clip(side / max(left, 1e-12), -0.2, 0.2))
    steps = [np.linalg.solve(d, b.pose_side - b.mixed * log_focal) for d, b in zip(damped, blocks)]
    moved = max(float(np.sqrt(max(s @ b.pose @ s, 0.0) / max(b.weight, 1e-9))) for s, b in zip(steps, blocks))
    return steps, log_focal, moved


def _spread(blocks: list[_Block], free_focal: bool) -> tuple[np.ndarray, float]:
    """(T, 6) standard deviations of turn and place, and that of the log focal length."""
    inverse = [np.linalg.pinv(b.pose) for b in blocks]
    focal_variance = 0.0
    if free_focal:
        left = sum((b.focal - b.mixed @ i @ b.mixed) / b.variance for b, i in zip(blocks, inverse) if b.variance > 0)
        focal_variance = 1 / max(left, 1e-12)
    rows = []
    for b, i in zip(blocks, inverse):
        along = i @ b.mixed
        rows.append(np.sqrt(np.maximum(np.diag(i) * b.variance + along**2 * focal_variance, 0)))
    return np.array(rows), float(np.sqrt(focal_variance))


def _moved(camera_from_world: np.ndarray, step: np.ndarray) -> np.ndarray:
    turn = Rotation.from_rotvec(step[:3]).as_matrix()
    moved = np.array(camera_from_world)
    moved[:3, :3] = turn @ camera_from_world[:3, :3]
    moved[:3, 3] = turn @ camera_from_world[:3, 3] + step[3:]
    return moved


def _loss(errors: np.ndarray) -> float:
    finite = errors[np.isfinite(errors)]
    return max(LEAST_LOSS_PX, LOSS_TIMES * float(np.median(finite))) if len(finite) else LEAST_LOSS_PX


def _cost(errors: Sequence[np.ndarray], loss_px: Sequence[float]) -> float:
    """The Cauchy loss of all errors; what is behind a camera counts as very far off."""
    return float(sum((px**2 * np.log1p(np.minimum(e, 1e6) ** 2 / px**2)).sum() for e, px in zip(errors, loss_px)))
