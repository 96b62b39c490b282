"""Camera refinement: an engine's cameras fitted to point tracks at plate resolution, kept only where that is better.

It reads as the method goes: track what stands still -> tell a locked-off, a turning and a travelling camera apart ->
adjust cameras and points together from the engine's cameras on -> let held-out points judge -> carry frames that were
not refined along -> measure reprojection errors. The parts are in `backend/refinement/`.

The world stays the engine's: scale from its depth, orientation and place from its cameras.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np

from .classical import shots
from .classical.report import FEW_TRACKS, SUSPICIOUS_ERROR
from .classical.tracks import Observations
from .clip import Clip
from .geometry.trajectory import path_length
from .refinement.cameras import Cameras
from .refinement.gauge import carry, depth_factors
from .refinement.points import measure
from .refinement.sightings import Static, still_sightings
from .refinement.solve import MIN_SIGHTINGS, OUTLIER_TIMES, Solved, solve_moving, solve_turning, without_outliers
from .refinement.verdict import FEW, Verdict, judge, mean_by_frame
from .run import Run
from .wire import Capture, FrameReport, Tracks

log = logging.getLogger(__name__)

#: The stages that `refine_camera` goes through, with their shares of its time: for the plan of an engine that calls it.
PLAN = (("Following still points", 0.3), ("Refining the camera", 0.7))
#: Points followed at a time: what a pose needs many times over.
TRACKS_PER_FRAME = 800
#: What a refined camera is made of.
FOUND = (Solved, Verdict, Cameras, Static, Observations)
#: A camera whose path is shorter than this fraction of the median depth stands still, as far as the engine knows.
STILL = 1e-4
#: Focal lengths that differ by more than this over a clip are a zoom.
ZOOM = 0.01
#: A lens is freed only when held-out errors fall to this share, which 4 % of focal length does on a good clip. Less is
#: not believed: where tracks are noisy, a lens wrong by 8 % explained them better by half a percent.
LENS_LOWER = 0.985
#: And only when its change is so many times what the halves of the tracks differ by.
LENS_SPREAD = 4
#: An engine's camera with errors below this, in plate pixels, that nothing betters is as it should be: no warning.
GOOD_PX = 0.5
#: A turn on the spot is taken for one when its errors are within this factor, and these pixels, of a moving camera's.
NO_PARALLAX, NO_PARALLAX_PX = 1.1, 0.03


def refine_camera(
    capture: Capture, clip: Clip, run: Run, *, focal_free: bool, tracks_per_frame: int = TRACKS_PER_FRAME
) -> Capture:
    """The capture with cameras fitted to its clip's tracks where that lowers the error, and with its errors measured.

    What changes when refinement holds: `world_from_camera`, `intrinsics` (the focal length only when `focal_free`,
    with square plate pixels; the principal point stays), `depth` by one factor a frame where frames' scales disagree
    with the points, `frames`, `tracks` and `shot`. Frames with too few tracks are moved as their neighbours were, and
    are marked as of low confidence. When it does not hold the cameras stay as they are, errors and tracks are
    measured with them, and a warning says why. Frames without a camera stay without. The stages are those of `PLAN`;
    it is not called within another stage.
    """
    with run.stage(PLAN[0][0]):
        static = still_sightings(capture, clip, tracks_per_frame, run)
    with run.stage(PLAN[1][0]):
        engine = Cameras.of(capture)
        kind = motion_of(capture, engine, static)
        log.info("%d sightings of %d still points; %s", len(static.seen), static.track_count, kind)
        if kind == "locked":
            return measured(capture, clip, engine, static, None)
        if kind == "unknown":
            return measured(capture, clip, engine, static, FEW)
        told = static, engine, kind, lenses(engine, focal_free)
        made_from = {"told": told, "seed": run.seed}
        found = run.remember("Refined camera", made_from, lambda: best_camera(*told, run), FOUND)
        if isinstance(found, str):
            return measured(capture, clip, engine, static, found)
        return _with_camera(capture, clip, engine, static, *found)


def _with_camera(
    capture: Capture, clip: Clip, engine: Cameras, static: Static, kind: str, solved: Solved, verdict: Verdict
) -> Capture:
    """The capture with the solved cameras where the verdict is for them."""
    cameras = carry(solved.cameras, engine, verdict.better)
    used = without_outliers(static, measure(static, cameras)[1], OUTLIER_TIMES[-1], capture.frame_count, 1)
    factors = depth_factors(cameras, measure(used, cameras)[0], used)
    depth = capture.depth
    if (factors != 1).any():
        depth = np.asarray(depth) * factors[:, None, None].astype(np.float32)
        static = replace(static, depth=static.depth * factors[static.seen.frame])
    shot = capture.shot
    if kind == "rotation" and shot.kind == "moving":
        still = "The picture shows no parallax, so the camera was taken to turn on the spot"
        shot = replace(shot, kind="rotation", warnings=(*shot.warnings, still))
    left = int((engine.known & ~verdict.better).sum())
    if left:
        follow = f"{left} of {capture.frame_count} frames could not be refined; they follow their neighbours"
        shot = replace(shot, warnings=(*shot.warnings, follow))
    if verdict.focal_change > 0:
        shot = replace(shot, focal_source="solved")
    refined = replace(
        capture,
        world_from_camera=cameras.world_from_camera,
        intrinsics=capture.plate_map.intrinsics_to_grid(cameras.intrinsics),
        depth=depth,
        shot=shot,
    )
    return measured(refined, clip, cameras, static, None, verdict)


def motion_of(capture: Capture, engine: Cameras, static: Static) -> str:
    """'locked', 'rotation' (to be confirmed), 'moving', or 'unknown' where hardly a point could be followed.

    The tracks say so; where the engine's camera stands still, so it does.
    """
    if not engine.known.any():
        return "unknown"
    seen = shots.classify(static.seen, capture.frame_count, max(capture.clip.plate_size))
    if seen is None:
        return "unknown"
    if stands(engine, static):
        poses = engine.world_from_camera[engine.known]
        turned = np.abs(poses[:, :3, :3] - poses[0, :3, :3]).max() > STILL
        return "rotation" if turned and seen.kind != "locked" else "locked"
    return seen.kind


def stands(engine: Cameras, static: Static) -> bool:
    """Whether the engine's camera does not travel."""
    depth = static.depth[static.depth > 0]
    return path_length(engine.world_from_camera) <= STILL * (float(np.median(depth)) if len(depth) else 1.0)


