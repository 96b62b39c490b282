"""The classical engine's result as a capture, with what is known of each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..clip import Clip
from ..geometry.trajectory import interpolate_poses
from ..run import Run
from ..wire import (
    CONFIDENCE_CARD,
    CONFIDENCE_FILLED,
    ENGINES,
    Capture,
    EngineStamp,
    FrameReport,
    JobSettings,
    PlateMap,
    ShotReport,
    Tracks,
)
from .camera import Solved
from .sfm import Solution

VERSION = "1"
#: A frame whose mean reprojection error exceeds this fraction of the long side is marked.
SUSPICIOUS_ERROR = 2e-3
#: A frame with fewer tracks than this is marked.
FEW_TRACKS = 20

CONFIDENCE_MEANING = (
    f"{CONFIDENCE_FILLED} filled from the surroundings, {CONFIDENCE_CARD} flat card at a mover's contact depth, "
    "0.3 to 1 measured (flow agreement, residual, parallax), 0 nothing known"
)


@dataclass(frozen=True)
class Geometry:
    """What was made of T frames on the processed grid (H, W), and the masks also at plate resolution."""

    plate_map: PlateMap
    rgb: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    dynamic: np.ndarray
    plate_masks: np.ndarray


def to_capture(clip: Clip, settings: JobSettings, solved: Solved, geometry: Geometry, run: Run) -> Capture:
    """Everything as a capture: frames between registered ones get an interpolated camera and say so, others NaN."""
    solution, info = solved.solution, ENGINES["classical"]
    poses, interpolated = interpolate_poses(solution.world_from_camera, np.array(clip.info.timestamps))
    errors = solution.mean_error_px()
    sightings = np.bincount(solution.observations.frame, minlength=len(poses))
    suspicious = SUSPICIOUS_ERROR * max(clip.info.plate_size)
    frames = tuple(
        FrameReport(
            registered=bool(registered),
            interpolated=bool(between),
            low_confidence=bool(registered and (error > suspicious or seen < FEW_TRACKS)),
            reprojection_error_px=float(error) if math.isfinite(error) else None,
        )
        for registered, between, error, seen in zip(solution.registered, interpolated, errors, sightings)
    )
    warnings = list(clip.warnings) + list(solved.warnings)
    missing = len(poses) - int(solution.registered.sum())
    if missing:
        warnings.append(
            f"{missing} of {len(poses)} frames have no measured camera; {int(interpolated.sum())} were interpolated"
        )
    intrinsics = np.tile(geometry.plate_map.intrinsics_to_grid(solution.intrinsics), (len(poses), 1))
    intrinsics[~np.isfinite(poses).all(axis=(1, 2))] = np.nan
    return Capture(
        clip=clip.info,
        plate_map=geometry.plate_map,
        engine=EngineStamp(info.name, VERSION, info.licence, info.commercial_use),
        settings=settings.to_json(),
        metric=False,
        confidence_meaning=CONFIDENCE_MEANING,
        confidence_default=CONFIDENCE_CARD if solved.kind == "moving" else CONFIDENCE_FILLED,
        world_from_camera=poses,
        intrinsics=intrinsics,
        rgb=geometry.rgb,
        depth=geometry.depth.astype(np.float32),
        confidence=geometry.confidence.astype(np.float16),
        dynamic=geometry.dynamic,
        frames=frames,
        shot=ShotReport(
            kind=solved.kind,
            solver_disagreement=solved.disagreement,
            focal_source=solved.focal_source,
            warnings=tuple(warnings),
            details={
                "mean_reprojection_error_px": float(solution.errors_px.mean()),
                "horizontal_fov_deg": solution.horizontal_fov_deg,
                "tracks": len(solution.points_world),
            },
        ),
        tracks=to_tracks(solution, clip),
        timings=tuple(run.timings),
        plate_masks=geometry.plate_masks,
    )


def to_tracks(solution: Solution, clip: Clip) -> Tracks:
    """The solution's points with their mean colour and error."""
    o = solution.observations
    count = len(solution.points_world)
    seen = np.maximum(np.bincount(o.track, minlength=count), 1)
    height, width = clip.frames.shape[1:3]
    x, y = np.floor(clip.store_map.to_grid(o.xy)).astype(int).T
    colours = clip.frames[o.frame, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    return Tracks(
        points_world=solution.points_world,
        colours=np.stack([np.bincount(o.track, colours[:, k], count) / seen for k in range(3)], 1).astype(np.uint8),
        errors_px=np.bincount(o.track, solution.errors_px, count) / seen,
        point=o.track.astype(np.int32),
        frame=o.frame.astype(np.int32),
        plate_xy=o.xy,
    )
