"""A plate that was put into the world of the synthetic room, as the engine that localises reports it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from backend.wire import Capture, EngineStamp, FrameReport, ShotReport
from tests.worlds import as_capture, film, look


def localised(
    frames: int = 3,
    plate_size: tuple[int, int] = (90, 60),
    source: str = "plate.mp4",
    lost: tuple[int, ...] = (),
    reference: str = "room.mp4",
    job: str = "",
    fps: Fraction = Fraction(24),
) -> Capture:
    """Another camera with another lens in the room of `tests.worlds.room`; `lost` frames were not found in it.

    Its own picture is 45 x 30 pixels. Frame 1 is told to be of low confidence.
    """
    cameras = np.stack(
        [look(0.25 - 0.1 * s, 0.05, 0.02, (0.4 * s - 0.9, -0.2, 0.3)) for s in np.linspace(0, 1, frames)]
    )
    lens = np.tile([50.0, 50.0, 23.0, 14.5], (frames, 1))
    capture = as_capture(film(cameras, lens, 45, 30), plate_size, fps)
    found = np.ones(frames, bool)
    found[list(lost)] = False
    poses, intrinsics = cameras.copy(), lens.copy()
    poses[~found], intrinsics[~found] = np.nan, np.nan
    told = [
        {"frame": i, "matches": 120 + i, "inliers": 100 - 10 * i, "error_px": 0.4 + 0.1 * i, "compared": [0, 1]}
        if found[i]
        else {"frame": i, "matches": 12, "inliers": 3, "error_px": None, "compared": [0, 1]}
        for i in range(frames)
    ]
    about = {"source": reference, "engine": "synthetic", "folder": "capture"}
    tracks = capture.tracks
    seen = found[tracks.frame]
    return replace(
        capture,
        clip=replace(capture.clip, source=source),
        engine=EngineStamp("localise", "1", "GPL-3.0-or-later", True),
        settings={"engine": "localise", "engine_settings": {"reference": job}},
        world_from_camera=poses,
        intrinsics=intrinsics,
        depth=np.where(found[:, None, None], capture.depth, 0).astype(np.float32),
        frames=tuple(
            FrameReport(bool(found[i]), low_confidence=i == 1, reprojection_error_px=told[i]["error_px"])
            for i in range(frames)
        ),
        shot=ShotReport(
            "moving", None, "solved", details={"localised": {"reference": about, "matcher": "classic", "frames": told}}
        ),
        tracks=replace(tracks, point=tracks.point[seen], frame=tracks.frame[seen], plate_xy=tracks.plate_xy[seen]),
    )
