"""What moves in the clip: things, as other frames see through them and optical flow may tell, and the camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..monst3r.knowns import Given, looks_locked
from ..monst3r.models import FlowSource
from ..nets.flow import ClassicalFlow
from ..run import Run
from ..streaming.movers import PosedDepth, mover_scores
from ..wire import Point3RSettings, UserError
from .flowing import flow_scores
from .placing import Placed
from .report import intrinsics_of

#: Frames that are compared with the middle one to see whether the camera stands still.
LOOKED_AT = 9


def motion_of(placed: Placed, flow: FlowSource | None, device: torch.device, find: bool, run: Run) -> np.ndarray:
    """(T, H, W) float16 scores in units of the threshold of motion, in a file of the job; of several the highest.

    All 0 unless they are to be found.
    """
    count = len(placed.depth)
    scores = np.lib.format.open_memmap(
        Path(run.work_dir) / "motion_scores.npy", mode="w+", dtype=np.float16, shape=placed.depth.shape
    )
    if not find:
        return scores
    lens = intrinsics_of(placed.focal_px, placed.centre)

    def frame(t: int) -> PosedDepth:
        return PosedDepth(placed.depth[t], placed.world_from_camera[t], lens[t])

    for t, score in zip(run.steps(count), mover_scores(frame, count, device=device)):
        scores[t] = score
    if flow is not None:
        flow_scores(flow, placed.depth, placed.world_from_camera, placed.focal_px, placed.centre, scores, run)
    return scores


def stands_still(rgb: np.ndarray, options: Point3RSettings, given: Given, run: Run) -> bool:
    """Whether the camera of (T, H, W, 3) frames is to be taken to stand still; where nobody says, the picture does."""
    if options.camera != "auto" or given.world_from_camera is not None:
        if options.camera == "locked" and given.world_from_camera is not None:
            raise UserError("Camera poses are given for a camera that is said not to move", "leave out one of the two")
        return options.camera == "locked"
    middle = len(rgb) // 2
    others = np.unique(np.linspace(0, len(rgb) - 1, min(LOOKED_AT, len(rgb))).astype(int))
    flow = ClassicalFlow(rgb, run, both_ways=False)
    # one by one: most cameras are seen to move by the first
    return all(looks_locked(flow.predict([(middle, int(t))])) for t in others if t != middle)
