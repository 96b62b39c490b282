"""The world of the refined cameras: their scale, place and orientation are those of the engine's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter1d, median_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.transform import Rotation

from ..geometry.rigid import Similarity, invert_poses, mean_rotation, poses_from
from ..geometry.trajectory import interpolate_poses
from .cameras import Cameras
from .sightings import Static

#: Frames hang together when they share this many tracks.
MIN_SHARED = 12
#: Depth of a frame is multiplied by a factor of its own only when one is off by more than this somewhere.
SCALE_OFF = 0.003
#: Frames over which such factors are smoothed (median, then Gaussian).
SMOOTH_FRAMES, SMOOTH_SIGMA = 3, 1.0
#: A frame that was not refined follows the mean of so many that were.
CARRIED_BY = 5
#: Fewest sightings with a depth that tell a frame's factor.
MIN_DEPTHS = 30


def groups(static: Static, frame_count: int, least: int = MIN_SHARED) -> np.ndarray:
    """(T,) number of the group of frames that `least` tracks join, -1 where a frame is joined to no other."""
    ones = np.ones(len(static.seen))
    sees = coo_array((ones, (static.seen.frame, static.seen.track)), shape=(frame_count, static.track_count)).tocsr()
    shared = (sees @ sees.T).toarray() >= least
    _, group = connected_components(shared, directed=False)
    return np.where(np.bincount(group)[group] > 1, group, -1)


def to_engine_world(
    refined: Cameras, points_world: np.ndarray, static: Static, engine: Cameras
) -> tuple[Cameras, np.ndarray]:
    """The refined cameras and points in the engine's world, each group of frames that tracks join by itself.

    Orientation: the robust mean over frames. Scale: the median of the engine's depth over the points'. Place: the
    median over frames.
    """
    group = groups(static, len(refined.focal_px))
    of_track = np.full(static.track_count, -1)
    of_track[static.seen.track] = group[static.seen.frame]
    poses, points = refined.world_from_camera.copy(), points_world.copy()
    depth = refined.in_camera(points_world, static.seen)[:, 2]
    for g in np.unique(group[group >= 0]):
        frames = group == g
        turn = robust_mean(engine.world_from_camera[frames, :3, :3] @ np.swapaxes(poses[frames, :3, :3], 1, 2))
        here = (group[static.seen.frame] == g) & (static.depth > 0) & (depth > 0)
        scale = np.exp(np.median(np.log(static.depth[here] / depth[here]))) if here.any() else 1.0
        place = np.median(engine.centres[frames] - scale * refined.centres[frames] @ turn.T, axis=0)
        move = Similarity(float(scale), turn, place)
        poses[frames] = move.apply_to_poses(poses[frames])
        points[of_track == g] = move.apply(points[of_track == g])
    return replace(refined, world_from_camera=poses), points


def robust_mean(rotations: np.ndarray) -> np.ndarray:
    """(3, 3) mean of (N, 3, 3) rotations in which those far from the rest have little say."""
    turns = Rotation.from_matrix(rotations)
    mean = turns.mean()
    for _ in range(10):
        away = (mean.inv() * turns).magnitude()
        mean = turns.mean(1 / (1 + (away / max(np.median(away), 1e-9)) ** 2))
    return mean.as_matrix()


def carry(refined: Cameras, engine: Cameras, measured: np.ndarray) -> Cameras:
    """Refined cameras where `measured` (T,) is true, elsewhere the engine's, moved as their neighbours were.

    What refinement did on average to the measured frames nearest to a gap is interpolated across it, and held before
    the first and after the last. (On one frame alone it would bring that frame's own error along.)
    """
    frames = np.flatnonzero(measured)
    changes = refined.world_from_camera @ invert_poses(engine.world_from_camera)
    beside = measured & ~(np.append(measured[1:], True) & np.insert(measured[:-1], 0, True))
    mean = np.full_like(changes, np.nan)
    for t in np.flatnonzero(beside):
        near = frames[np.argsort(np.abs(frames - t), kind="stable")[:CARRIED_BY]]
        moved = changes[near] @ engine.world_from_camera[t]
        middle = poses_from(mean_rotation(moved[:, :3, :3]), moved[:, :3, 3].mean(axis=0))
        mean[t] = middle @ invert_poses(engine.world_from_camera[t])
    if not beside.any():
        return refined
    mean, _ = interpolate_poses(mean)
    first, last = np.flatnonzero(beside)[[0, -1]]
    mean[:first], mean[last + 1 :] = mean[first], mean[last]
    poses = np.where(measured[:, None, None], refined.world_from_camera, mean @ engine.world_from_camera)
    return replace(refined, world_from_camera=poses)


def depth_factors(cameras: Cameras, points_world: np.ndarray, static: Static) -> np.ndarray:
    """(T,) factors that bring each frame's depth to the tracked points': 1 throughout when all are close to that."""
    depth = cameras.in_camera(points_world, static.seen)[:, 2]
    known = (static.depth > 0) & (depth > 0)
    frames = np.arange(len(cameras.focal_px))
    ratio = np.full(len(frames), np.nan)
    for t in frames:
        here = known & (static.seen.frame == t)
        if here.sum() >= MIN_DEPTHS:
            ratio[t] = np.median(np.log(depth[here] / static.depth[here]))
    told = np.isfinite(ratio)
    if not told.any():
        return np.ones(len(frames))
    ratio = np.interp(frames, frames[told], ratio[told])
    ratio = gaussian_filter1d(median_filter(ratio, SMOOTH_FRAMES, mode="nearest"), SMOOTH_SIGMA, mode="nearest")
    return np.exp(ratio) if np.abs(ratio).max() > SCALE_OFF else np.ones(len(frames))
