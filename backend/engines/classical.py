"""The classical engine: structure from motion and optical flow, without a network.

It reads as the method goes: track -> classify -> solve -> flow -> mask the movers -> solve again without them ->
triangulate every pixel -> fill -> stand movers up as cards. The parts are in `backend/classical/`.

The world is the first registered camera's frame, scaled so that the tracked points are at a median depth of 5 units
(points about a camera that only turns lie 5 units from it).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..classical import shots
from ..classical.cards import stand_cards
from ..classical.dense import dense_depth
from ..classical.fill import fill
from ..classical.flow import neighbour_flows
from ..classical.motion_mask import motion_masks
from ..classical.nodal import RADIUS, solve_nodal
from ..classical.plates import plate_masks
from ..classical.sfm import Solution, disagreement, solve_both, solve_once
from ..classical.tracks import Observations, track_points
from ..clip import Clip
from ..geometry.camera import project, rays
from ..geometry.rigid import invert_poses
from ..geometry.trajectory import interpolate_poses
from ..run import Run
from ..wire import (
    CONFIDENCE_CARD,
    CONFIDENCE_FILLED,
    ENGINES,
    Capture,
    ClassicalSettings,
    EngineStamp,
    FrameReport,
    JobSettings,
    PlateMap,
    ShotReport,
    Tracks,
    UserError,
)

log = logging.getLogger(__name__)

VERSION = "1"
MEDIAN_DEPTH = 5.0
#: Field of view over the long side when nothing is known of the lens.
PRIOR_FOV_DEG = 55.0
#: Two solvers agree when their paths differ by less than this fraction of the length, and their focal lengths by less.
PATH_AGREEMENT = 0.05
FOCAL_AGREEMENT = 0.03
#: A solve of fewer than this share of the frames is a failure.
MIN_REGISTERED = 0.3
#: A nodal solve holds when this share of the sightings is within the classifier's tolerance.
NODAL_SHARE = 0.7
#: Tracks sighted inside a mask more often than this are a mover's, and dropped whole.
MOVER_SHARE = 0.25

CONFIDENCE_MEANING = (
    f"{CONFIDENCE_FILLED} filled from the surroundings, {CONFIDENCE_CARD} flat card at a mover's contact depth, "
    "0.3 to 1 measured (flow agreement, residual, parallax), 0 nothing known"
)


@dataclass(frozen=True)
class Lens:
    """The focal length to start from, in plate pixels, and whether the solve may change it."""

    focal_px: float
    source: str

    @property
    def free(self) -> bool:
        return self.source != "user"


@dataclass(frozen=True)
class Solved:
    """The camera, how it was come by, and what the artist should be told."""

    kind: str
    solution: Solution
    disagreement: float | None
    focal_source: str
    warnings: tuple[str, ...] = ()


class ClassicalEngine:
    """Structure from motion and optical flow; see the module's docstring."""

    plan = (
        ("Tracking points", 0.04),
        ("Solving the camera", 0.14),
        ("Optical flow", 0.14),
        ("Finding movers", 0.10),
        ("Solving without movers", 0.26),
        ("Measuring depth", 0.22),
        ("Filling", 0.10),
    )

    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture:
        """A capture of the clip. Raises UserError when its camera cannot be solved honestly."""
        options: ClassicalSettings = settings.engine_settings
        lens = known_lens(clip, settings)
        cv2.setRNGSeed(run.seed)
        grid_frames, grid_map = clip.processed(settings.clip.long_side)

        with run.stage("Tracking points"):
            tracks = plate_tracks(clip, options.max_features, run)
            shot = shots.classify(tracks, clip.frame_count, max(clip.info.plate_size))
        log.info("%s", shot)
        with run.stage("Solving the camera"):
            solved = self.solve_first(shot, tracks, clip, lens, run)
        with run.stage("Optical flow"):
            flows = neighbour_flows(grid_frames, run)

        def masks_for(camera: Solution) -> np.ndarray:
            known = clip.processed_masks(settings.clip.long_side)
            found = np.zeros(grid_frames.shape[:3], bool) if known is None else known
            if options.find_movers:
                intrinsics = grid_map.intrinsics_to_grid(camera.intrinsics)
                found = found | motion_masks(
                    grid_frames, flows, camera.world_from_camera, intrinsics, options.mover_threshold, run
                )
            return found

        with run.stage("Finding movers"):
            masks = masks_for(solved.solution)
        with run.stage("Solving without movers"):
            static = without_movers(tracks, masks, grid_map)
            solved = self.solve_again(solved, static, clip, lens, run)
            solved = replace(solved, solution=normalised(solved.solution, solved.kind))
            masks = masks_for(solved.solution)

        solution = solved.solution
        intrinsics = grid_map.intrinsics_to_grid(solution.intrinsics)
        with run.stage("Measuring depth"):
            if solved.kind == "moving":
                depth, confidence = dense_depth(flows, solution.world_from_camera, intrinsics, run)
                depth[masks] = confidence[masks] = 0
            else:
                depth, confidence = dome(grid_frames.shape[:3], intrinsics, options.fill_holes)
        with run.stage("Filling"):
            if solved.kind == "moving":
                background, marks = fill(depth, confidence, masks, grid_frames, run)
                if options.fill_holes:
                    depth, confidence = background, marks
                if options.movers_as_cards:
                    depth, confidence = stand_cards(depth, confidence, masks, background, run)
            full_masks = plate_masks(masks, clip.frames, clip.info.plate_size, run)
        return to_capture(
            clip, settings, run, solved, grid_frames, grid_map, intrinsics, depth, confidence, masks, full_masks
        )

    def solve_first(self, shot: shots.Shot | None, tracks: Observations, clip: Clip, lens: Lens, run: Run) -> Solved:
        """A first camera, at the focal length known beforehand: good enough to find the movers by."""
        if shot is None:
            raise UserError(
                "Hardly any point of the picture could be followed",
                "the clip needs texture that is in focus and not blurred; try more Features or fewer frames",
            )
        count, size = clip.frame_count, clip.info.plate_size
        if shot.kind == "locked":
            fixed = solve_nodal(tracks, count, size, lens.focal_px, False, run, locked=True)
            return Solved("locked", fixed, None, lens.source)
        if shot.kind == "rotation":
            for free in (lens.free, False):
                nodal = solve_nodal(tracks, count, size, lens.focal_px, free, run)
                if nodal is not None and nodal_share(nodal) >= NODAL_SHARE:
                    return Solved("rotation", nodal, None, lens.source)
            log.info("One plane or little parallax, but no turn on the spot: solving as a moving camera")
        solution = solve_once(tracks, count, size, lens.focal_px, run)
        return Solved("moving", check_registered(solution, count), None, lens.source)

    def solve_again(self, first: Solved, static: Observations, clip: Clip, lens: Lens, run: Run) -> Solved:
        """The camera from static tracks alone; the focal length is freed only where two solves agree on it."""
        count, size = clip.frame_count, clip.info.plate_size
        if first.kind == "locked":
            fixed = solve_nodal(static, count, size, lens.focal_px, False, run, locked=True)
            return replace(first, solution=fixed, warnings=(NO_DEPTH.format("does not move"),))
        if first.kind == "rotation":
            return self.solve_turning(first, static, clip, lens, run)
        attempts = (lens.free, False) if lens.free else (False,)
        for free in attempts:
            solutions = [s for s in solve_both(static, count, size, lens.focal_px, free, run) if s is not None]
            solutions.sort(key=lambda s: (-s.registered.sum(), s.errors_px.mean()))
            differ = disagreement(*solutions) if len(solutions) == 2 else math.inf
            if free and differ < PATH_AGREEMENT and focals_agree(solutions, max(size)):
                return replace(first, solution=solutions[0], disagreement=differ, focal_source="solved")
        best = check_registered(solutions[0] if solutions else None, count)
        warnings = []
        if lens.free:
            warnings.append(
                "The two solvers did not agree on the focal length, so it was kept as assumed "
                f"({best.horizontal_fov_deg:.0f} degrees across): enter the lens for a better camera"
            )
        if differ > PATH_AGREEMENT:
            warnings.append("The two solvers did not agree on the camera's path: check it against the plate")
        return replace(
            first,
            solution=best,
            disagreement=differ if math.isfinite(differ) else None,
            warnings=tuple(warnings),
        )

    def solve_turning(self, first: Solved, static: Observations, clip: Clip, lens: Lens, run: Run) -> Solved:
        """A camera that turns on the spot; its focal length is believed when each half of the tracks gives the same."""
        count, size = clip.frame_count, clip.info.plate_size
        warnings = (NO_DEPTH.format("turns without travelling"),)
        if lens.free:
            halves = [
                solve_nodal(static.where(static.track % 2 == k), count, size, lens.focal_px, True, run) for k in (0, 1)
            ]
            whole = solve_nodal(static, count, size, lens.focal_px, True, run)
            agree = None not in halves and focals_agree(halves, max(size))
            if agree and whole is not None and nodal_share(whole) >= NODAL_SHARE:
                return replace(first, solution=whole, focal_source="solved", warnings=warnings)
            warnings += ("The turn is too small to tell the focal length, so it was kept as assumed",)
        nodal = solve_nodal(static, count, size, lens.focal_px, False, run)
        return replace(first, solution=nodal or first.solution, warnings=warnings)


