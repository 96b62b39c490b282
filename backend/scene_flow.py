"""Scene flow: how fast what moves travels through the world, from depth and optical flow of neighbouring frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from .classical.dense import jumps
from .classical.flow import Flows, inside, sample
from .classical.parallel import in_threads
from .geometry.camera import pixel_centres
from .run import Run
from .wire import CONFIDENCE_CARD, Capture

#: Pixels at 512 across by which flow and the flow back may disagree.
MAX_ERROR_PX = 1.0
#: A depth that changes by this factor from one frame to the next is another surface's.
MAX_CHANGE = 1.15
#: Velocities are averaged over a mover's pixels this share of the width around, which also carries them to its rim.
REACH = 0.008
#: Least share of such a window that must have been measured.
ENOUGH = 0.1
#: Largest number of half precision.
LARGEST = 6e4


def velocities(capture: Capture, flows: Flows, run: Run) -> np.ndarray:
    """(T, H, W, 3) float16: the velocity of the movers of `capture.objects`, world units per second, 0 elsewhere.

    `flows` are those between consecutive frames. A pixel's place in the world is compared with those where flow finds
    it in the next frame and in the one before; with one alone where the other does not know. A place counts where flow
    agrees with the flow back, on the same mover, away from jumps in depth, and where the depth is no mere guess.
    """
    count, height, width = capture.depth.shape
    velocity = np.lib.format.open_memmap(
        Path(run.work_dir) / "velocity.npy", mode="w+", dtype=np.float16, shape=(count, height, width, 3)
    )
    has_camera = capture.has_camera

    def measure(t: int) -> None:
        if capture.objects[t].any() and has_camera[t]:
            neighbours = [n for n in (t - 1, t + 1) if 0 <= n < count and has_camera[n]]
            velocity[t] = velocity_of(t, neighbours, capture, flows)

    for _ in in_threads(measure, count, run):
        pass
    return velocity


def velocity_of(t: int, neighbours: list[int], capture: Capture, flows: Flows) -> np.ndarray:
    """(H, W, 3) float32 of frame t, from one or both of the frames beside it."""
    width, height = capture.processed_size
    seconds, objects = capture.clip.timestamps, capture.objects[t]
    xy = pixel_centres(width, height).astype(np.float32)
    here, here_known = _places(t, xy, objects, capture)
    # The frame's own place stands for the one that a neighbour does not know.
    ends = {side: (here, np.full(objects.shape, seconds[t]), np.zeros_like(here_known)) for side in (-1, 1)}
    for n in neighbours:
        flow, error = flows.between(t, n)
        there, known = _places(n, xy + flow, objects, capture)
        z, z_of_here = (_depth(points, capture.world_from_camera[n]) for points in (there, here))
        known &= here_known & (error < MAX_ERROR_PX * width / 512)
        known &= (z < MAX_CHANGE * z_of_here) & (z_of_here < MAX_CHANGE * z)
        ends[n - t] = np.where(known[..., None], there, here), np.where(known, seconds[n], seconds[t]), known
    (begin, begin_s, before), (end, end_s, after) = ends[-1], ends[1]
    good = (before | after) & (end_s > begin_s)
    rate = (end - begin) / np.where(good, end_s - begin_s, 1)[..., None]
    return _evened(np.where(good[..., None], rate, 0).astype(np.float32), good, objects)


def _places(n: int, xy: np.ndarray, objects: np.ndarray, capture: Capture) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) world points at pixels `xy` (H, W, 2) of frame n, and whether they are measured on the same object."""
    width, height = capture.processed_size
    depth = np.asarray(capture.depth[n])
    least = max(capture.confidence_default, CONFIDENCE_CARD) - 1e-3  # conf.npy is in half precision
    whole = cv2.erode((depth > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    sound = whole & (np.asarray(capture.confidence[n], np.float32) >= least) & ~jumps(depth)
    sound = np.where(sound, np.asarray(capture.objects[n]), 0).astype(np.float32)
    known = (objects > 0) & inside(xy, width, height) & (sample(sound, xy, nearest=True) == objects)
    fx, fy, cx, cy = capture.intrinsics[n]
    z = sample(depth, xy)
    points = np.stack([(xy[..., 0] - cx) / fx * z, (xy[..., 1] - cy) / fy * z, z], axis=-1)
    camera = capture.world_from_camera[n]
    return points @ camera[:3, :3].T + camera[:3, 3], known


def _depth(points: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """(H, W) z-depth of world points in a camera."""
    return (points - world_from_camera[:3, 3]) @ world_from_camera[:3, 2]


def _evened(rate: np.ndarray, good: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """(H, W, 3) means of each mover's measured velocities around its pixels; 0 where too few are near."""
    side = 2 * max(1, round(REACH * objects.shape[1])) + 1
    out = np.zeros_like(rate)
    for number in np.unique(objects[objects > 0]):
        mine = objects == number
        share = cv2.blur((good & mine).astype(np.float32), (side, side))
        mean = cv2.blur(np.where((good & mine)[..., None], rate, 0), (side, side)) / np.maximum(share, 1e-6)[..., None]
        out = np.where((mine & (share > ENOUGH))[..., None], mean, out)
    return np.clip(np.nan_to_num(out), -LARGEST, LARGEST)
