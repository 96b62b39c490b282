"""What the MonST3R engine shows while it aligns: cameras and depth as the point maps alone give them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..live import depth_frame
from ..wire import ClipInfo, LiveFrame
from .knowns import Given
from .pictures import Pictures
from .report import normalised


def early_frames(
    clip: ClipInfo,
    pictures: Pictures,
    given: Given,
    frames: np.ndarray,
    camera_from_world: torch.Tensor,
    focal_px: torch.Tensor,
    depth: torch.Tensor,
) -> Iterator[LiveFrame | None]:
    """The key frames (K,) that were placed, in the world that the capture will have, but for small corrections."""
    depths = depth.numpy().astype(np.float32)
    poses, scale = np.linalg.inv(camera_from_world.double().numpy()), 1.0
    if given.world_from_camera is None:
        poses, scale = normalised(poses, depths, np.full(depths.shape, 2.0, np.float32))
    width, height = pictures.size
    centre_x, centre_y = given.centre or (width / 2, height / 2)
    for k, frame in enumerate(frames):
        focal = float(focal_px[k])
        yield depth_frame(
            clip,
            int(frame),
            rgb=pictures.rgb[frame],
            grid=pictures.plate_map,
            depth=depths[k] * scale,
            world_from_camera=poses[k],
            intrinsics=np.array([focal, focal, centre_x + 0.5, centre_y + 0.5]),
        )