NO_DEPTH = (
    "The camera {}, so no depth can be measured: the camera and the masks are usable, "
    "and the picture stands on a sphere around the camera"
)


def known_lens(clip: Clip, settings: JobSettings) -> Lens:
    """The focal length from the user, else from the file's metadata, else from a field of view of 55 degrees."""
    width, height = clip.info.plate_size
    if settings.lens.focal_mm > 0:
        return Lens(settings.lens.focal_mm / settings.lens.sensor_width_mm * width, "user")
    if clip.focal_35mm:
        # 35 mm equivalents compare diagonals; that of 36 x 24 mm is 43.27 mm.
        return Lens(clip.focal_35mm / math.hypot(36, 24) * math.hypot(width, height), "metadata")
    return Lens(max(width, height) / 2 / math.tan(math.radians(PRIOR_FOV_DEG / 2)), "prior")


def plate_tracks(clip: Clip, max_features: int, run: Run) -> Observations:
    """Point tracks in plate pixels."""
    found = track_points(clip.frames, max_features, run)
    return replace(found, xy=clip.store_map.to_plate(found.xy))


def without_movers(tracks: Observations, masks: np.ndarray, grid_map: PlateMap) -> Observations:
    """Tracks without what was sighted in a mask, and none at all of points that often were."""
    height, width = masks.shape[1:]
    grown = np.stack([cv2.dilate(m.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0 for m in masks])
    x, y = np.floor(grid_map.to_grid(tracks.xy)).astype(int).T
    masked = grown[tracks.frame, np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)]
    share = np.bincount(tracks.track, masked) / np.maximum(np.bincount(tracks.track), 1)
    return tracks.where(~masked & (share[tracks.track] < MOVER_SHARE))


