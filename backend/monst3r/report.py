"""The engine's result as a capture: conventions converted at this door, and what is known of each frame."""

from __future__ import annotations

import numpy as np

from ..clip import Clip
from ..geometry.rigid import invert_poses
from ..geometry.trajectory import has_pose, interpolate_poses
from ..run import Run
from ..wire import ENGINES, Capture, EngineStamp, FrameReport, JobSettings, MonST3RSettings, ShotReport
from .between import Solved
from .knowns import Given
from .pictures import Pictures

VERSION = "1"
#: Median depth of the world, which has no scale of its own.
MEDIAN_DEPTH = 5.0
#: A frame whose median confidence is this much below that of the clip is marked.
UNSURE = 0.35

CONFIDENCE_MEANING = (
    "the network's confidence, 1 and above, counted as far as the pairs of a pixel agree; 1 nothing is sure, "
    "0 nothing is known"
)


def to_capture(
    clip: Clip,
    settings: JobSettings,
    pictures: Pictures,
    solved: Solved,
    masks: np.ndarray,
    plates: np.ndarray,
    given: Given,
    stamps: tuple[dict, ...],
    locked: bool,
    run: Run,
) -> Capture:
    """Everything as a capture. Frames that could not be placed get a camera between their neighbours', and say so."""
    options: MonST3RSettings = settings.engine_settings
    info = ENGINES["monst3r"]
    placed = has_pose(solved.world_from_camera) & ~solved.interpolated
    poses, filled = interpolate_poses(solved.world_from_camera, np.array(clip.info.timestamps))
    interpolated = filled | solved.interpolated
    scale = 1.0
    if given.world_from_camera is None:
        poses, scale = normalised(poses, solved.depth, solved.confidence)
    width, height = pictures.size
    # MonST3R counts pixels from the first one's centre, with the principal point at (W/2, H/2).
    centre_x, centre_y = given.centre or (width / 2, height / 2)
    centres = np.tile([centre_x + 0.5, centre_y + 0.5], (len(poses), 1))
    intrinsics = np.column_stack([solved.focal_px, solved.focal_px, centres])
    intrinsics[~has_pose(poses)] = np.nan
    sure = np.array([np.median(c[c > 0]) if (c > 0).any() else 0.0 for c in map(np.asarray, solved.confidence)])
    usual = np.median(sure[placed])
    frames = tuple(
        FrameReport(
            registered=bool(placed[t]),
            interpolated=bool(interpolated[t]),
            low_confidence=bool(placed[t] and sure[t] - 1 < UNSURE * (usual - 1)),
        )
        for t in range(len(poses))
    )
    warnings = list(clip.warnings)
    if options.mode == "preview":
        warnings.append("This is a preview: cameras are rough, and movers are not masked")
    elif options.flow == "none":
        warnings.append("Without optical flow the camera is less precise, and movers are not found")
    elif options.flow == "classical":
        warnings.append("Optical flow was the classic one, which follows large motion less well than RAFT")
    missing = solved.wanted & ~placed
    if missing.any():
        between = int((missing & interpolated).sum())
        warnings.append(
            f"{int(missing.sum())} of {len(poses)} frames could not be placed; {between} were put between neighbours"
        )
    if locked:
        warnings.append("The camera does not move; if it does, set Camera to Moving")
    return Capture(
        clip=clip.info,
        plate_map=pictures.plate_map,
        engine=EngineStamp(info.name, VERSION, info.licence, info.commercial_use, tuple(stamps)),
        settings=settings.to_json(),
        metric=False,
        confidence_meaning=CONFIDENCE_MEANING,
        confidence_default=options.min_confidence,
        world_from_camera=poses,
        intrinsics=intrinsics,
        rgb=pictures.rgb,
        depth=(np.asarray(solved.depth) * scale).astype(np.float32),
        confidence=np.minimum(solved.confidence, 60000).astype(np.float16),
        dynamic=masks,
        frames=frames,
        shot=ShotReport(
            kind="locked" if locked else "moving",
            solver_disagreement=None,
            focal_source=given.source,
            warnings=tuple(warnings),
            details={"frames_placed": int(placed.sum())},
        ),
        timings=tuple(run.timings),
        plate_masks=plates,
    )


def normalised(poses: np.ndarray, depth: np.ndarray, confidence: np.ndarray) -> tuple[np.ndarray, float]:
    """The poses in the first known camera's frame at a median depth of 5, and the factor that depth must take."""
    step = max(1, depth.shape[2] // 64)
    part = (slice(None), slice(None, None, step), slice(None, None, step))
    known = (depth[part] > 0) & (confidence[part] > 1)
    scale = MEDIAN_DEPTH / float(np.median(depth[part][known])) if known.any() else 1.0
    first = np.flatnonzero(has_pose(poses))[0]
    poses = invert_poses(poses[first]) @ poses
    poses[:, :3, 3] *= scale
    return poses, scale
