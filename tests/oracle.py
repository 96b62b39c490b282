"""Clips with truth, and the captures that an engine of known error makes of them: what refinement is measured on.

The error is that of the MonST3R fixtures, final state of the original (facts sheet, section 8; 8 frames, 1.06 long):
path error 1.2 % of the path's length, 0.21 degrees of rotation from frame to frame, 0.2 % of the focal length, 1.1 %
of depth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from backend.clip import STORE_LONG_SIDE, Clip
from backend.footage.store import grid_of, resize
from backend.geometry.camera import rays
from backend.geometry.rigid import rotation_angles_deg
from backend.geometry.trajectory import absolute_trajectory_error, path_length
from backend.wire import Capture, ClipInfo, EngineStamp, FrameReport, ShotReport
from tests.worlds import _texture, look

PATH_ERROR = 0.0122
STEP_ROTATION_DEG = 0.215
FOCAL_ERROR = 0.002
DEPTH_ERROR = 0.011
#: Long side of the grid that such an engine works on.
LONG_SIDE = 512
TEXELS_PER_METRE = 64


@dataclass(frozen=True)
class TrueClip:
    """A clip and what is true of it at plate resolution: (T, H, W) depth and masks, (T, 4, 4) and (T, 4) cameras."""

    clip: Clip
    depth: np.ndarray
    masks: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray


def as_clip(rgb: np.ndarray, name: str = "room.mp4") -> Clip:
    """(T, H, W, 3) uint8 pictures as a decoded clip."""
    frames, height, width = rgb.shape[:3]
    fps = Fraction(24)
    info = ClipInfo(name, (width, height), fps, tuple(range(frames)), tuple(float(i / fps) for i in range(frames)))
    size, store_map = grid_of((width, height), STORE_LONG_SIDE)
    if size != (width, height):
        rgb = np.stack([resize(frame, size) for frame in rgb])
    return Clip(info, rgb, store_map)


def travelling(frames: int, far=(1.2, 0.1, 0.5), turn=(-0.15, 0.03, 0.0), seed: int = 0) -> np.ndarray:
    """(T, 4, 4) cameras that travel by `far` metres and turn by `turn` radians, held by hand."""
    rng = np.random.default_rng(seed)
    shake = gaussian_filter1d(rng.normal(0, 1, (frames, 6)), 2.0, axis=0) * np.array([0.02] * 3 + [0.01] * 3)
    s = np.linspace(0, 1, frames)[:, None]
    positions = np.array(far) * (s - 0.5) + shake[:, :3]
    angles = np.array(turn) * s + shake[:, 3:]
    return np.stack([look(*a, p) for a, p in zip(angles, positions)])


def film_room(
    cameras: np.ndarray, size: tuple[int, int], focal_px, box: float = 0.6, contrast: float = 1.0, noise: float = 2.0
) -> TrueClip:
    """The room of `tests/worlds.py` along any path: `focal_px` is one number or one a frame, `box` the mover's width in
    metres, `contrast` that of all textures, `noise` of the pictures in grey levels."""
    width, height = size
    frames = len(cameras)
    focal = np.broadcast_to(np.asarray(focal_px, float), (frames,))
    intrinsics = np.stack([focal, focal, np.full(frames, width / 2), np.full(frames, height / 2)], axis=1)
    rng = np.random.default_rng(5)
    rgb = np.zeros((frames, height, width, 3), np.uint8)
    depth = np.zeros((frames, height, width), np.float32)
    masks = np.zeros((frames, height, width), bool)
    # (axis, where, limits on the other two axes, moves); axes 0 x, 1 y, 2 z
    walls = [
        (1, 1.2, ((-3, 3), (-2, 5)), False),
        (1, -1.8, ((-3, 3), (-2, 5)), False),
        (2, 5.0, ((-3, 3), (-1.8, 1.2)), False),
        (0, -3.0, ((-1.8, 1.2), (-2, 5)), False),
        (0, 3.0, ((-1.8, 1.2), (-2, 5)), False),
        (2, 3.8, ((0.9, 1.5), (-1.8, 1.2)), False),
        (2, 2.6, ((-box / 2, box / 2), (1.2 - 1.7 * box, 1.2)), True),
    ]
    painted = [_painted(limits, seed, contrast) for seed, (_, _, limits, _) in enumerate(walls)]
    for i, camera in enumerate(cameras.astype(np.float32)):
        # Four rays a pixel; a ray is scaled so that its parameter is z-depth.
        fine = rays(intrinsics[i] * 2, 2 * width, 2 * height).astype(np.float32) @ camera[:3, :3].T
        nearest = np.full(fine.shape[:2], np.inf, np.float32)
        colour = np.zeros((*fine.shape[:2], 3), np.uint8)
        moves = np.zeros(fine.shape[:2], bool)
        for (axis, where, ((a0, a1), (b0, b1)), mover), texture in zip(walls, painted):
            shift = 1.8 * i / max(frames - 1, 1) - 0.9 if mover else 0.0
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (where - camera[axis, 3]) / fine[..., axis]
            hit = np.flatnonzero((t > 0.05) & (t < nearest))
            t, toward = t.ravel()[hit], fine.reshape(-1, 3)[hit]
            a, b = (camera[k, 3] + toward[:, k] * t for k in range(3) if k != axis)
            a = a - shift
            inside = (a >= a0) & (a <= a1) & (b >= b0) & (b <= b1)
            hit, t, a, b = hit[inside], t[inside], a[inside], b[inside]
            if len(hit) == 0:
                continue
            rows, columns = ((c - c0) * TEXELS_PER_METRE - 0.5 for c, c0 in ((a, a0), (b, b0)))
            colour.reshape(-1, 3)[hit] = _between(texture, columns, rows)
            nearest.ravel()[hit], moves.ravel()[hit] = t, mover
        seen = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
        rgb[i] = np.clip(seen + rng.normal(0, noise, seen.shape), 0, 255).astype(np.uint8)
        depth[i], masks[i] = nearest[1::2, 1::2], moves[1::2, 1::2]
    return TrueClip(as_clip(rgb), depth, masks, cameras, intrinsics)


@cache
def _painted(limits, seed: int, contrast: float) -> np.ndarray:
    """The texture of a wall as a picture, rows along its first axis."""
    (a0, a1), (b0, b1) = limits
    a, b = (np.arange(c0, c1, 1 / TEXELS_PER_METRE) + 0.5 / TEXELS_PER_METRE for c0, c1 in ((a0, a1), (b0, b1)))
    colour = _texture(*np.meshgrid(a + 10, b + 10, indexing="ij"), seed + 1)
    return np.round(255 * (0.5 + contrast * (colour - 0.5))).astype(np.uint8)


def _between(picture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, 3) values of a picture at (N,) pixel-centre coordinates, linear between pixels."""
    side = 1 << 14  # OpenCV takes no row of more than 2^15
    padding = -len(x) % side
    x, y = (np.pad(c.astype(np.float32), (0, padding)).reshape(-1, side) for c in (x, y))
    return cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(-1, 3)[
        : x.size - padding
    ]


