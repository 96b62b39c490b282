"""Motion masks: pixels whose flow the camera's own motion cannot explain."""

from __future__ import annotations

from itertools import islice

import cv2
import numpy as np

from ..geometry.camera import pixel_centres
from ..geometry.motion import unexplained_motion
from ..geometry.rigid import invert_poses
from ..run import Run
from .flow import Flows, inside, sample
from .parallel import in_threads
from .smoothing import edge_aware_mean

#: Frames smoothed together.
BATCH = 8
#: Pixels at 512 across by which a pixel may break the static motion at the threshold of 1.
TOLERANCE_PX = 1.2
#: Scores are cut at this, so that a strong mover's edge stays where it is when they are smoothed.
HIGHEST = 2.0


def motion_masks(
    frames: np.ndarray,
    flows: Flows,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    threshold: float,
    run: Run,
    steady: bool = True,
) -> np.ndarray:
    """(T, H, W) bool: what moves by itself in (T, H, W, 3) frames, for known cameras and intrinsics fx fy cx cy.

    `steady` has each frame listen to its neighbours, which is right for cameras that can be trusted; one bad frame of
    a first, rough camera would be spread by it.
    """
    count, height, width = frames.shape[:3]
    scores = np.zeros((count, height, width), np.float16)
    masks = np.zeros((count, height, width), bool)

    def score(t: int) -> tuple[np.ndarray, np.ndarray]:
        return motion_score(t, flows, world_from_camera, intrinsics, threshold * TOLERANCE_PX * width / 512)

    def decide(t: int) -> None:
        score = carried(t, scores, flows) if steady else scores[t]
        masks[t] = tidy(score > 1, height * width // 1000)

    raw = in_threads(score, count, run, end=0.8)
    for start in range(0, count, BATCH):
        batch = slice(start, min(start + BATCH, count))
        found, weights = (np.stack(a) for a in zip(*islice(raw, batch.stop - batch.start)))
        scores[batch], _ = edge_aware_mean(found, weights + 0.01, frames[batch], reach=width / 25, edge=10)
    for _ in in_threads(decide, count, run, begin=0.8):
        pass
    return masks


def motion_score(
    t: int, flows: Flows, world_from_camera: np.ndarray, intrinsics: np.ndarray, threshold_px: float
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) how far pixels of frame t break the static motion, in units of the threshold, and the weight of it.

    Each neighbour counts as far as its flow agrees with the flow back; where the flow itself is noisy, as the median
    distance tells, the threshold is wider.
    """
    width, height = flows.size
    xy = pixel_centres(width, height).astype(np.float32)
    total, weight = np.zeros((2, height, width), np.float32)
    for n in flows.neighbours(t):
        if not np.isfinite(world_from_camera[[t, n]]).all():
            continue
        forward, error = flows.between(t, n)
        targets = xy + forward
        n_from_t = invert_poses(world_from_camera[n]) @ world_from_camera[t]
        distance = unexplained_motion(xy, targets, n_from_t, intrinsics, intrinsics).astype(np.float32)
        trust = inside(targets, width, height) / (1 + error**2)
        seen = trust[::4, ::4] > 0.5
        noise = np.median(distance[::4, ::4][seen]) if seen.any() else 1.0
        total += trust * np.minimum(distance / (threshold_px * max(1.0, 3 * noise)), HIGHEST)
        weight += trust
    return total / np.maximum(weight, 1e-6), weight


def carried(t: int, scores: np.ndarray, flows: Flows) -> np.ndarray:
    """(H, W) the mean of a frame's score and of its neighbours', each looked up where the flow leads.

    Something that moves is seen to move for longer than one frame: where the camera happens to move along with it, the
    neighbours still tell, and false edges, which lie elsewhere in each frame, fade.
    """
    width, height = flows.size
    xy = pixel_centres(width, height).astype(np.float32)
    total, weight = scores[t].astype(np.float32), np.ones((height, width), np.float32)
    for n in flows.neighbours(t):
        forward, error = flows.between(t, n)
        targets = xy + forward
        trust = inside(targets, width, height) / (1 + error**2)
        total += trust * sample(scores[n].astype(np.float32), targets)
        weight += trust
    return total / weight


def tidy(mask: np.ndarray, smallest: float, fill: bool = True) -> np.ndarray:
    """(H, W) bool: the mask without specks, and with `fill` without pinholes, of fewer than `smallest` pixels."""
    for value in (True, False) if fill else (True,):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8), connectivity=4)
        small = stats[:, cv2.CC_STAT_AREA] < smallest
        small[0] = False  # the label of everything else
        mask = mask ^ small[labels]
    return mask
