"""Synthetic truth: a textured room with a moving box, seen by known cameras, with exact depth and masks."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from backend.geometry.camera import rays
from backend.wire import Capture, ClipInfo, EngineStamp, FrameReport, PlateMap, ShotReport, Tracks


@dataclass(frozen=True)
class World:
    """T frames of a room: rgb (T, H, W, 3) uint8, depth (T, H, W), dynamic (T, H, W), cameras and intrinsics."""

    rgb: np.ndarray
    depth: np.ndarray
    dynamic: np.ndarray
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    mover: Mover | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.depth.shape[2], self.depth.shape[1]


def look(yaw: float, pitch: float, roll: float, position) -> np.ndarray:
    """world_from_camera of a camera at `position` turned by yaw (y), pitch (x) and roll (z), in radians."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
    r_yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    r_pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    r_roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = r_yaw @ r_pitch @ r_roll
    matrix[:3, 3] = position
    return matrix


def hand_held(frames: int, motion: str = "moving", seed: int = 0) -> np.ndarray:
    """(T, 4, 4) cameras; `motion` is 'moving', 'rotation' (no translation) or 'locked' (no motion at all)."""
    rng = np.random.default_rng(seed)
    wobble = np.cumsum(rng.normal(0, 0.003, (frames, 3)), axis=0)
    cameras = []
    for i, s in enumerate(np.linspace(0, 1, frames)):
        position, angles = np.array([1.2 * s - 0.6, 0.1 * np.sin(4 * s), 0.5 * s]), np.array([-0.15 * s, 0.03 * s, 0.0])
        if motion == "rotation":
            position, angles = np.zeros(3), np.array([0.35 * s - 0.17, 0.05 * np.sin(3 * s), 0.0])
        if motion == "locked":
            position, angles, wobble = np.zeros(3), np.zeros(3), np.zeros((frames, 3))
        cameras.append(look(*(angles + wobble[i]), position))
    return np.stack(cameras)


def _texture(u: np.ndarray, v: np.ndarray, seed: int) -> np.ndarray:
    """A colour in [0, 1] for surface coordinates in metres: blotches at several scales, rich in corners."""
    rng = np.random.default_rng(seed)
    colour = np.zeros((*u.shape, 3))
    for scale, weight in ((1.7, 0.3), (5.0, 0.4), (13.0, 0.3)):
        table = rng.random((64, 64, 3))
        x, y = u * scale, v * scale
        x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = (np.clip((t - t0) * 3 - 1, 0, 1)[..., None] for t, t0 in ((x, x0), (y, y0)))
        top, bottom = (
            table[x0 % 64, (y0 + dy) % 64] * (1 - fx) + table[(x0 + 1) % 64, (y0 + dy) % 64] * fx for dy in (0, 1)
        )
        colour += weight * (top * (1 - fy) + bottom * fy)
    return colour


@dataclass(frozen=True)
class Mover:
    """A flat panel facing +z that slides: `centres` (T, 3) in metres and `half_size` (width, height) in metres."""

    centres: np.ndarray
    half_size: tuple[float, float]


def sliding_box(frames: int) -> Mover:
    """A panel that slides to the right through the room."""
    x = -0.9 + 1.8 * np.arange(frames) / max(frames - 1, 1)
    return Mover(np.stack([x, np.full(frames, 0.7), np.full(frames, 2.6)], axis=1), (0.3, 0.5))