def check_registered(solution: Solution | None, frame_count: int) -> Solution:
    """The solution, or UserError when too few frames have a camera."""
    registered = 0 if solution is None else int(solution.registered.sum())
    if registered < max(3, MIN_REGISTERED * frame_count):
        raise UserError(
            f"The camera could be solved for only {registered} of {frame_count} frames",
            "enter the focal length, mask what moves, or use a part of the clip with more texture and parallax",
        )
    return solution


def nodal_share(solution: Solution) -> float:
    """Share of the sightings that a turning camera explains."""
    return float(np.mean(solution.errors_px < shots.TOLERANCE * max(solution.size)))


def focals_agree(solutions: list[Solution], long_side: float) -> bool:
    """Whether focal lengths are nearly the same, and such as lenses have (12 to 110 degrees across)."""
    focals = [s.focal_px for s in solutions]
    plausible = all(0.35 * long_side < f < 4.8 * long_side for f in focals)
    return plausible and max(focals) / min(focals) - 1 < FOCAL_AGREEMENT


def normalised(solution: Solution, kind: str) -> Solution:
    """The solution in the first registered camera's frame and at the engine's scale."""
    first = int(np.flatnonzero(solution.registered)[0])
    new_from_old = invert_poses(solution.world_from_camera[first])
    if kind != "moving":
        return solution.transformed(1.0, new_from_old)
    o = solution.observations
    _, depth = project(
        solution.points_world[o.track][:, None], solution.intrinsics, solution.world_from_camera[o.frame]
    )
    scale = MEDIAN_DEPTH / float(np.median(depth))
    new_from_old[:3, 3] *= scale
    return solution.transformed(scale, new_from_old)


def dome(shape: tuple[int, int, int], intrinsics: np.ndarray, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
    """Depth and confidence (T, H, W) of a sphere around the camera, marked as filled; nothing unless wanted."""
    frames, height, width = shape
    if not wanted:
        return np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    depth = RADIUS / np.linalg.norm(rays(intrinsics, width, height), axis=-1)
    return np.tile(depth.astype(np.float32), (frames, 1, 1)), np.full(shape, CONFIDENCE_FILLED, np.float32)


def to_capture(
    clip: Clip,
    settings: JobSettings,
    run: Run,
    solved: Solved,
    grid_frames: np.ndarray,
    grid_map: PlateMap,
    intrinsics: np.ndarray,
    depth: np.ndarray,
    confidence: np.ndarray,
    masks: np.ndarray,
    full_masks: np.ndarray,
) -> Capture:
    """Everything as a capture, with what is known of each frame."""
    solution, info = solved.solution, ENGINES["classical"]
    poses, interpolated = interpolate_poses(solution.world_from_camera, np.array(clip.info.timestamps))
    errors = solution.mean_error_px()
    sightings = np.bincount(solution.observations.frame, minlength=len(poses))
    suspicious = 2e-3 * max(clip.info.plate_size)
    frames = tuple(
        FrameReport(
            registered=bool(registered),
            interpolated=bool(between),
            low_confidence=bool(registered and (error > suspicious or seen < 20)),
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
    intrinsics_of_frames = np.tile(intrinsics, (len(poses), 1))
    intrinsics_of_frames[~np.isfinite(poses).all(axis=(1, 2))] = np.nan
    return Capture(
        clip=clip.info,
        plate_map=grid_map,
        engine=EngineStamp(info.name, VERSION, info.licence, info.commercial_use),
        settings=settings.to_json(),
        metric=False,
        confidence_meaning=CONFIDENCE_MEANING,
        confidence_default=CONFIDENCE_CARD if solved.kind == "moving" else CONFIDENCE_FILLED,
        world_from_camera=poses,
        intrinsics=intrinsics_of_frames,
        rgb=grid_frames,
        depth=depth.astype(np.float32),
        confidence=confidence.astype(np.float16),
        dynamic=masks,
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
        plate_masks=full_masks,
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
