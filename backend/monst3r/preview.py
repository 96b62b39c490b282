"""The preview: each frame compared with the middle one, and no alignment; rough, and ready in seconds."""

from __future__ import annotations

import cv2
import numpy as np

from ..align.predictions import PairPredictions
from ..align.sampled import sample, sample_pixels
from ..align.start import focal_from_points
from ..run import Run
from ..wire import UserError
from .between import Solved

#: Pixels that a camera is found from, and how far one may miss, at 512 across.
PIXELS = 1500
MISS_PX = 5.0


def preview_pairs(frame_count: int) -> list[tuple[int, int]]:
    """Every frame with the middle one, which comes first, itself included; facts sheet, section 5."""
    middle = frame_count // 2
    return [(middle, n) for n in range(frame_count)]


def preview(
    predictions: PairPredictions, focal_px: float | None, run: Run, centre: tuple[float, float] | None = None
) -> Solved:
    """Cameras and depth of each frame from its pair with the middle one, whose camera is the origin.

    A camera comes from where the network puts the frame's pixels in the middle one's view (perspective-n-point with
    RANSAC). `centre` is the principal point, None for (W/2, H/2). Scales follow the middle frame's own depth. Raises
    UserError when no frame but the middle one fits.
    """
    width, height = predictions.size
    pixels = sample_pixels(predictions.size, PIXELS)
    sampled = sample(predictions, None, pixels, centre=centre)
    if focal_px is None:
        focal_px = float(focal_from_points(sampled).nanmedian())
    if not np.isfinite(focal_px):
        raise UserError("The network finds nothing in front of the camera", "use another part of the clip")
    count = len(predictions.edges)
    middle = int(predictions.edges[0, 0])
    centre_x, centre_y = centre or (width / 2, height / 2)
    matrix = np.array([[focal_px, 0, centre_x], [0, focal_px, centre_y], [0, 0, 1.0]])
    own = sampled.points_i[middle, :, 2].clamp(min=1e-9).log()
    poses = np.full((count, 4, 4), np.nan)
    depth, confidence = (np.zeros((count, height, width), np.float32) for _ in range(2))
    uv = pixels.numpy().astype(np.float64)
    for n in run.steps(count):
        scale = float((own - sampled.points_i[n, :, 2].clamp(min=1e-9).log()).median().exp())
        points = predictions.points_j[n].float().numpy() * scale
        sure = predictions.confidence_j[n].float().numpy()
        if n == middle:
            camera = np.eye(4)
        else:
            x, y = pixels.numpy().T
            camera = _camera(points[y, x], uv, matrix, MISS_PX * width / 512)
        if camera is None:
            continue
        poses[n] = np.linalg.inv(camera)
        z = points @ camera[2, :3] + camera[2, 3]
        depth[n], confidence[n] = np.where(z > 0, z, 0), np.where(z > 0, sure, 0)
    if np.isfinite(poses[:, 0, 0]).sum() < min(3, count):
        raise UserError(
            "No frame could be placed beside the middle one", "the preview is for small motion; use the full mode"
        )
    nothing = np.zeros(count, bool)
    return Solved(poses, np.full(count, focal_px), depth, confidence, np.zeros_like(depth), nothing, ~nothing)


def _camera(points: np.ndarray, uv: np.ndarray, matrix: np.ndarray, miss_px: float) -> np.ndarray | None:
    """camera_from_world of points (P, 3) seen at pixels (P, 2); None where they do not fit one."""
    ok = np.isfinite(points).all(-1)
    if ok.sum() < 12:
        return None
    cv2.setRNGSeed(0)
    found, turn, shift, inliers = cv2.solvePnPRansac(
        points[ok].astype(np.float64),
        uv[ok],
        matrix,
        None,
        iterationsCount=100,
        reprojectionError=miss_px,
        flags=cv2.SOLVEPNP_SQPNP,
    )
    if not found or inliers is None or len(inliers) < 0.3 * ok.sum():
        return None
    inside = inliers[:, 0]
    turn, shift = cv2.solvePnPRefineLM(points[ok][inside].astype(np.float64), uv[ok][inside], matrix, None, turn, shift)
    camera = np.eye(4)
    camera[:3, :3], camera[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return camera
