"""Refined cameras of a set of sightings: from the engine's cameras by rounds of adjustment, wide to narrow."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from ..classical.nodal import solve_nodal
from ..classical.tracks import Observations
from ..geometry.rigid import poses_from
from ..run import Run
from .bundle import adjust
from .cameras import Cameras
from .gauge import groups, robust_mean, to_engine_world
from .points import loss_scale, measure, triangulate, typical_error
from .sightings import Static

log = logging.getLogger(__name__)

#: A frame with fewer sightings than this is not refined.
MIN_SIGHTINGS = 20
#: Sightings further off than this many times their frame's typical error, and than so many pixels, are left out.
OUTLIER_TIMES = (8.0, 6.0, 5.0, 5.0)
OUTLIER_PX = 1.0
#: Rounds end early when the median error no longer falls by this share.
SETTLED = 0.02


@dataclass(frozen=True)
class Solved:
    """Cameras in the engine's world, which of the T frames they are refined on, and the sightings that agree."""

    cameras: Cameras
    refined: np.ndarray
    static: Static
    points_world: np.ndarray


def without_outliers(static: Static, errors_px: np.ndarray, times: float, frame_count: int, least: int) -> Static:
    """Sightings within `times` the typical error of their frame, on frames that keep enough of them."""
    limit = np.full(frame_count, np.inf)
    overall = typical_error(errors_px)
    for t in np.unique(static.seen.frame):
        here = typical_error(errors_px[static.seen.frame == t])
        limit[t] = max(OUTLIER_PX, times * max(min(here, 3 * overall), overall / 2))
    return well_seen(static.where(errors_px < limit[static.seen.frame]), frame_count, least)


def well_seen(static: Static, frame_count: int, least: int) -> Static:
    """Sightings of frames that have at least `least`, and that tracks join to others."""
    for _ in range(10):
        few = (static.per_frame(frame_count) < least) | (groups(static, frame_count, least // 2) < 0)
        drop = few[static.seen.frame]
        if not drop.any():
            break
        static = static.where(~drop)
    return static


def solve_moving(
    static: Static, engine: Cameras, lens: str, run: Run, least: int = MIN_SIGHTINGS, start: Solved | None = None
) -> Solved | None:
    """Poses, and the focal length where `lens` is not 'fixed', by bundle adjustment; None when hardly anything is left.

    It starts from `start`, an earlier solution, or from the engine's cameras. Every round places all points anew in
    the cameras of the last, so that a sighting once left out may come back.
    """
    frame_count = len(engine.focal_px)
    cameras, last = engine if start is None else start.cameras, np.inf
    for i, times in enumerate(OUTLIER_TIMES):
        points, errors = measure(static, cameras)
        used = without_outliers(static, errors, times, frame_count, least)
        if len(used.seen) == 0:
            return None
        noise = loss_scale(errors)
        points = triangulate(used, cameras, noise)
        narrow = i > 0 or start is not None
        cameras, points = adjust(used, points, cameras, noise, lens if narrow else "fixed", run)
        cameras, points = to_engine_world(cameras, points, used, engine)
        median = float(np.median(cameras.errors_px(points, used.seen)))
        log.info("Round %d: %d sightings, median error %.3f px", i, len(used.seen), median)
        if narrow and median > (1 - SETTLED) * last:
            break
        last = median
    return Solved(cameras, used.per_frame(frame_count) > 0, used, points)


def solve_turning(
    static: Static, engine: Cameras, lens: str, run: Run, least: int = MIN_SIGHTINGS, start: Solved | None = None
) -> Solved | None:
    """Rotations of a camera that stands still, at the median of the engine's places; None when it diverges.

    Frames that tracks do not join to most of the others are left out. It needs no `start`.
    """
    frame_count = len(engine.focal_px)
    static = well_seen(static, frame_count, least)
    if len(static.seen) == 0:
        return None
    group = groups(static, frame_count, least // 2)
    static = static.where((group == np.bincount(group[group >= 0]).argmax())[static.seen.frame])
    reference = float(np.median(engine.focal_px[engine.known]))
    side = 2.0 * np.abs(static.seen.xy - engine.centre_px[static.seen.frame]).max()
    xy = engine.rays(static.seen)[:, :2] * reference + side / 2
    seen = Observations(static.seen.track, static.seen.frame, xy)
    solution = solve_nodal(seen, frame_count, (side, side), reference, lens != "fixed", run)
    if solution is None:
        return None
    rotations = solution.world_from_camera[:, :3, :3]
    refined = np.isfinite(rotations).all(axis=(1, 2)) & (static.per_frame(frame_count) > 0)
    if not refined.any():
        return None
    turn = robust_mean(engine.world_from_camera[refined, :3, :3] @ np.swapaxes(rotations[refined], 1, 2))
    place = np.median(engine.centres[engine.known], axis=0)
    poses = poses_from(turn @ rotations, np.tile(place, (frame_count, 1)))
    poses[~refined] = engine.world_from_camera[~refined]
    cameras = replace(engine, world_from_camera=poses, focal_px=engine.focal_px * solution.focal_px / reference)
    static = static.where(refined[static.seen.frame])
    _, errors = measure(static, cameras)
    used = without_outliers(static, errors, OUTLIER_TIMES[-1], frame_count, least)
    if len(used.seen) == 0:
        return None
    return Solved(cameras, used.per_frame(frame_count) > 0, used, triangulate(used, cameras, loss_scale(errors)))