def lenses(engine: Cameras, focal_free: bool) -> tuple[str, ...]:
    """What may be done with the focal length, the least first: see `bundle.adjust`."""
    if not focal_free:
        return ("fixed",)
    focal = engine.focal_px[engine.known]
    return ("fixed", "shared", "each") if focal.max() / focal.min() - 1 > ZOOM else ("fixed", "shared")


def best_camera(
    static: Static, engine: Cameras, kind: str, allowed: tuple[str, ...], run: Run
) -> tuple[str, Solved, Verdict] | str:
    """The kind of camera, its solution, and the verdict on it, with the lens that held-out points are for.

    A lens is freed where that lowers held-out errors, and where the halves of the tracks agree on it far better than
    the result agrees with the engine. A string says why there is nothing better than what the engine has.
    """
    rng = np.random.default_rng(run.seed)
    first = rng.random(static.track_count) < 0.5
    halves = tuple(static.where(half[static.seen.track]) for half in (first, ~first))
    solved = None
    if kind == "rotation":
        turning = solve_turning(static, engine, allowed[0], run)
        moving = None if stands(engine, static) else solve_moving(static, engine, allowed[0], run)
        kind = "rotation" if turning is not None and _no_parallax(static, turning, moving) else "moving"
        solved = turning if kind == "rotation" else moving
        if solved is None:
            return "the tracked points fit no turn on the spot"
    solve = solve_turning if kind == "rotation" else solve_moving
    best, reason, least_px = None, FEW, np.inf
    subsets, starts = (static, *halves), [None] * 3
    for lens in allowed[:2] if kind == "rotation" else allowed:
        run.check()
        found = [] if solved is None else [solved]
        solved = None
        for subset, start in list(zip(subsets, starts))[len(found) :]:
            found.append(solve(subset, engine, lens, run, MIN_SIGHTINGS // (1 if subset is static else 2), start))
            run.progress((allowed.index(lens) * 3 + len(found)) / (3 * len(allowed)))
        if None in found:
            break
        whole, parts, starts = found[0], tuple(found[1:]), found
        verdict = judge(halves, parts, whole, engine, kind == "rotation")
        log.info("Lens %s: %s", lens, verdict)
        reason = verdict.reason or reason
        if lens != "fixed" and not (
            LENS_SPREAD * verdict.focal_spread < verdict.focal_change and verdict.after_px < LENS_LOWER * least_px
        ):
            continue
        least_px = min(least_px, verdict.after_px)
        if verdict.better.any():
            best = kind, whole, verdict
    return best or reason


def _no_parallax(static: Static, turning: Solved, moving: Solved | None) -> bool:
    """Whether turning on the spot explains the sightings as well as travelling does."""
    if moving is None:
        return True
    both = static.where((turning.refined & moving.refined)[static.seen.frame])
    if len(both.seen) == 0:
        return False
    turned, moved = (float(np.median(measure(both, s.cameras)[1])) for s in (turning, moving))
    return turned < NO_PARALLAX * moved + NO_PARALLAX_PX


def measured(
    capture: Capture, clip: Clip, cameras: Cameras, static: Static, refused: str | None, verdict: Verdict | None = None
) -> Capture:
    """The capture with tracks and reprojection errors as its own `cameras` have them, and what was found of each frame.

    `refused` says why its cameras were not refined; `verdict` is that on cameras that were.
    """
    warnings, details = capture.shot.warnings, dict(capture.shot.details)
    frames = capture.frames
    tracks = capture.tracks
    if len(static.seen):
        errors = measure(static, cameras)[1]
        used = without_outliers(static, errors, OUTLIER_TIMES[-1], capture.frame_count, 1)
    if len(static.seen) and len(used.seen):
        points, errors = measure(used, cameras)
        if not np.isfinite(errors).all():  # a point that lost a sighting may come to lie behind another's camera
            used = used.where(np.isfinite(errors))
            points, errors = measure(used, cameras)
        mean, count = mean_by_frame(errors, used.seen.frame, capture.frame_count), used.per_frame(capture.frame_count)
        limit = SUSPICIOUS_ERROR * max(capture.clip.plate_size)
        better = np.zeros(capture.frame_count, bool) if verdict is None else verdict.better
        frames = tuple(
            _frame(f, float(e), int(n), bool(b), verdict is not None, limit)
            for f, e, n, b in zip(frames, mean, count, better)
        )
        tracks = _tracks(used, points, errors, clip)
        details |= {
            "mean_reprojection_error_px": float(errors[np.isfinite(errors)].mean()),
            "horizontal_fov_deg": _fov_deg(capture, cameras),
            "tracks": len(points),
        }
    good = details.get("mean_reprojection_error_px", math.inf) < GOOD_PX
    # Where enough tracks agree with the camera as it is, there is nothing to say.
    if refused is not None and (refused == FEW or not good):
        warnings = (*warnings, f"The camera could not be refined: {refused}")
    details["refinement"] = {
        "refined_frames": 0 if verdict is None else int(verdict.better.sum()),
        "held_out_error_before_px": None if verdict is None else verdict.before_px,
        "held_out_error_after_px": None if verdict is None else verdict.after_px,
    }
    return replace(
        capture, frames=frames, tracks=tracks, shot=replace(capture.shot, warnings=warnings, details=details)
    )


def _frame(frame: FrameReport, error: float, count: int, better: bool, judged: bool, limit: float) -> FrameReport:
    """What is known of a frame whose tracks have that mean error; where others were refined, this one may not be."""
    error_px = error if math.isfinite(error) else None
    doubtful = count < FEW_TRACKS or not error < limit
    if better:
        return FrameReport(True, low_confidence=doubtful, reprojection_error_px=error_px)
    left_behind = judged and (frame.registered or frame.interpolated)
    return replace(
        frame,
        low_confidence=frame.low_confidence or left_behind or (frame.registered and doubtful),
        reprojection_error_px=error_px,
    )


def _tracks(used: Static, points: np.ndarray, errors: np.ndarray, clip: Clip) -> Tracks:
    seen, count = used.seen, used.track_count
    views = np.bincount(seen.track, minlength=count)
    width, height = clip.store_size
    x, y = np.floor(clip.store_map.to_grid(seen.xy)).astype(int).T
    colours = clip.frames[seen.frame, y.clip(0, height - 1), x.clip(0, width - 1)]
    return Tracks(
        points_world=points,
        colours=np.stack([np.bincount(seen.track, c, count) / views for c in colours.T], axis=1).astype(np.uint8),
        errors_px=np.bincount(seen.track, errors, count) / views,
        point=seen.track.astype(np.int32),
        frame=seen.frame.astype(np.int32),
        plate_xy=seen.xy,
    )


def _fov_deg(capture: Capture, cameras: Cameras) -> float:
    focal = float(np.median(cameras.focal_px[cameras.known]))
    return math.degrees(2 * math.atan(capture.clip.plate_size[0] / 2 / focal))
