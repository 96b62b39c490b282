"""A localised plate as a capture in the world of its reference: cameras, depth seen from there, what is known."""

from __future__ import annotations

import numpy as np

from ..clip import Clip
from ..geometry.trajectory import has_pose, interpolate_poses, path_length
from ..run import Run
from ..wire import TASKS, Capture, EngineStamp, FrameReport, JobSettings, PlateMap, ShotReport, Tracks
from .localise import Localised, Placed
from .reference import Reference
from .render import render

VERSION = "1"
#: Frames of the reference whose points are rendered for a frame of the plate, beside those it was matched with.
RENDERED = 8
#: A focal length that is less sure than this is warned of.
ROUGH_FOCAL = 0.02
#: A camera whose path is shorter than this share of the points' distance stands still; it turns on the spot below this.
STILL = 2e-3


def to_capture(
    clip: Clip,
    settings: JobSettings,
    reference: Reference,
    localised: Localised,
    matcher: str,
    focal_source: str,
    stamps: tuple[dict, ...],
    run: Run,
) -> Capture:
    """As a capture. Frames that were not placed get a camera between their neighbours', or none, and say so."""
    there, info, frames = reference.capture, TASKS["localise"], localised.frames
    rgb, plate_map = clip.processed(settings.clip.long_side)
    height, width = rgb.shape[1:3]
    count = len(frames)
    poses, lens = np.full((count, 4, 4), np.nan), np.full((count, 4), np.nan)
    for t, placed in enumerate(frames):
        if placed.pose is not None:
            poses[t], lens[t] = placed.pose.world_from_camera, placed.pose.intrinsics
    measured = has_pose(poses)
    poses, filled = interpolate_poses(poses, np.array(clip.info.timestamps))
    for column in lens.T:
        column[filled] = np.interp(np.flatnonzero(filled), np.flatnonzero(measured), column[measured])
    lens = plate_map.intrinsics_to_grid(lens)
    depth = np.zeros((count, height, width), np.float32)
    confidence = np.zeros((count, height, width), np.float16)
    for t in run.steps(count):
        if np.isfinite(poses[t]).all():
            seen = views_of(frames[t], reference, poses[t])
            depth[t], confidence[t] = render(reference, seen, poses[t], lens[t], (width, height))
    masks = clip.processed_masks(settings.clip.long_side)
    distance = typical_distance(frames)
    return Capture(
        clip=clip.info,
        plate_map=plate_map,
        engine=EngineStamp(
            info.name,
            VERSION,
            there.engine.licence if not there.engine.commercial_use else info.licence,
            there.engine.commercial_use and all(s.get("commercial_use", True) for s in stamps),
            (*there.engine.weights, *stamps),
        ),
        settings=settings.to_json(),
        metric=there.metric,
        scale=there.scale,
        confidence_meaning=f"that of the capture it was put into: {there.confidence_meaning}",
        confidence_default=there.confidence_default,
        world_from_camera=poses,
        intrinsics=lens,
        rgb=rgb,
        depth=depth,
        confidence=confidence,
        dynamic=np.zeros(depth.shape, bool) if masks is None else masks,
        frames=tuple(_frame(f, bool(i)) for f, i in zip(frames, filled)),
        shot=ShotReport(
            kind=kind_of(poses, distance),
            solver_disagreement=None,
            focal_source=focal_source,
            warnings=tuple(warnings_of(clip, localised, filled)),
            details=details_of(there, localised, matcher),
        ),
        tracks=tracks_of(frames, clip.frames, clip.store_map),
        timings=tuple(run.timings),
        plate_masks=None,
    )


