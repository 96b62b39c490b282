"""A partial capture: what had arrived of a job that ended without one, made of its live frames.

It has the frames that were shown, at the resolution at which they were shown, and says that it is partial.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .capture import Capture, EngineStamp, FrameReport, PlateMap, ShotReport, write_capture
from .errors import UserError
from .live import LiveFrame, LiveGrid
from .pictures import add_pictures, write_plain_png

#: Pixels of a frame where no frame says which grid its points were seen on.
PIXELS = 20_000
#: What every whole capture has beside the files of this one; `python -m backend export` makes them of it.
LEFT_OUT = ("scene.glb", "pred_traj.txt", "pred_intrinsics.txt")
MEANING = "1 where a depth was known when the job ended, 0 elsewhere; what was shown of it had no other confidence"


def write_partial(
    frames: Sequence[LiveFrame],
    folder: Path,
    source: str,
    engine: EngineStamp,
    settings: dict[str, Any],
    check: Callable[[float], None] = lambda fraction: None,
) -> Path:
    """Write the partial capture of these frames to a new folder, whole or not at all.

    `source` is the footage as this computer knows it. `check` is told how far it is and may raise to give up. Raises
    UserError when nothing can be made of the frames, or the folder cannot be written.
    """
    capture = capture_of(frames, source, engine, settings)

    def add(capture: Capture, staging: Path) -> dict[str, Any]:
        added = add_pictures(capture, staging, write_plain_png, check)
        return {**added, "left_out": list(LEFT_OUT)}

    return write_capture(capture, folder, [add])


def capture_of(frames: Sequence[LiveFrame], source: str, engine: EngineStamp, settings: dict[str, Any]) -> Capture:
    """The frames as a capture. Raises UserError when there are none, or they do not say what they are of."""
    frames = sorted(frames, key=lambda live: live.frame)
    if not frames:
        raise UserError("No frame of the job has arrived", "wait until points appear")
    if any(live.clip is None for live in frames):
        raise UserError("The backend does not say which frames of the clip it shows", "update the backend")
    grid = common_grid(frames)
    rgb, depth, dynamic = map(np.stack, zip(*(on_grid(live, grid) for live in frames), strict=True))
    cameras = np.array([live.world_from_camera for live in frames])
    of_frames = max(live.of_frames for live in frames)
    width, height = grid.size
    warning = (
        f"Partial: {len(frames)} of {of_frames} frames as they were known when the job ended, with at most "
        f"{width} x {height} points each; reconstruct again for all of it"
    )
    clips = [live.clip for live in frames]
    return Capture(
        clip=replace(
            clips[-1],
            source=source,
            frame_indices=tuple(clip.frame_indices[0] for clip in clips),
            timestamps=tuple(clip.timestamps[0] for clip in clips),
            image_names=tuple(name for clip in clips for name in clip.image_names),
        ),
        plate_map=grid.plate_map,
        engine=engine,
        settings=settings,
        metric=False,
        confidence_meaning=MEANING,
        confidence_default=0.5,
        world_from_camera=cameras,
        intrinsics=grid.plate_map.intrinsics_to_grid(np.array([live.plate_intrinsics for live in frames])),
        rgb=rgb,
        depth=depth,
        confidence=(depth > 0).astype(np.float16),
        dynamic=dynamic,
        frames=(FrameReport(registered=True),) * len(frames),
        shot=ShotReport(
            kind=_kind(cameras),
            solver_disagreement=None,
            focal_source="user" if settings.get("lens", {}).get("focal_mm") else "solved",
            warnings=(warning,),
        ),
        partial_of=of_frames,
    )


def common_grid(frames: Sequence[LiveFrame]) -> LiveGrid:
    """The grid that most of the frames were seen on; where none says, one of about PIXELS over the plate."""
    grids = Counter((live.grid.size, live.grid.plate_map) for live in frames if live.grid is not None)
    if grids:
        return LiveGrid(*grids.most_common(1)[0][0])
    width, height = frames[-1].plate_size
    scale = min(1.0, np.sqrt(PIXELS / (width * height)))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return LiveGrid(size, PlateMap(size[0] / width, size[1] / height))


def on_grid(live: LiveFrame, grid: LiveGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(H, W, 3) uint8 colours, (H, W) float32 z-depth and (H, W) bool movers: each pixel has the nearest of its points.

    Points that were seen on this grid come back to their own pixels.
    """
    width, height = grid.size
    rgb = np.zeros((height, width, 3), np.uint8)
    depth, dynamic = np.zeros((height, width), np.float32), np.zeros((height, width), bool)
    camera = live.world_from_camera
    points = (live.points - camera[:3, 3]) @ camera[:3, :3]
    fx, fy, cx, cy = grid.plate_map.intrinsics_to_grid(live.plate_intrinsics)
    z = points[:, 2]
    order = np.argsort(-z, kind="stable")
    order = order[z[order] > 0]
    x, y, z = points[order].T
    column, row = np.floor(fx * x / z + cx), np.floor(fy * y / z + cy)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    order, column, row, z = order[inside], column[inside].astype(int), row[inside].astype(int), z[inside]
    depth[row, column] = z  # of several, the last one stays: the nearest
    rgb[row, column] = live.colours[order]
    dynamic[row, column] = live.dynamic[order]
    return rgb, depth, dynamic


def _kind(cameras: np.ndarray) -> str:
    """What the camera did, as `ShotReport` names it."""
    if np.ptp(cameras[:, :3, 3], axis=0).max() > 0:
        return "moving"
    return "rotation" if np.ptp(cameras[:, :3, :3], axis=0).max() > 1e-9 else "locked"
