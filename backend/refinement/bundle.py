"""Bundle adjustment through pycolmap, started from cameras that are known already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..colmap import pycolmap
from ..geometry.rigid import invert_poses
from ..run import Run
from .cameras import Cameras
from .sightings import Static

ITERATIONS = 40
#: The adjustment ends when a step lowers the cost by less than this share.
TOLERANCE = 1e-5


def adjust(
    static: Static, points_world: np.ndarray, cameras: Cameras, noise_px: float, lens: str, run: Run
) -> tuple[Cameras, np.ndarray]:
    """Cameras and (N, 3) points that lower the reprojection errors under a Cauchy loss of scale `noise_px`.

    `lens` is 'fixed', 'shared' (one factor on all focal lengths, so that a zoom keeps its course) or 'each'. Frames
    without sightings keep their camera. The result is in a world of its own scale, place and orientation.
    """
    run.check()
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)
    frames = np.unique(static.seen.frame)
    # Pixels of every frame are scaled to one focal length: then one shared camera serves a zoom too.
    reference = float(np.median(cameras.focal_px[frames]))
    model = _model(static, points_world, cameras, frames, reference, lens == "each")
    options = pycolmap.BundleAdjustmentOptions(
        refine_focal_length=lens != "fixed", refine_extra_params=False, print_summary=False
    )
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = noise_px
    options.ceres.min_num_residuals_for_cpu_multi_threading = 5000
    options.ceres.solver_options.max_num_iterations = ITERATIONS
    options.ceres.solver_options.function_tolerance = TOLERANCE
    options.ceres.solver_options.num_threads = run.workers
    config = pycolmap.BundleAdjustmentConfig()
    for t in frames:
        config.add_image(int(t) + 1)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    run.check()

    poses, focal = cameras.world_from_camera.copy(), cameras.focal_px.copy()
    for t in frames:
        camera_from_world = np.eye(4)
        camera_from_world[:3] = model.image(int(t) + 1).cam_from_world().matrix()
        poses[t] = invert_poses(camera_from_world)
        if lens == "each":
            focal[t] *= model.camera(int(t) + 1).focal_length / reference
    if lens == "shared":
        focal *= model.camera(1).focal_length / reference
    points = points_world.copy()
    for n, point in model.points3D.items():
        points[n - 1] = point.xyz
    return replace(cameras, world_from_camera=poses, focal_px=focal), points


def _model(
    static: Static, points_world: np.ndarray, cameras: Cameras, frames: np.ndarray, reference: float, lens_each: bool
) -> pycolmap.Reconstruction:
    """Images and cameras numbered by their frame from 1, points by their track from 1."""
    model = pycolmap.Reconstruction()
    seen = static.seen
    xy = cameras.rays(seen)[:, :2] * reference
    tracks = [pycolmap.Track() for _ in points_world]
    camera_from_world = invert_poses(cameras.world_from_camera)
    for t in frames:
        camera_id = int(t) + 1 if lens_each else 1
        if not model.exists_camera(camera_id):
            model.add_camera_with_trivial_rig(
                pycolmap.Camera(
                    camera_id=camera_id, model="SIMPLE_PINHOLE", width=1, height=1, params=[reference, 0.0, 0.0]
                )
            )
        here = np.flatnonzero(seen.frame == t)
        image = pycolmap.Image(name=str(t), keypoints=xy[here], camera_id=camera_id, image_id=int(t) + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(camera_from_world[t, :3]))
        for k, n in enumerate(seen.track[here].tolist()):
            tracks[n].add_element(int(t) + 1, k)
    for n, (xyz, track) in enumerate(zip(points_world, tracks)):
        model.add_point3D_with_id(n + 1, pycolmap.Point3D(xyz=xyz, track=track))
    return model