def wrong_path(world_from_camera: np.ndarray, rng: np.random.Generator, path_error: float, step_deg: float):
    """The cameras with errors of the stated sizes: half of each wanders slowly through the clip, half is new a frame.

    `path_error` is what is left after the best alignment, as a fraction of the path's length (of 1 m when the camera
    does not travel); `step_deg` the turn from frame to frame.
    """
    frames = len(world_from_camera)

    def wander() -> np.ndarray:
        slow = np.cumsum(rng.normal(0, 1, (frames, 3)), axis=0)
        slow -= slow.mean(axis=0)
        fast = rng.normal(0, 1, (frames, 3))
        return slow / rms(slow) + fast / rms(fast)

    away, turn = wander(), wander()
    steps = Rotation.from_rotvec(np.radians(turn[1:] - turn[:-1])).as_matrix()
    turn *= step_deg / np.sqrt(np.mean(rotation_angles_deg(steps) ** 2))
    length = path_length(world_from_camera) or 1.0
    size = path_error * length
    for _ in range(5):  # alignment takes some of the error away
        poses = np.array(world_from_camera)
        poses[:, :3, 3] += size * away
        poses[:, :3, :3] = poses[:, :3, :3] @ Rotation.from_rotvec(np.radians(turn)).as_matrix()
        if path_length(world_from_camera) > 0 and path_error > 0:
            size *= path_error / absolute_trajectory_error(poses, world_from_camera).ate_relative
    return poses


