"""What moves, as optical flow tells: what the cameras and the depth of a frame do not explain of it."""

from __future__ import annotations

import numpy as np
import torch

from ..align.motion import Cameras, motion_scores
from ..geometry.rigid import invert_poses
from ..monst3r.models import FlowSource
from ..run import Run

#: Frames whose flows are held at a time, and those beside them that are looked at again.
WINDOW, BESIDE = 24, 2
#: How far apart the frames of a flow are.
DISTANCES = (1, 2)


def flow_scores(
    flow: FlowSource,
    depth: np.ndarray,
    world_from_camera: np.ndarray,
    focal_px: np.ndarray,
    centre: tuple[float, float],
    scores: np.ndarray,
    run: Run,
) -> None:
    """Raise `scores` (T, H, W), in units of the threshold of motion, to what the flow says where that is more.

    Frames without a camera keep theirs. Checks for cancellation.
    """
    count = len(depth)
    for begin in run.steps(range(0, count, WINDOW - 2 * BESIDE)):
        frames = range(max(0, begin - BESIDE), min(count, begin + WINDOW - BESIDE))
        edges = [(i, j) for i in frames for d in DISTANCES for j in (i - d, i + d) if j in frames]
        if not edges:
            continue
        found = flow.predict(edges)
        found = type(found)(edges=found.edges - frames.start, flow=found.flow, valid=found.valid)
        part = slice(frames.start, frames.stop)
        cameras = Cameras(
            torch.from_numpy(invert_poses(world_from_camera[part])), torch.from_numpy(focal_px[part]), centre
        )
        told = motion_scores(found, torch.from_numpy(np.asarray(depth[part], np.float32)), cameras).numpy()
        own = range(begin, min(count, begin + WINDOW - 2 * BESIDE))
        for t in own:
            scores[t] = np.maximum(scores[t], told[t - frames.start])
