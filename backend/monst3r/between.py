"""Frames between the solved ones: their camera, depth, confidence and motion from the nearest solved frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..align.motion import look_up, pixel_grid
from ..geometry.trajectory import interpolate_poses
from ..run import Run
from .models import FlowSource

#: What is carried over counts for less than what was solved: its confidence above 1 is this share.
CARRIED = 0.5
#: Flows asked for together.
BATCH = 16


@dataclass(frozen=True)
class Solved:
    """Frames with what is known of them: `world_from_camera` (T, 4, 4), NaN where there is no camera, `focal_px` (T,),
    `depth`, `confidence`, `scores` (T, H, W); `interpolated` (T,) bool, whose camera was taken from neighbours, and
    `wanted` (T,) bool, which ones were to be solved."""

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    scores: np.ndarray
    interpolated: np.ndarray
    wanted: np.ndarray


def fill_between(
    solved: Solved,
    keys: np.ndarray,
    times: np.ndarray,
    flow: FlowSource | None,
    run: Run,
    centre: tuple[float, float] | None = None,
) -> Solved:
    """`solved` of the key frames (K,) spread over all of T frames with `times` (T,) in seconds.

    Cameras between are interpolated over time, focal lengths too. Flow from a frame to its nearest solved one looks up
    that one's depth, seen from the frame's own camera, and its motion. Without flow, or where it is not valid, depth
    stays 0 and motion is that of the same pixel. `centre` is the principal point, None for (W/2, H/2).
    """
    count = len(times)
    height, width = solved.depth.shape[1:]
    poses = np.full((count, 4, 4), np.nan)
    poses[keys] = solved.world_from_camera
    poses, filled = interpolate_poses(poses, times)
    focal = np.interp(times, times[keys], solved.focal_px)
    interpolated = filled.copy()
    interpolated[keys] |= solved.interpolated
    depth, confidence, scores = (np.zeros((count, height, width), np.float32) for _ in range(3))
    depth[keys], confidence[keys], scores[keys] = solved.depth, solved.confidence, solved.scores
    place = np.abs(times[:, None] - times[keys]).argmin(axis=1)
    between = np.setdiff1d(np.arange(count), keys)
    for i, n in enumerate(run.steps(between)):
        k = place[n]
        scores[n] = solved.scores[k]
        if flow is not None and i % BATCH == 0:
            found = flow.predict([(int(m), int(keys[place[m]])) for m in between[i : i + BATCH]])
        if flow is None or not np.isfinite(poses[[n, keys[k]]]).all():
            continue
        flow_to_key = found.flow[i % BATCH, None].float().movedim(1, -1).cpu()
        valid = found.valid[i % BATCH].cpu().numpy()
        z, sure, score = (
            look_up(torch.from_numpy(np.ascontiguousarray(a[k], np.float32))[None], flow_to_key)[0].numpy()
            for a in (solved.depth, solved.confidence, solved.scores)
        )
        at = (pixel_grid((width, height), centre=centre) + flow_to_key[0]).numpy() / focal[keys[k]]
        points = np.concatenate([at, np.ones_like(at[..., :1])], -1) * z[..., None]
        own_from_key = np.linalg.inv(poses[n]) @ poses[keys[k]]
        own_z = points @ own_from_key[2, :3] + own_from_key[2, 3]
        good = valid & (z > 0) & (own_z > 0)
        depth[n] = np.where(good, own_z, 0)
        confidence[n] = np.where(good, 1 + CARRIED * (sure - 1), 0)
        scores[n] = np.where(valid, score, scores[n])
    return Solved(poses, focal, depth, confidence, scores, interpolated, np.isin(np.arange(count), keys))
