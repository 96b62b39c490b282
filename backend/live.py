"""Live frames as an engine shows them: thin clouds of a frame's depth, or of the points its camera solve tracks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .geometry.camera import rays
from .run import Run
from .wire import Capture, ClipInfo, LiveFrame, LiveGrid, PlateMap, live

#: Points of a live frame of a clip that is not long.
POINTS = 20_000
#: Tracked points are few: each is shown so many plate pixels wide.
TRACK_PX = 4.0


def points_of(frames: int) -> int:
    """How many points a live frame of a clip of so many frames may have."""
    room = live.JOB_BYTES // frames - live.OVERHEAD_BYTES
    return max(1, min(POINTS, live.MOST_POINTS, room // live.POINT_BYTES))


def depth_frame(
    clip: ClipInfo,
    frame: int,
    *,
    rgb: np.ndarray,
    grid: PlateMap,
    depth: np.ndarray,
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    dynamic: np.ndarray | None = None,
    world: int = 0,
    pointers: np.ndarray = live.NO_POINTERS,
) -> LiveFrame | None:
    """A frame's (H, W) depth, 0 where it is not known, with its (H, W, 3) colours and (H, W) mask of movers.

    `grid` maps the plate to these pixels, `intrinsics` (4,) are theirs, `world_from_camera` (4, 4). `pointers` (P, 3)
    are what a streaming engine remembers, of which some are shown. None for a frame without a camera. A depth that is
    not worth showing should be 0: a partial capture is made of what was shown.
    """
    if not (np.isfinite(world_from_camera).all() and np.isfinite(intrinsics).all()):
        return None
    height, width = depth.shape
    step = max(1, int(np.ceil(np.sqrt(height * width / points_of(len(clip.frame_indices))))))
    thin = np.s_[step // 2 :: step, step // 2 :: step]
    z = np.asarray(depth[thin], np.float64)
    known = np.isfinite(z) & (z > 0)
    # The pixels that stay, as a grid of its own with the same rays: its first centre is at step // 2 + 0.5.
    first = step // 2 + 0.5 - step / 2
    of_thin = (np.asarray(intrinsics) - (0, 0, first, first)) / step
    ray = rays(of_thin, z.shape[1], z.shape[0])[known] * z[known][:, None]
    of_plate = PlateMap(grid.sx / step, grid.sy / step, (grid.ox + first) / step, (grid.oy + first) / step)
    return LiveFrame(
        frame=frame,
        clip_frame=int(clip.clip_frames[frame]),
        plate_size=clip.plate_size,
        world_from_camera=np.asarray(world_from_camera, np.float64),
        plate_intrinsics=grid.intrinsics_to_plate(intrinsics),
        points=(ray @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]).astype(np.float32),
        colours=np.ascontiguousarray(rgb[thin][known]),
        dynamic=np.zeros(known.sum(), bool) if dynamic is None else np.ascontiguousarray(dynamic[thin][known]),
        spacing=float(step / np.sqrt(intrinsics[0] * intrinsics[1])),
        world=world,
        clip=_alone(clip, frame),
        of_frames=len(clip.frame_indices),
        grid=LiveGrid((z.shape[1], z.shape[0]), of_plate),
        pointers=_some(pointers),
    )


def tracks_frame(
    clip: ClipInfo,
    frame: int,
    *,
    points_world: np.ndarray,
    colours: np.ndarray,
    world_from_camera: np.ndarray,
    plate_intrinsics: np.ndarray,
    world: int = 0,
) -> LiveFrame | None:
    """A frame's camera and the (N, 3) points that its solve knows of, with (N, 3) uint8 colours; None without one."""
    if not (np.isfinite(world_from_camera).all() and np.isfinite(plate_intrinsics).all()):
        return None
    known = np.flatnonzero(np.isfinite(points_world).all(axis=1))[: points_of(len(clip.frame_indices))]
    return LiveFrame(
        frame=frame,
        clip_frame=int(clip.clip_frames[frame]),
        plate_size=clip.plate_size,
        world_from_camera=np.asarray(world_from_camera, np.float64),
        plate_intrinsics=np.asarray(plate_intrinsics, np.float64),
        points=points_world[known].astype(np.float32),
        colours=np.ascontiguousarray(colours[known], np.uint8),
        dynamic=np.zeros(len(known), bool),
        spacing=float(TRACK_PX / np.sqrt(plate_intrinsics[0] * plate_intrinsics[1])),
        world=world,
        clip=_alone(clip, frame),
        of_frames=len(clip.frame_indices),
    )


def show_capture(run: Run, capture: Capture, world: int = 0) -> None:
    """Show every frame of a capture that is not finished yet; `world` as in `LiveFrame`."""

    def frame_of(t: int) -> LiveFrame | None:
        return depth_frame(
            capture.clip,
            t,
            rgb=capture.rgb[t],
            grid=capture.plate_map,
            depth=np.where(capture.confidence[t] >= capture.confidence_default, capture.depth[t], 0),
            world_from_camera=capture.world_from_camera[t],
            intrinsics=capture.intrinsics[t],
            dynamic=capture.dynamic[t],
            world=world,
        )

    run.show(lambda: map(frame_of, range(capture.frame_count)))


def _alone(clip: ClipInfo, frame: int) -> ClipInfo:
    """The clip with this one of its frames."""
    return replace(
        clip,
        source="",
        frame_indices=clip.frame_indices[frame : frame + 1],
        timestamps=clip.timestamps[frame : frame + 1],
        image_names=clip.image_names[frame : frame + 1],
    )


def _some(pointers: np.ndarray) -> np.ndarray:
    """(P, 3) float32 of the places that are known, evenly thinned to as many as a live frame may have."""
    known = pointers[np.isfinite(pointers).all(axis=1)]
    step = -(-len(known) // live.MOST_POINTERS) or 1
    return np.ascontiguousarray(known[::step], np.float32)