def film(
    cameras: np.ndarray,
    intrinsics: np.ndarray,
    width: int,
    height: int,
    mover: Mover | None = None,
    far_wall_m: float = 5.0,
    pillars: tuple[tuple[float, float], ...] = ((1.2, 3.8),),
    closed: bool = False,
) -> World:
    """A room seen by (T, 4, 4) cameras of (T, 4) intrinsics: 6 m wide, 3 m high, `far_wall_m` deep; y points down.

    `pillars` are (x, z) of panels 0.6 m wide from floor to ceiling, which face the camera. A room that is not `closed`
    has no wall behind, at z = -2 m: what is seen there has depth inf.
    """
    frames = len(cameras)
    rgb = np.zeros((frames, height, width, 3), np.uint8)
    depth = np.zeros((frames, height, width), np.float32)
    dynamic = np.zeros((frames, height, width), bool)
    for i in range(frames):
        # World ray direction scaled so that its parameter is z-depth.
        d = rays(intrinsics[i], width, height) @ cameras[i][:3, :3].T
        o = cameras[i][:3, 3]
        nearest = np.full((height, width), np.inf)
        colour = np.zeros((height, width, 3))
        # (axis, where, limits on the other two axes, seed, moves); axes 0 x, 1 y, 2 z
        quads = [
            (1, 1.2, ((-3, 3), (-2, far_wall_m)), 1, None),
            (1, -1.8, ((-3, 3), (-2, far_wall_m)), 2, None),
            (2, far_wall_m, ((-3, 3), (-1.8, 1.2)), 3, None),
            (0, -3.0, ((-1.8, 1.2), (-2, far_wall_m)), 4, None),
            (0, 3.0, ((-1.8, 1.2), (-2, far_wall_m)), 5, None),
            *((2, z, ((x - 0.3, x + 0.3), (-1.8, 1.2)), 6 + 10 * k, None) for k, (x, z) in enumerate(pillars)),
        ]
        if closed:
            quads.append((2, -2.0, ((-3, 3), (-1.8, 1.2)), 8, None))
        if mover is not None:
            (x, y, z), (w, h) = mover.centres[i], mover.half_size
            quads.append((2, z, ((x - w, x + w), (y - h, y + h)), 7, (x, y - 0.7)))
        for axis, where, ((a0, a1), (b0, b1)), seed, shift in quads:
            with np.errstate(divide="ignore", invalid="ignore"):
                t = (where - o[axis]) / d[..., axis]
                point = o + d * t[..., None]
            a, b = (point[..., k] for k in range(3) if k != axis)
            hit = (t > 0.05) & (t < nearest) & (a >= a0) & (a <= a1) & (b >= b0) & (b <= b1)
            nearest[hit] = t[hit]
            dynamic[i][hit] = shift is not None
            da, db = shift or (0.0, 0.0)
            colour[hit] = _texture(a[hit] - da + 10, b[hit] - db + 10, seed)
        depth[i] = nearest
        rgb[i] = np.round(colour * 255)
    return World(rgb, depth, dynamic, cameras, intrinsics, mover)


def room(
    frames: int = 8,
    width: int = 96,
    height: int = 64,
    focal_px: float | None = None,
    motion: str = "moving",
    with_box: bool = True,
) -> World:
    """A room 6 m wide and 5 m deep with a pillar, a hand-held camera, and a panel that slides to the right."""
    focal = focal_px or 0.9 * width
    intrinsics = np.tile([focal, focal, width / 2, height / 2], (frames, 1)).astype(float)
    return film(hand_held(frames, motion), intrinsics, width, height, sliding_box(frames) if with_box else None)


def square_intrinsics(focal_px: np.ndarray | float, width: int, height: int, frames: int) -> np.ndarray:
    """(T, 4) intrinsics whose principal point is where MonST3R's family takes it to be: half a pixel off the centre."""
    focal = np.broadcast_to(np.asarray(focal_px, float), (frames,))
    return np.stack([focal, focal, np.full(frames, width / 2 + 0.5), np.full(frames, height / 2 + 0.5)], axis=1)


def hand_held_room(frames: int = 10, width: int = 96, height: int = 64) -> World:
    """A hand-held camera in the room, and a panel that slides."""
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return film(hand_held(frames), lens, width, height, sliding_box(frames))


def fast_pan(frames: int = 24, width: int = 96, height: int = 64) -> World:
    """80 degrees in one second, while the camera hardly travels."""
    cameras = [
        look(1.4 * s - 0.7, 0.05 * np.sin(5 * s), 0.02 * np.sin(7 * s), (0.5 * s - 0.25, 0.05 * np.sin(4 * s), 0.0))
        for s in np.linspace(0, 1, frames)
    ]
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return film(np.stack(cameras), lens, width, height, sliding_box(frames))


def locked_off(frames: int = 16, width: int = 96, height: int = 64) -> World:
    """A camera on a tripod."""
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return film(hand_held(frames, "locked"), lens, width, height, sliding_box(frames))


def zooming(frames: int = 20, width: int = 96, height: int = 64) -> World:
    """A hand-held camera whose focal length grows by 60 %."""
    lens = square_intrinsics(0.83 * width * 1.6 ** np.linspace(0, 1, frames), width, height, frames)
    return film(hand_held(frames), lens, width, height, sliding_box(frames))


def large_mover(frames: int = 16, width: int = 96, height: int = 64) -> World:
    """Something that moves over 44 % of the picture."""
    x = -0.45 + 0.9 * np.linspace(0, 1, frames)
    mover = Mover(np.stack([x, np.full(frames, 0.1), np.full(frames, 2.2)], axis=1), (0.66, 0.52))
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return film(hand_held(frames), lens, width, height, mover)


def long_walk(frames: int = 300, width: int = 96, height: int = 64) -> World:
    """A walk of 24 m through a corridor with columns, behind somebody."""
    s = np.linspace(0, 1, frames)
    cameras = [
        look(
            0.25 * np.sin(9 * t),
            0.03 * np.sin(23 * t),
            0.02 * np.sin(31 * t),
            (0.8 * np.sin(7 * t), 0.06 * np.sin(90 * t), 24 * t - 1),
        )
        for t in s
    ]
    walker = Mover(np.stack([0.5 * np.sin(20 * s), np.full(frames, 0.6), 24 * s + 2.2], axis=1), (0.3, 0.5))
    columns = tuple((-2.0 if k % 2 == 0 else 2.0, z) for k, z in enumerate(np.linspace(3, 29, 14)))
    lens = square_intrinsics(0.9 * width, width, height, frames)
    return film(np.stack(cameras), lens, width, height, walker, far_wall_m=32.0, pillars=columns)


