"""Dense depth: every static pixel triangulated from its flow to the neighbouring frames."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from ..geometry.camera import pixel_centres, rays
from ..geometry.motion import inverse_depth_equations
from ..geometry.rigid import invert_poses
from ..run import Run
from ..wire import CONFIDENCE_MEASURED
from .flow import Flows, inside, sample
from .motion_mask import tidy
from .parallel import in_threads

#: Rounds of iteratively reweighted least squares.
ROUNDS = 5
#: Noise of the flow in pixels at 512 across: residuals beyond it lose their say (Geman-McClure), and no depth is
#: believed to be better than what this noise allows.
FLOW_NOISE_PX = 0.4
#: A depth more uncertain than this fraction of itself was not measured.
MAX_RELATIVE_SD = 0.12
#: Least sum of the neighbours' trust that makes a measurement.
MIN_SUPPORT = 0.5
#: Depths of two frames that differ by less than this fraction confirm each other.
AGREEMENT = 0.04
#: Where depth jumps by more than this factor within two pixels, flow has smeared one surface over the other.
JUMP = 1.1
#: Measured patches smaller than this share of the picture are dropped.
SMALLEST_PATCH = 1e-3


def dense_depth(
    flows: Flows,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    run: Run,
    measured: Callable[[int, np.ndarray], None] = lambda t, depth: None,
) -> tuple[np.ndarray, np.ndarray]:
    """(T, H, W) float32 z-depth and confidence: 0 where nothing was measured, else from CONFIDENCE_MEASURED to 1.

    Each pixel's inverse depth is the robust least-squares solution over all neighbours; its confidence falls with
    the disagreement of forward and backward flow, with the residual, and with the depth's uncertainty for want of
    parallax. What no neighbour's own depth confirms is dropped. `measured` is told of each frame's depth, from any
    thread, before that.
    """
    width, height = flows.size
    depth = np.zeros((flows.frame_count, height, width), np.float32)
    confidence = np.zeros_like(depth)

    def measure(t: int) -> None:
        depth[t], confidence[t] = triangulate(t, flows, world_from_camera, intrinsics)
        measured(t, depth[t])

    def believe(t: int) -> np.ndarray:
        return confirm(t, depth, flows, world_from_camera, intrinsics)

    for _ in in_threads(measure, len(depth), run, end=0.7):
        pass
    for t, confirmed in enumerate(list(in_threads(believe, len(depth), run, begin=0.7))):
        depth[t][~confirmed] = confidence[t][~confirmed] = 0
    return depth, confidence


def triangulate(
    t: int, flows: Flows, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) z-depth and confidence of frame t, both 0 where nothing was measured."""
    width, height = flows.size
    noise = np.float32(FLOW_NOISE_PX * width / 512)
    ray = rays(intrinsics, width, height).astype(np.float32)
    xy = pixel_centres(width, height).astype(np.float32)
    equations, trusts = [], []
    for n in flows.neighbours(t):
        if not np.isfinite(world_from_camera[[t, n]]).all():
            continue
        forward, error = flows.between(t, n)
        target = xy + forward
        n_from_t = (invert_poses(world_from_camera[n]) @ world_from_camera[t]).astype(np.float32)
        equations.append(inverse_depth_equations(target, ray, n_from_t, intrinsics.astype(np.float32)))
        trusts.append(inside(target, width, height) / (1 + (error / (3 * noise)) ** 2) ** 2)
    if len(equations) < 2:
        return np.zeros((2, height, width), np.float32)

    rho = np.zeros((height, width), np.float32)
    for i in range(ROUNDS):
        top, information, misfit, support = np.zeros((4, height, width), np.float32)
        for (slope, offset, q_z, e_z), trust in zip(equations, trusts):
            w = np.maximum(q_z + rho * e_z, 0.05)
            rx, ry = ((slope[..., k] * rho - offset[..., k]) / w for k in (0, 1))
            squared = rx**2 + ry**2
            weight = trust if i == 0 else trust / (1 + squared / (4 * noise**2)) ** 2
            top += weight / w**2 * (slope[..., 0] * offset[..., 0] + slope[..., 1] * offset[..., 1])
            information += weight / w**2 * (slope[..., 0] ** 2 + slope[..., 1] ** 2)
            misfit += weight * squared
            support += weight
        rho = top / np.maximum(information, 1e-12)
    rms = np.sqrt(misfit / np.maximum(support, 1e-6))
    sd = np.maximum(rms, noise) / np.sqrt(np.maximum(information, 1e-12))
    relative_sd = sd / np.maximum(rho, 1e-9)
    quality = (
        np.minimum(support / 2, 1) / (1 + (rms / (2 * noise)) ** 2) / (1 + (relative_sd / (MAX_RELATIVE_SD / 2)) ** 2)
    )
    good = (rho > 0) & (relative_sd < MAX_RELATIVE_SD) & (support > MIN_SUPPORT) & (rms < 3 * noise)
    confidence = CONFIDENCE_MEASURED + (1 - CONFIDENCE_MEASURED) * quality
    return np.where(good, 1 / np.maximum(rho, 1e-9), 0), np.where(good, confidence, 0)


def confirm(
    t: int, depth: np.ndarray, flows: Flows, world_from_camera: np.ndarray, intrinsics: np.ndarray
) -> np.ndarray:
    """(H, W) bool: pixels of frame t whose depth most neighbours that know of it confirm, away from depth jumps.

    One neighbour must agree, two where three or more know.
    """
    width, height = flows.size
    ray = rays(intrinsics, width, height).astype(np.float32)
    fx, fy, cx, cy = intrinsics.astype(np.float32)
    agree, differ, know = np.zeros((3, height, width), np.int8)
    for n in flows.neighbours(t):
        if not np.isfinite(world_from_camera[[t, n]]).all():
            continue
        n_from_t = (invert_poses(world_from_camera[n]) @ world_from_camera[t]).astype(np.float32)
        x, y, z = ((ray @ n_from_t[k, :3]) * depth[t] + n_from_t[k, 3] for k in range(3))
        z_safe = np.maximum(z, 1e-6)
        there = np.stack([x / z_safe * fx + cx, y / z_safe * fy + cy], axis=-1)
        seen = sample(depth[n], there, nearest=True)
        known = (z > 0) & (seen > 0) & (depth[t] > 0)
        off = np.abs(z / np.maximum(seen, 1e-6) - 1)
        agree += known & (off < AGREEMENT)
        differ += known & (off > 2 * AGREEMENT)
        know += known
    confirmed = (agree >= np.where(know >= 3, 2, 1)) & (agree >= differ) & ~jumps(depth[t])
    # Along an edge that slides, flow agrees with itself and is wrong: such places are small.
    return tidy(confirmed, SMALLEST_PATCH * confirmed.size, fill=False)


def jumps(depth: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels within two pixels of a jump in depth; unknown depth (0) makes none."""
    window = np.ones((5, 5), np.uint8)
    nearest = cv2.erode(np.where(depth > 0, depth, np.float32(1e30)), window)
    return cv2.dilate(depth, window) > JUMP * nearest
