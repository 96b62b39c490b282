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
from .wire import CONFIDENCE_CARD, CONFIDENCE_MEASURED, Capture

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
    The depth of a card is one, but not its place in the picture: a card's velocity is that within its plane.
    """
    count, height, width = capture.depth.shape
    velocity = np.lib.format.open_memmap(
        Path(run.work_dir) / "velocity.npy", mode="w+", dtype=np.float16, shape=(count, height, width, 3)
    )
    has_camera = capture.has_camera
    sound = np.stack([_sound(t, capture) for t in range(count)])

    def measure(t: int) -> None:
        numbers = [k for k in np.unique(sound[t]) if k] if has_camera[t] else []
        beside = {n: flows.between(t, n) for n in (t - 1, t + 1) if len(numbers) and 0 <= n < count and has_camera[n]}
        for number in numbers:
            y, x = np.nonzero(capture.objects[t] == number)
            window = slice(y.min(), y.max() + 1), slice(x.min(), x.max() + 1)
            velocity[t][window] += _velocity(t, number, window, beside, sound, capture)

    for _ in in_threads(measure, count, run):
        pass
    return velocity


def _sound(t: int, capture: Capture) -> np.ndarray:
    """(H, W) the object of each pixel of frame t, 0 where its depth is no measurement or lies at a jump."""
    depth = np.asarray(capture.depth[t])
    least = max(capture.confidence_default, CONFIDENCE_CARD) - 1e-3  # conf.npy is in half precision
    known = cv2.erode((depth > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    known &= (np.asarray(capture.confidence[t]) >= np.float16(least)) & ~jumps(depth)
    return np.where(known, capture.objects[t], 0)


def _velocity(
    t: int,
    number: int,
    window: tuple[slice, slice],
    beside: dict[int, tuple[np.ndarray, np.ndarray]],
    sound: np.ndarray,
    capture: Capture,
) -> np.ndarray:
    """(h, w, 3) of one mover in a window of frame t; `beside` has flow to one or both of its neighbours, and its error.

    It is 0 for pixels of others.
    """
    width, height = capture.processed_size
    seconds = capture.clip.timestamps
    xy = pixel_centres(width, height)[window].astype(np.float32)
    here, here_known = _places(t, xy, number, sound, capture)
    on_card = np.asarray(capture.confidence[t][window], np.float32) < CONFIDENCE_MEASURED - 1e-3
    # The frame's own place stands for the one that a neighbour does not know.
    ends = {side: (here, np.full(here_known.shape, seconds[t]), np.zeros_like(here_known)) for side in (-1, 1)}
    for n, motion in beside.items():
        flow, error = (values[window] for values in motion)
        there, known = _places(n, xy + flow, number, sound, capture)
        there = np.where(on_card[..., None], _onto_plane(there, here, t, n, capture), there)
        z, z_of_here = (_depth(points, capture.world_from_camera[n]) for points in (there, here))
        known &= here_known & (error < MAX_ERROR_PX * width / 512)
        known &= (z < MAX_CHANGE * z_of_here) & (z_of_here < MAX_CHANGE * z)
        ends[n - t] = np.where(known[..., None], there, here), np.where(known, seconds[n], seconds[t]), known
    (begin, begin_s, before), (end, end_s, after) = ends[-1], ends[1]
    good = (before | after) & (end_s > begin_s)
    rate = np.where(good[..., None], (end - begin) / np.where(good, end_s - begin_s, 1)[..., None], 0)
    # Even out over the mover's pixels around.
    side = 2 * max(1, round(REACH * width)) + 1
    share, total = (cv2.blur(values.astype(np.float32), (side, side)) for values in (good, rate))
    mean = np.clip(total / np.maximum(share, 1e-6)[..., None], -LARGEST, LARGEST)
    return np.where(((capture.objects[t][window] == number) & (share > ENOUGH))[..., None], mean, 0)


def _places(n: int, xy: np.ndarray, number: int, sound: np.ndarray, capture: Capture) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, 3) world points at pixels `xy` (h, w, 2) of frame n, and whether they are measured on the mover."""
    width, height = capture.processed_size
    known = inside(xy, width, height) & (sample(sound[n], xy, nearest=True) == number)
    fx, fy, cx, cy = capture.intrinsics[n]
    z = sample(np.asarray(capture.depth[n]), xy)
    points = np.stack([(xy[..., 0] - cx) / fx * z, (xy[..., 1] - cy) / fy * z, z], axis=-1)
    camera = capture.world_from_camera[n]
    return points @ camera[:3, :3].T + camera[:3, 3], known


def _onto_plane(there: np.ndarray, here: np.ndarray, t: int, n: int, capture: Capture) -> np.ndarray:
    """(h, w, 3) places of frame n moved along their rays to the depth, in the camera of frame t, of those `here`."""
    eye, ahead = capture.world_from_camera[n][:3, 3], capture.world_from_camera[t][:3, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = ((here - eye) @ ahead) / ((there - eye) @ ahead)
    return eye + (there - eye) * np.where(np.isfinite(share), share, 1)[..., None]


def _depth(points: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    """(h, w) z-depth of world points in a camera."""
    return (points - world_from_camera[:3, 3]) @ world_from_camera[:3, 2]
