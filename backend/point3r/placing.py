"""The clip's frames in one world: the lens, the path of the camera, and depth in the path's unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from ..geometry.trajectory import has_pose
from ..monst3r.knowns import Given
from ..streaming.focal import centre_of, shared_focal
from ..streaming.poses import FALLBACK, PoseOptions
from ..wire import Point3RSettings, UserError
from .given import in_given_world
from .passing import SOURCES, Passed

#: Share of frames whose points must say where their camera is.
MIN_FITTING = 0.5
#: Frames whose points are further beside their rays, in widths of the picture, show no scene; and those at another size
#: than the world, by more than this factor, not the same one.
OFF_RAYS, MOST_SCALE = 0.05, 2.0
#: Frames over which a changing lens is steadied.
STEADY_FRAMES = 9


@dataclass(frozen=True)
class Placed:
    """T frames in one world: `world_from_camera` (T, 4, 4), NaN where no camera was found, `focal_px` (T,), `centre`
    the principal point in pixels from the first one's centre, `depth` and `confidence` (T, H, W), 0 where not known.

    `doubtful` (T,) bool: whose camera is not by what it was to be by.
    """

    world_from_camera: np.ndarray
    focal_px: np.ndarray
    centre: tuple[float, float]
    depth: np.ndarray
    confidence: np.ndarray
    doubtful: np.ndarray


def pose_options(options: Point3RSettings, given: Given) -> PoseOptions:
    """How the settings want a frame's camera to be found."""
    source = {"points": "robust", "pixels": "pnp", "published": "procrustes", "network": "head"}[options.cameras]
    focal = None if given.focal_px is None else float(np.median(given.focal_px))
    return PoseOptions(source=source, steady=options.steady, focal_px=focal)


def lens_of(passed: Passed, given: Given, zoom: bool) -> np.ndarray:
    """(T,) focal lengths in pixels: the given one, or what the frames say together, or each with those beside it.

    Raises UserError when no frame says anything.
    """
    if given.focal_px is not None:
        return given.focal_px
    known = np.isfinite(passed.focal_px)
    if not known.any():
        raise UserError("The network finds nothing in front of the camera", "use another part of the clip")
    if zoom:
        frames = np.arange(len(known))
        logs = np.interp(frames, frames[known], np.log(passed.focal_px[known]))
        return np.exp(median_filter(logs, min(STEADY_FRAMES, len(logs)), mode="nearest"))
    return np.full(len(known), shared_focal(passed.focal_px).focal_px)


def fitting(passed: Passed, source: str) -> np.ndarray:
    """(T,) bool: frames whose points lie on the rays of a lens, and say by `source`, or by what stands in for it, where
    in the world the camera is, at about the size that the world has."""
    ways = [SOURCES.index(way) for way in FALLBACK[source] if way != "head" or source == "head"]
    alike = np.abs(np.log(passed.scale)) < np.log(MOST_SCALE)
    return np.isin(passed.source, ways) & alike & (passed.off_rays < OFF_RAYS) & has_pose(passed.world_from_camera)


def check_fitting(passed: Passed, source: str) -> None:
    """Raise UserError when too few frames are `fitting`."""
    good = fitting(passed, source)
    count, frames = int(good.sum()), len(good)
    if count < max(2, MIN_FITTING * frames):
        raise UserError(
            f"The camera could be placed for only {count} of {frames} frames: what the network sees in a frame does "
            "not fit what it remembers",
            "use a part of the clip with less blur and fewer cuts",
        )


def place(
    passed: Passed,
    world_from_camera: np.ndarray,
    scale: np.ndarray,
    given: Given,
    locked: bool,
    focal_px: np.ndarray,
    source: str,
) -> Placed:
    """The frames in the world of the path (T, 4, 4), which becomes that of the `given` cameras where there are some.

    `scale` (T,) brings each frame's depth to the path's unit. With `locked` the camera stands where it began.
    """
    height, width = passed.depth.shape[1:]
    if locked:
        world_from_camera = np.where(has_pose(world_from_camera)[:, None, None], np.eye(4), np.nan)
    elif given.world_from_camera is not None:
        world_from_camera, larger = in_given_world(world_from_camera, given.world_from_camera)
        scale = scale * larger
    for t, factor in enumerate(scale):
        passed.depth[t] *= np.float32(factor)
    return Placed(
        world_from_camera,
        focal_px,
        given.centre or centre_of(width, height),
        passed.depth,
        passed.confidence,
        doubtful=~fitting(passed, source) | (passed.source != SOURCES.index(source)),
    )
