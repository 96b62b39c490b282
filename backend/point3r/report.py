"""The engine's result as a capture: conventions converted at this door, and what is known of each frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..clip import Clip
from ..geometry.trajectory import has_pose, interpolate_poses, on_the_spot
from ..monst3r.knowns import Given
from ..monst3r.pictures import Pictures
from ..run import Run
from ..wire import ENGINES, Capture, EngineStamp, FrameReport, JobSettings, Point3RSettings, ShotReport
from .placing import Placed

VERSION = "1"
#: A frame whose median confidence is this much below that of the clip is marked.
UNSURE = 0.35
#: Cameras that are all this near to one place, as a share of the median depth, turned on the spot: that moves things in
#: the picture by a pixel or two.
ON_THE_SPOT = 0.003

CONFIDENCE_MEANING = "the network's confidence, 1 and above; 1 nothing is sure, 0 nothing is known"


def to_capture(
    clip: Clip,
    settings: JobSettings,
    pictures: Pictures,
    placed: Placed,
    masks: np.ndarray,
    plates: np.ndarray,
    given: Given,
    stamps: tuple[dict, ...],
    locked: bool,
    details: dict[str, Any],
    run: Run,
) -> Capture:
    """Everything as a capture. Frames that could not be placed get a camera between their neighbours', and say so."""
    options: Point3RSettings = settings.engine_settings
    info = ENGINES["point3r"]
    found = has_pose(placed.world_from_camera)
    poses, interpolated = interpolate_poses(placed.world_from_camera, np.array(clip.info.timestamps))
    known = has_pose(poses)
    intrinsics = intrinsics_of(placed.focal_px, placed.centre)
    intrinsics[~known] = np.nan
    depth, confidence = placed.depth, placed.confidence
    depth[~known], confidence[~known] = 0, 0
    sure = np.array([_middle(c) for c in confidence])
    usual = np.median(sure[found])
    frames = tuple(
        FrameReport(
            registered=bool(found[t]),
            interpolated=bool(interpolated[t]),
            low_confidence=bool(found[t] and (placed.doubtful[t] or sure[t] - 1 < UNSURE * (usual - 1))),
        )
        for t in range(len(poses))
    )
    kind, warnings = "locked" if locked else "moving", list(clip.warnings)
    if not found.all():
        between = int(interpolated.sum())
        warnings.append(
            f"{int((~found).sum())} of {len(poses)} frames could not be placed; {between} were put between neighbours"
        )
    if locked:
        warnings.append("The camera does not move; if it does, set Camera to Moving")
    elif on_the_spot(poses, depth, ON_THE_SPOT):
        kind = "rotation"
        warnings.append("The picture shows no parallax, so depth is what the network says, and no more")
    return Capture(
        clip=clip.info,
        plate_map=pictures.plate_map,
        engine=EngineStamp(info.name, VERSION, info.licence, info.commercial_use, tuple(stamps)),
        settings=settings.to_json(),
        metric=given.world_from_camera is None,  # the user's cameras may be in any unit
        confidence_meaning=CONFIDENCE_MEANING,
        confidence_default=options.min_confidence,
        world_from_camera=poses,
        intrinsics=intrinsics,
        rgb=pictures.rgb,
        depth=depth,
        confidence=confidence,
        dynamic=masks,
        frames=frames,
        shot=ShotReport(
            kind=kind,
            solver_disagreement=None,
            focal_source=given.source,
            warnings=tuple(warnings),
            details={"frames_placed": int(found.sum()), **details},
        ),
        timings=tuple(run.timings),
        plate_masks=plates,
    )


def intrinsics_of(focal_px: np.ndarray, centre: tuple[float, float]) -> np.ndarray:
    """(T, 4) fx fy cx cy as captures count them: the network counts pixels from the first one's centre."""
    focal_px = np.asarray(focal_px, np.float64)
    ones = np.ones(len(focal_px))
    return np.column_stack([focal_px, focal_px, (centre[0] + 0.5) * ones, (centre[1] + 0.5) * ones])


def _middle(confidence: np.ndarray) -> float:
    """The median of a frame's confidence where anything is known, of every second row and column."""
    some = np.asarray(confidence[::2, ::2], np.float32)
    return float(np.median(some[some > 0])) if (some > 0).any() else 0.0
