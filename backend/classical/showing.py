"""What the classical engine shows while it works: the tracked points of each frame, once its camera is solved."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..clip import Clip
from ..live import tracks_frame
from ..wire import LiveFrame, PlateMap
from .camera import Solved, normalised


def camera_frames(clip: Clip, solved: Solved, rgb: np.ndarray, grid: PlateMap) -> Iterator[LiveFrame | None]:
    """Each frame's camera with the tracked points that it sees, in the colours of (T, H, W, 3) `rgb`."""
    solution = normalised(solved).solution
    height, width = rgb.shape[1:3]
    seen = solution.observations
    x, y = np.floor(grid.to_grid(seen.xy)).astype(int).T
    colours = rgb[seen.frame, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    for frame, pose in enumerate(solution.world_from_camera):
        mine = seen.frame == frame
        yield tracks_frame(
            clip.info,
            frame,
            points_world=solution.points_world[seen.track[mine]],
            colours=colours[mine],
            world_from_camera=pose,
            plate_intrinsics=solution.intrinsics,
        )