def views_of(placed: Placed, reference: Reference, world_from_camera: np.ndarray) -> list[int]:
    """Frames of the reference to render for a camera: first those that served it best, then those that look alike."""
    served = np.zeros(reference.capture.frame_count)
    if placed.pose is not None:
        served += np.bincount(placed.sightings.view[placed.pose.inliers], minlength=len(served))
    there = reference.capture.world_from_camera[reference.frames]
    facing = (there[:, :3, 2] * world_from_camera[:3, 2]).sum(axis=1)
    away = np.linalg.norm(there[:, :3, 3] - world_from_camera[:3, 3], axis=1)
    alike = facing - away / max(float(away.max()), 1e-12)
    by_likeness = reference.frames[np.argsort(-alike, kind="stable")]
    spread = reference.frames[np.unique(np.linspace(0, len(reference.frames) - 1, RENDERED // 2).round().astype(int))]
    first = [int(f) for f in np.argsort(-served, kind="stable") if served[f]]
    return list(dict.fromkeys([*first, *map(int, by_likeness[: RENDERED // 2]), *map(int, spread)]))


def kind_of(poses: np.ndarray, distance: float) -> str:
    """'locked', 'rotation' or 'moving', as far as cameras (T, 4, 4) tell against the points' distance."""
    known = poses[has_pose(poses)]
    extent = np.linalg.norm(known[:, :3, 3] - known[:, :3, 3].mean(axis=0), axis=1).max()
    if path_length(known) > STILL * distance and extent > STILL * distance:
        return "moving"
    turned = np.abs(known[:, :3, :3] - known[0, :3, :3]).max()
    return "rotation" if turned > STILL else "locked"


def typical_distance(frames: tuple[Placed, ...]) -> float:
    """Median distance of the points that agree from the cameras that see them."""
    away = [
        np.linalg.norm(f.sightings.points_world[f.pose.inliers] - f.pose.world_from_camera[:3, 3], axis=1)
        for f in frames
        if f.pose is not None
    ]
    return float(np.median(np.concatenate(away)))


def warnings_of(clip: Clip, localised: Localised, filled: np.ndarray) -> list[str]:
    """What the artist must know of it."""
    frames, warnings = localised.frames, list(clip.warnings)
    missing = [f for f in frames if f.pose is None]
    if missing:
        reasons = [f.why for f in missing]
        why = max(dict.fromkeys(reasons), key=reasons.count)
        between = f"{int(filled.sum())} were put between neighbours"
        warnings.append(f"{len(missing)} of {len(frames)} frames could not be placed ({why}); {between}")
    jumping = [t for t, f in enumerate(frames) if f.jumps]
    if jumping:
        some = ", ".join(map(str, jumping[:5])) + (" and others" if len(jumping) > 5 else "")
        warnings.append(f"{len(jumping)} of {len(frames)} frames jump away from their neighbours: {some}")
    if localised.focal_spread > ROUGH_FOCAL:
        warnings.append(f"The focal length is only known to {100 * localised.focal_spread:.0f} %: give it if you can")
    unsure = sum(f.unsure for f in frames)
    if unsure:
        warnings.append(f"{unsure} of {len(frames)} cameras are only roughly held by the points that they see")
    return warnings


def details_of(reference: Capture, localised: Localised, matcher: str) -> dict:
    """Which capture the plate was put into, and what is known of every frame."""
    rows = []
    for t, placed in enumerate(localised.frames):
        errors = placed.errors_px
        rows.append(
            {
                "frame": t,
                "matches": len(placed.sightings),
                "inliers": len(errors),
                "error_px": float(errors.mean()) if len(errors) else None,
                "compared": list(placed.compared),
                "place_spread": None if placed.pose is None else float(np.linalg.norm(placed.spread[3:])),
                "jumps": placed.jumps,
                "refused": placed.why or None,
            }
        )
    return {
        "localised": {
            "reference": {
                "source": reference.clip.source,
                "engine": reference.engine.name,
                "folder": None if reference.folder is None else reference.folder.name,
            },
            "matcher": matcher,
            "focal_spread": localised.focal_spread,
            "frames": rows,
        },
        "frames_placed": sum(f.pose is not None for f in localised.frames),
        "mean_reprojection_error_px": float(np.concatenate([f.errors_px for f in localised.frames]).mean()),
    }


def tracks_of(frames: tuple[Placed, ...], pictures: np.ndarray, store_map: PlateMap) -> Tracks | None:
    """The capture's points that agree with the cameras, each with all its sightings on the plate."""
    rows = [(t, f.sightings.where(f.pose.inliers)) for t, f in enumerate(frames) if f.pose is not None]
    frame = np.concatenate([np.full(len(s), t) for t, s in rows])
    plate_xy = np.concatenate([s.plate_xy for _, s in rows])
    errors = np.concatenate([f.errors_px for f in frames])
    # A point is a place on a frame of the capture.
    key = np.concatenate([np.column_stack([s.view, np.round(s.map_xy * 4)]) for _, s in rows]).astype(np.int64)
    _, first, point = np.unique(key, axis=0, return_index=True, return_inverse=True)
    point = point.reshape(-1)
    views = np.bincount(point, minlength=len(first))
    height, width = pictures.shape[1:3]
    x, y = np.floor(store_map.to_grid(plate_xy)).astype(int).T
    colours = pictures[frame, y.clip(0, height - 1), x.clip(0, width - 1)]
    return Tracks(
        points_world=np.concatenate([s.points_world for _, s in rows])[first],
        colours=np.stack([np.bincount(point, c, len(first)) / views for c in colours.T], axis=1).astype(np.uint8),
        errors_px=np.bincount(point, errors, len(first)) / views,
        point=point.astype(np.int32),
        frame=frame.astype(np.int32),
        plate_xy=plate_xy,
    )


def _frame(placed: Placed, filled: bool) -> FrameReport:
    errors = placed.errors_px
    return FrameReport(
        registered=placed.pose is not None,
        interpolated=filled,
        low_confidence=placed.jumps or placed.unsure,
        reprojection_error_px=float(errors.mean()) if len(errors) else None,
    )
