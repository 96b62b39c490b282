"""The engine's result as a capture: conventions converted at this door, and what is known of each frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip import Clip
from ..geometry.trajectory import has_pose, interpolate_poses, on_the_spot
from ..monst3r.knowns import Given
from ..monst3r.movers import enlarged
from ..monst3r.pictures import Pictures
from ..run import Run
from ..wire import ENGINES, Capture, EngineStamp, FrameReport, JobSettings, MASt3RSettings, ShotReport

VERSION = "1"
#: A frame whose median confidence is this much below that of all is marked.
UNSURE = 0.35
#: A solved lens that is so far from what the network sees is not believed without a word. On scenes with the errors of
#: a network it is 0.01 off, and 0.1 and more where a mover of a fifth of the picture bends everything.
ODD_LENS = 0.08
#: Cameras of a set that are all this near to each other, as a share of the median depth, turned on the spot.
ON_THE_SPOT = 0.005

CONFIDENCE_MEANING = (
    "the network's confidence, 1 and above, a mean over the pairs of a frame; 1 nothing is sure, 0 nothing is known"
)
NOT_FOUND = "Nothing is masked: this engine takes all it sees to stand still, unless masks are given"


@dataclass(frozen=True)
class Placed:
    """T frames as the alignment has them, in its own pixels: `world_from_camera` (T, 4, 4), NaN where not placed,
    `focal_px` (T,), `centre` (T, 2), `depth` and `confidence` (T, H, W).

    `solved` (T,) says whose camera was found, `interpolated` (T,) whose was taken from its neighbours, and `wanted`
    (T,) which were to be solved.
    """

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    centre: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    solved: np.ndarray
    interpolated: np.ndarray
    wanted: np.ndarray


def to_capture(
    clip: Clip,
    settings: JobSettings,
    pictures: Pictures,
    placed: Placed,
    masks: np.ndarray | None,
    given: Given,
    stamps: tuple[dict, ...],
    sequence: bool,
    locked: bool,
    details: dict[str, Any],
    run: Run,
) -> Capture:
    """Everything as a capture, in metres unless the user gave cameras; `masks` (T, H, W) are the user's on the grid.

    Frames of a sequence that could not be placed get a camera between their neighbours', and say so; those of a set
    have none.
    """
    options: MASt3RSettings = settings.engine_settings
    info = ENGINES["mast3r"]
    poses, interpolated = placed.world_from_camera, placed.interpolated
    if sequence:
        poses, filled = interpolate_poses(poses, np.array(clip.info.timestamps))
        interpolated = filled | interpolated
    # The solver counts pixels from the first one's centre, a capture from its edge.
    intrinsics = np.column_stack([placed.focal_px, placed.focal_px, placed.centre + 0.5])
    intrinsics[~has_pose(poses)] = np.nan
    known = has_pose(poses)[:, None, None] & (placed.depth > 0) & (placed.confidence > 0)
    depth, confidence = (np.where(known, a, 0) for a in (placed.depth, placed.confidence))
    sure = np.array([np.median(c[c > 0]) if (c > 0).any() else 0.0 for c in confidence])
    usual = np.median(sure[placed.solved])
    frames = tuple(
        FrameReport(
            registered=bool(placed.solved[t]),
            interpolated=bool(interpolated[t]),
            low_confidence=bool(placed.solved[t] and sure[t] - 1 < UNSURE * (usual - 1)),
        )
        for t in range(len(poses))
    )
    kind, warnings = "locked" if locked else "moving", list(clip.warnings)
    if locked:
        warnings.append("The camera does not move, so depth is what the network says, and no more")
    elif not sequence and on_the_spot(poses[placed.solved], depth, ON_THE_SPOT):
        kind = "rotation"
        warnings.append("The pictures show no parallax, so depth is what the network says, and no more")
    warnings += _missing(placed, interpolated)
    if masks is None:
        warnings.append(NOT_FOUND)
    if given.focal_px is None and details.get("lens_disagreement", 0.0) > ODD_LENS:
        warnings.append(
            f"The lens came out {details['lens_disagreement']:.0%} off what the network sees, so cameras may be wrong:"
            " give masks of what moves, or the focal length"
        )
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
        depth=depth.astype(np.float32),
        confidence=np.minimum(confidence, 60000).astype(np.float16),
        dynamic=np.zeros(depth.shape, bool) if masks is None else masks,
        frames=frames,
        shot=ShotReport(
            kind=kind,
            solver_disagreement=None,
            focal_source=given.source,
            warnings=tuple(warnings),
            details={"frames_placed": int(placed.solved.sum()), **details},
        ),
        timings=tuple(run.timings),
        plate_masks=None if masks is None else enlarged(clip.known_masks, clip.info.plate_size),
    )


def _missing(placed: Placed, interpolated: np.ndarray) -> list[str]:
    """What to say of frames that were to be placed and were not."""
    missing = placed.wanted & ~placed.solved
    if not missing.any():
        return []
    between = int((missing & interpolated).sum())
    told = f"{int(missing.sum())} of {len(missing)} frames could not be placed"
    return [f"{told}; {between} were put between neighbours" if between else told]
