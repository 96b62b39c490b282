"""The camera: which solver a shot gets, which focal length, and what must be said of the result."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

import numpy as np

from ..clip import Clip
from ..geometry.camera import project
from ..geometry.rigid import invert_poses
from ..run import Run
from ..wire import JobSettings, UserError
from . import shots
from .nodal import solve_nodal
from .sfm import Solution, disagreement, solve_both, solve_once
from .tracks import Observations

log = logging.getLogger(__name__)

#: Median depth of the tracked points: the scale of a world that has none of its own.
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

NO_DEPTH = (
    "The camera {}, so no depth can be measured: the camera and the masks are usable, "
    "and the picture stands on a sphere around the camera"
)


@dataclass(frozen=True)
class Lens:
    """The focal length to start from, in plate pixels, and where it comes from: only the user's is never changed."""

    focal_px: float
    source: str

    @property
    def free(self) -> bool:
        return self.source != "user"


@dataclass(frozen=True)
class Shot:
    """A clip as the solvers see it: its tracks in plate pixels, its size, and its lens."""

    frame_count: int
    size: tuple[int, int]
    lens: Lens


@dataclass(frozen=True)
class Solved:
    """A solved camera. `kind` is 'moving', 'rotation' or 'locked'; the rest is as in the capture's ShotReport."""

    kind: str
    solution: Solution
    disagreement: float | None
    focal_source: str
    warnings: tuple[str, ...] = ()


def known_lens(clip: Clip, settings: JobSettings) -> Lens:
    """The focal length from the user, else from the file's metadata, else from a field of view of 55 degrees."""
    width, height = clip.info.plate_size
    if clip.known_cameras is not None:
        return Lens(*_given_lens(clip))
    if settings.lens.focal_mm > 0:
        return Lens(settings.lens.focal_mm / settings.lens.sensor_width_mm * width, "user")
    if clip.focal_35mm:
        # 35 mm equivalents compare diagonals; that of 36 x 24 mm is 43.27 mm.
        return Lens(clip.focal_35mm / math.hypot(36, 24) * math.hypot(width, height), "metadata")
    return Lens(max(width, height) / 2 / math.tan(math.radians(PRIOR_FOV_DEG / 2)), "prior")


def _given_lens(clip: Clip) -> tuple[float, str]:
    """The one focal length that the user's file has. Raises UserError for what this engine cannot keep."""
    known = clip.known_cameras
    if known.world_from_camera is not None:
        raise UserError(
            "The classic engine solves the camera itself", "give poses to another engine, or leave them out"
        )
    focal = known.plate_intrinsics[:, 0]
    if np.ptp(focal) > 1e-3 * focal.mean():
        raise UserError("The classic engine takes one focal length for the whole clip", "give one row of intrinsics")
    return float(focal.mean()), "user"


def solve_first(shot: Shot, tracks: Observations, run: Run) -> Solved:
    """A first camera, at the focal length known beforehand: good enough to find the movers by."""
    seen = shots.classify(tracks, shot.frame_count, max(shot.size))
    log.info("%s", seen)
    if seen is None:
        raise UserError(
            "Hardly any point of the picture could be followed",
            "use a part of the clip that has texture in focus, or raise Tracks",
        )
    if seen.kind == "locked":
        return Solved("locked", _nodal(shot, tracks, False, run, locked=True), None, shot.lens.source)
    if seen.kind == "rotation":
        for free in (shot.lens.free, False):
            nodal = _nodal(shot, tracks, free, run)
            if nodal is not None and nodal_share(nodal) >= NODAL_SHARE:
                return Solved("rotation", nodal, None, shot.lens.source)
        log.info("One plane or little parallax, but no turn on the spot: solving as a moving camera")
    solution = solve_once(tracks, shot.frame_count, shot.size, shot.lens.focal_px, run)
    return Solved("moving", check_registered(solution, shot.frame_count), None, shot.lens.source)


def solve_again(first: Solved, shot: Shot, static: Observations, run: Run) -> Solved:
    """The camera from static tracks alone; the focal length is freed only where two solves agree on it."""
    if first.kind == "locked":
        fixed = _nodal(shot, static, False, run, locked=True) or first.solution
        return replace(first, solution=fixed, warnings=(NO_DEPTH.format("does not move"),))
    return (_turning if first.kind == "rotation" else _moving)(first, shot, static, run)


def _moving(first: Solved, shot: Shot, static: Observations, run: Run) -> Solved:
    """A travelling camera, by two solvers."""
    for free in (True, False) if shot.lens.free else (False,):
        solutions = solve_both(static, shot.frame_count, shot.size, shot.lens.focal_px, free, run)
        solutions = sorted(
            (s for s in solutions if s is not None), key=lambda s: (-s.registered.sum(), s.errors_px.mean())
        )
        differ = disagreement(*solutions) if len(solutions) == 2 else math.inf
        if free and differ < PATH_AGREEMENT and focals_agree(solutions, max(shot.size)):
            return replace(first, solution=solutions[0], disagreement=differ, focal_source="solved")
    if not solutions or solutions[0].registered.sum() < first.solution.registered.sum() / 2:
        warning = (
            "Too little of the picture stands still to solve the camera from that alone: check it against the plate"
        )
        return replace(first, warnings=(warning,))
    best = check_registered(solutions[0], shot.frame_count)
    warnings = []
    if shot.lens.free:
        warnings.append(
            "The two solvers did not agree on the focal length, so it was kept as assumed "
            f"({best.horizontal_fov_deg:.0f} degrees across): enter the lens for a better camera"
        )
    if differ > PATH_AGREEMENT:
        warnings.append("The two solvers did not agree on the camera's path: check it against the plate")
    known = differ if math.isfinite(differ) else None
    return replace(first, solution=best, disagreement=known, warnings=tuple(warnings))


def _turning(first: Solved, shot: Shot, static: Observations, run: Run) -> Solved:
    """A camera that turns on the spot; its focal length is believed when each half of the tracks gives the same."""
    warnings = (NO_DEPTH.format("turns without travelling"),)
    if shot.lens.free:
        halves = [_nodal(shot, static.where(static.track % 2 == k), True, run) for k in (0, 1)]
        whole = _nodal(shot, static, True, run)
        if None not in halves and whole is not None and focals_agree(halves, max(shot.size)):
            return replace(first, solution=whole, focal_source="solved", warnings=warnings)
        warnings += ("The turn is too small to tell the focal length, so it was kept as assumed",)
    return replace(first, solution=_nodal(shot, static, False, run) or first.solution, warnings=warnings)


def _nodal(shot: Shot, tracks: Observations, free: bool, run: Run, locked: bool = False) -> Solution | None:
    return solve_nodal(tracks, shot.frame_count, shot.size, shot.lens.focal_px, free, run, locked)


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


def normalised(solved: Solved) -> Solved:
    """The same in the first registered camera's frame, scaled to the median depth; a nodal world keeps its scale."""
    solution = solved.solution
    first = int(np.flatnonzero(solution.registered)[0])
    new_from_old = invert_poses(solution.world_from_camera[first])
    if solved.kind != "moving":
        return replace(solved, solution=solution.transformed(1.0, new_from_old))
    o = solution.observations
    _, depth = project(
        solution.points_world[o.track][:, None], solution.intrinsics, solution.world_from_camera[o.frame]
    )
    scale = MEDIAN_DEPTH / float(np.median(depth))
    new_from_old[:3, 3] *= scale
    return replace(solved, solution=solution.transformed(scale, new_from_old))