def loop_walk(
    frames: int = 200,
    width: int = 96,
    height: int = 64,
    seed: int = 0,
    turns: float = 1.15,
    with_walker: bool = True,
) -> World:
    """A walk once round a hall 6 m x 11 m, and a bit further, looking ahead: the end sees again what the start saw.

    `seed` changes where it begins, which way it goes, and how the hand sways; a panel slides to and fro in the middle.
    """
    rng = np.random.default_rng(seed)
    way, begin, phases = rng.choice([-1, 1]), rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi, 5)
    cameras = []
    for s in np.linspace(0, turns, frames):
        angle = begin + way * 2 * np.pi * s
        x, z = 1.5 * np.cos(angle), 3.5 + 3.4 * np.sin(angle)
        ahead = np.arctan2(-1.5 * way * np.sin(angle), 3.4 * way * np.cos(angle))
        sway = np.sin(2 * np.pi * np.array([9, 7, 5, 3, 11]) * s + phases)
        # a little outward: towards what is there to be seen
        yaw = ahead - 0.35 * way + 0.12 * sway[0]
        cameras.append(look(yaw, 0.04 * sway[1], 0.03 * sway[2], (x + 0.1 * sway[3], 0.05 * sway[4], z)))
    to_and_fro = 0.5 * np.sin(2 * np.pi * 2.5 * np.linspace(0, turns, frames) + phases[0])
    walker = Mover(np.stack([to_and_fro, np.full(frames, 0.6), np.full(frames, 3.5)], axis=1), (0.3, 0.6))
    columns = ((2.5, 0.4), (-2.4, 2.0), (0.0, 1.6), (2.4, 5.0), (-2.5, 6.2), (0.2, 5.6), (1.0, 8.2))
    lens = square_intrinsics(0.9 * width, width, height, frames)
    mover = walker if with_walker else None
    return film(np.stack(cameras), lens, width, height, mover, far_wall_m=9.0, pillars=columns, closed=True)


def as_capture(world: World, plate_size: tuple[int, int] | None = None, fps: Fraction = Fraction(24)) -> Capture:
    """The world as the capture that a perfect engine would make of it; the plate may be larger than the grid."""
    frames = len(world.depth)
    width, height = world.size
    plate_w, plate_h = plate_size or (width, height)
    plate_map = PlateMap(width / plate_w, height / plate_h)
    rng = np.random.default_rng(0)
    # Tracks: static pixels of frame 0, followed through every frame that sees them (no occlusion test needed
    # for the law that a point projects on its own observation).
    from backend.geometry.camera import project, unproject

    points = unproject(world.depth, world.intrinsics, world.world_from_camera)
    static = np.argwhere(~world.dynamic[0])
    chosen = static[rng.choice(len(static), min(200, len(static)), replace=False)]
    points_world = points[0, chosen[:, 0], chosen[:, 1]]
    observations = []
    for i in range(frames):
        xy, z = project(points_world, world.intrinsics[i], world.world_from_camera[i])
        inside = (z > 0) & (xy > 0).all(1) & (xy < (width, height)).all(1)
        observations += [(n, i, *plate_map.to_plate(xy[n])) for n in np.flatnonzero(inside)]
    seen = np.array(observations)
    return Capture(
        clip=ClipInfo(
            source="room.mp4",
            plate_size=(plate_w, plate_h),
            fps=fps,
            frame_indices=tuple(range(frames)),
            timestamps=tuple(float(i / fps) for i in range(frames)),
        ),
        plate_map=plate_map,
        engine=EngineStamp("synthetic", "1", "GPL-3.0-or-later", True),
        settings={},
        metric=True,
        confidence_meaning="1 everywhere: exact",
        confidence_default=0.0,
        world_from_camera=world.world_from_camera,
        intrinsics=world.intrinsics,
        rgb=world.rgb,
        depth=world.depth,
        confidence=np.ones_like(world.depth, np.float16),
        dynamic=world.dynamic,
        frames=tuple(FrameReport(True, reprojection_error_px=0.0) for _ in range(frames)),
        shot=ShotReport("moving", 0.0, "user"),
        tracks=Tracks(
            points_world=points_world,
            colours=world.rgb[0][chosen[:, 0], chosen[:, 1]],
            errors_px=np.zeros(len(points_world)),
            point=seen[:, 0].astype(np.int32),
            frame=seen[:, 1].astype(np.int32),
            plate_xy=seen[:, 2:4],
        ),
        plate_masks=None,
    )
