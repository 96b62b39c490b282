"""What the MASt3R engine shows once its images are aligned, before anything is filled in or refined."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..live import depth_frame
from ..monst3r.pictures import Pictures
from ..wire import ClipInfo, LiveFrame
from .spreading import Aligned


def aligned_frames(
    clip: ClipInfo, pictures: Pictures, frames: np.ndarray, aligned: Aligned, least: float
) -> Iterator[LiveFrame | None]:
    """The aligned `frames` (K,) that were placed, with the points that are surer than `least`."""
    for k, frame in enumerate(frames):
        focal = float(aligned.focal_px[k])
        yield depth_frame(
            clip,
            int(frame),
            rgb=pictures.rgb[frame],
            grid=pictures.plate_map,
            depth=np.where(aligned.confidence[k] >= least, aligned.depth[k], 0),
            world_from_camera=aligned.world_from_camera[k],
            intrinsics=np.array([focal, focal, *(aligned.centre[k] + 0.5)]),
        )
