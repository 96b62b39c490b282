"""Structure from motion by two independent solvers, COLMAP's incremental and its global one."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..colmap import pycolmap
from ..geometry.camera import project
from ..geometry.rigid import invert_poses
from ..geometry.trajectory import absolute_trajectory_error
from ..run import Run
from .database import write_database
from .tracks import Observations

log = logging.getLogger(__name__)

# COLMAP's limits are for photographs taken metres apart. Frames of a shot lie close together: points under a small
# angle still fix the camera's rotation, and without them a mover, whose own motion looks like parallax, takes over.
MIN_ANGLE_DEG = 0.3
INITIAL_ANGLE_DEG = 4.0
#: Largest reprojection error of a point, as a fraction of the focal length (global) and of the long side (incremental).
MAX_ERROR_OF_FOCAL = 0.005
MAX_ERROR_OF_LONG_SIDE = 0.0035


@dataclass(frozen=True)
class Solution:
    """A solved shot. `world_from_camera` (T, 4, 4) is NaN where a frame was not registered.

    `points_world` (N, 3); `observations.track` counts its rows; `errors_px` (M,) are reprojection errors. All pixels
    and the focal length are of the plate, whose `size` is (width, height).
    """

    focal_px: float
    size: tuple[int, int]
    world_from_camera: np.ndarray
    points_world: np.ndarray
    observations: Observations
    errors_px: np.ndarray

    @property
    def registered(self) -> np.ndarray:
        """(T,) bool."""
        return np.isfinite(self.world_from_camera).all(axis=(1, 2))

    @property
    def intrinsics(self) -> np.ndarray:
        """fx fy cx cy of the plate."""
        return np.array([self.focal_px, self.focal_px, self.size[0] / 2, self.size[1] / 2])

    @property
    def horizontal_fov_deg(self) -> float:
        return math.degrees(2 * math.atan(self.size[0] / 2 / self.focal_px))

    def with_errors(self) -> Solution:
        """The same with `errors_px` measured."""
        o = self.observations
        xy, _ = project(self.points_world[o.track][:, None], self.intrinsics, self.world_from_camera[o.frame])
        return replace(self, errors_px=np.linalg.norm(xy[:, 0] - o.xy, axis=1))

    def transformed(self, scale: float, new_from_old: np.ndarray) -> Solution:
        """The same in a world scaled and then moved by a rigid 4x4."""
        poses = self.world_from_camera.copy()
        poses[:, :3, 3] *= scale
        points = scale * self.points_world @ new_from_old[:3, :3].T + new_from_old[:3, 3]
        return replace(self, world_from_camera=new_from_old @ poses, points_world=points)

    def mean_error_px(self) -> np.ndarray:
        """(T,) mean reprojection error of every frame, NaN where it has no observation."""
        count = np.bincount(self.observations.frame, minlength=len(self.world_from_camera))
        total = np.bincount(self.observations.frame, self.errors_px, minlength=len(self.world_from_camera))
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def solve_both(
    observations: Observations, frame_count: int, size: tuple[int, int], focal_px: float, free_focal: bool, run: Run
) -> tuple[Solution | None, Solution | None]:
    """The shot by the incremental and by the global solver, each None when it finds nothing."""
    database = _prepare(observations, frame_count, size, focal_px, run)
    run.progress(0.2)
    second = solve_global(database, frame_count, free_focal, run)
    run.progress(0.5)
    return solve_incremental(database, frame_count, free_focal, run), second


def solve_once(
    observations: Observations, frame_count: int, size: tuple[int, int], focal_px: float, run: Run
) -> Solution | None:
    """The shot by the global solver at a fixed focal length: it stands up best to movers not yet masked."""
    return solve_global(_prepare(observations, frame_count, size, focal_px, run), frame_count, False, run)


def disagreement(a: Solution, b: Solution) -> float:
    """RMS distance of two solutions' camera paths after alignment, as a fraction of the path's length.

    Infinite when the paths cannot be compared at all.
    """
    try:
        return absolute_trajectory_error(b.world_from_camera, a.world_from_camera).ate_relative
    except ValueError:
        return math.inf


def _prepare(observations: Observations, frame_count: int, size: tuple[int, int], focal_px: float, run: Run) -> Path:
    # COLMAP speaks on standard error only when something is wrong.
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    database = Path(run.work_dir) / "shot.db"
    write_database(database, observations, frame_count, size, focal_px, run)
    run.check()
    return database


def solve_global(database: Path, frame_count: int, free_focal: bool, run: Run) -> Solution | None:
    """By global structure from motion (Pan et al. 2024, GLOMAP)."""
    o = pycolmap.GlobalPipelineOptions(num_threads=run.workers, random_seed=run.seed, multiple_models=False)
    mapper = o.mapper
    mapper.num_threads, mapper.random_seed = run.workers, run.seed
    mapper.bundle_adjustment.refine_focal_length = free_focal
    mapper.bundle_adjustment.refine_extra_params = False
    mapper.bundle_adjustment.ceres.use_gpu = mapper.global_positioning.use_gpu = False
    mapper.min_tri_angle_deg = mapper.retriangulation.min_angle = MIN_ANGLE_DEG
    mapper.max_normalized_reproj_error = MAX_ERROR_OF_FOCAL
    models = pycolmap.global_mapping(database, database.parent, database.parent, o)
    return _best(models, frame_count, "global")


def solve_incremental(database: Path, frame_count: int, free_focal: bool, run: Run) -> Solution | None:
    """By incremental structure from motion (Schönberger and Frahm 2016, COLMAP)."""
    o = pycolmap.IncrementalPipelineOptions(
        num_threads=run.workers, random_seed=run.seed, multiple_models=False, extract_colors=False
    )
    o.min_model_size = 3
    o.ba_refine_focal_length, o.ba_refine_extra_params = free_focal, False
    mapper = o.mapper
    mapper.abs_pose_refine_focal_length = mapper.abs_pose_refine_extra_params = False
    mapper.num_threads, mapper.random_seed = run.workers, run.seed
    mapper.init_min_tri_angle, mapper.init_max_forward_motion = INITIAL_ANGLE_DEG, 0.99
    mapper.ba_local_min_tri_angle = 2.0
    mapper.filter_min_tri_angle = o.triangulation.min_angle = MIN_ANGLE_DEG
    with pycolmap.Database.open(database) as db:
        camera = db.read_camera(1)
    mapper.filter_max_reproj_error = MAX_ERROR_OF_LONG_SIDE * max(camera.width, camera.height)
    models = pycolmap.incremental_mapping(database, database.parent, database.parent, o)
    return _best(models, frame_count, "incremental")


def _best(models: dict, frame_count: int, solver: str) -> Solution | None:
    """The model with the most frames, as arrays."""
    if not models:
        log.info("The %s solver found no model", solver)
        return None
    model = max(models.values(), key=lambda m: m.num_reg_images())
    world_from_camera = np.full((frame_count, 4, 4), np.nan)
    for i in model.reg_image_ids():
        camera_from_world = np.eye(4)
        camera_from_world[:3] = model.image(i).cam_from_world().matrix()
        world_from_camera[i - 1] = invert_poses(camera_from_world)
    points, sightings = [], []
    for n, point in enumerate(model.points3D.values()):
        points.append(point.xyz)
        sightings += [(n, e.image_id, e.point2D_idx) for e in point.track.elements]
    if len(points) < 3:
        return None
    keypoints = {i: np.array([p.xy for p in model.image(i).points2D]) for i in model.reg_image_ids()}
    camera = next(iter(model.cameras.values()))
    track, image, feature = np.array(sightings).T
    xy = np.array([keypoints[i][k] for i, k in zip(image, feature)])
    solution = Solution(
        camera.focal_length,
        (camera.width, camera.height),
        world_from_camera,
        np.array(points),
        Observations(track, image - 1, xy),
        np.zeros(len(track)),
    ).with_errors()
    log.info(
        "The %s solver: %d of %d frames, %d points, %.2f px, field of view %.1f degrees",
        solver,
        solution.registered.sum(),
        frame_count,
        len(points),
        solution.errors_px.mean(),
        solution.horizontal_fov_deg,
    )
    return solution