def rms(vectors: np.ndarray) -> float:
    return float(np.sqrt((vectors**2).sum(axis=-1).mean()))


def oracle_capture(
    true: TrueClip,
    seed: int = 0,
    path_error: float = PATH_ERROR,
    step_deg: float = STEP_ROTATION_DEG,
    focal_error: float = FOCAL_ERROR,
    focal_jitter: float = 0.0,
    depth_error: float = DEPTH_ERROR,
    scale: float = 1.7,
    masked: bool = True,
) -> Capture:
    """What an engine with such errors says of the clip, in a world of its own scale and orientation."""
    rng = np.random.default_rng(seed)
    rgb, plate_map = true.clip.processed(LONG_SIDE)
    frames, height, width = rgb.shape[:3]
    plate_h, plate_w = true.masks.shape[1:]
    poses = wrong_path(true.world_from_camera, rng, path_error, step_deg)
    own = look(0.3, -0.2, 0.1, (0.5, -1.0, 2.0))
    poses[:, :3, 3] *= scale
    intrinsics = plate_map.intrinsics_to_grid(true.intrinsics)
    intrinsics[:, :2] *= 1 + focal_error * rng.choice([-1, 1])
    intrinsics[:, :2] *= np.exp(focal_jitter * rng.normal(0, 1, (frames, 1)))
    depth = np.zeros((frames, height, width), np.float32)
    dynamic = np.zeros((frames, height, width), bool)
    for i in range(frames):
        d = cv2.resize(true.depth[i], (width, height), interpolation=cv2.INTER_NEAREST)
        smooth = cv2.resize(rng.normal(0, 1, (6, 8)), (width, height), interpolation=cv2.INTER_CUBIC)
        error = 0.4 * rng.normal() + 1.1 * smooth + 0.4 * rng.normal(0, 1, d.shape)
        depth[i] = np.where(np.isfinite(d), d * scale * np.exp(depth_error * error), 0)
        if masked:
            mask = true.masks[i].astype(np.uint8) * 255
            dynamic[i] = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA) > 127
    return Capture(
        clip=replace(true.clip.info, plate_size=(plate_w, plate_h)),
        plate_map=plate_map,
        engine=EngineStamp("oracle", "1", "GPL-3.0-or-later", True),
        settings={},
        metric=False,
        confidence_meaning="1 everywhere",
        confidence_default=0.0,
        world_from_camera=own @ poses,
        intrinsics=intrinsics,
        rgb=rgb,
        depth=depth,
        confidence=(depth > 0).astype(np.float16),
        dynamic=dynamic,
        frames=tuple(FrameReport(True) for _ in range(frames)),
        shot=ShotReport("moving", None, "solved"),
    )


def demo_clip(folder: Path, run) -> TrueClip:
    """The demo clip with its truth, depth brought to the plate by nearest neighbours."""
    from backend.clip import open_clip
    from backend.truth import read_truth
    from backend.wire import ClipSettings

    truth = read_truth(folder / "truth.npz")
    clip = open_clip(folder / "clip.mp4", ClipSettings(), run)
    size = truth.plate_size
    depth = np.stack([cv2.resize(d, size, interpolation=cv2.INTER_NEAREST) for d in truth.depth])
    return TrueClip(clip, depth, truth.masks, truth.world_from_camera, truth.intrinsics)
