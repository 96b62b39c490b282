"""What the original says of single views: focal length by Weiszfeld, pose by PnP, confidence over all pairs."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from .losses import pixel_grid
from .predictions import PairPredictions

#: Confidence above which a pixel takes part in PnP.
PNP_CONFIDENCE = 3.0
_PNP_REACH_PX = 5.0
_ROUNDS = 10


def weiszfeld_focal(points: Tensor, centre: tuple[float, float] | None = None) -> Tensor:
    """(N,) focal length in pixels of (N, H, W, 3) points in their own camera; facts sheet, section 8.2.

    Minimises the sum of |pixel - centre - f (x, y) / z|: least squares first, then reweighted. `centre` is by default
    (W/2, H/2).
    """
    h, w = points.shape[1:3]
    pixel = (pixel_grid(points[..., 0]) - points.new_tensor(centre or (w / 2, h / 2))).reshape(1, -1, 2)
    slope = (points[..., :2] / points[..., 2:]).reshape(len(points), -1, 2)
    slope = torch.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0)
    along, square = (slope * pixel).sum(-1), (slope * slope).sum(-1)
    focal = along.mean(1) / square.mean(1)
    for _ in range(_ROUNDS):
        residual = torch.linalg.vector_norm(pixel - focal[:, None, None] * slope, dim=-1)
        weight = 1.0 / residual.clamp(min=1e-8)
        focal = (weight * along).mean(1) / (weight * square).mean(1)
    return focal


def pose_from_points(points: Tensor, focal_px: float, mask: Tensor, iterations: int) -> Tensor | None:
    """(4, 4) float32 world_from_camera that sees (H, W, 3) `points` of a world at their own pixels; None on failure.

    RANSAC with SQPNP over the pixels of `mask` (H, W), errors up to 5 px, principal point at (W/2, H/2). OpenCV draws
    the same samples every time.
    """
    h, w = mask.shape
    pixels = pixel_grid(points[..., 0].float().cpu())[mask.cpu()].numpy()
    chosen = points.float().cpu()[mask.cpu()].numpy()
    if len(chosen) < 4 or not np.isfinite(focal_px):
        return None
    camera = np.array([[focal_px, 0, w / 2], [0, focal_px, h / 2], [0, 0, 1]], np.float32)
    try:
        found, turn, shift, _ = cv2.solvePnPRansac(
            chosen,
            pixels,
            camera,
            None,
            iterationsCount=iterations,
            reprojectionError=_PNP_REACH_PX,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:  # points that OpenCV cannot work with, such as all in one place
        return None
    if not found:
        return None
    camera_from_world = np.eye(4)
    camera_from_world[:3, :3], camera_from_world[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
    return torch.linalg.inv(torch.from_numpy(camera_from_world)).float()


def edge_scores(predictions: PairPredictions) -> Tensor:
    """(E,) how much a pair is worth: mean confidence of its first view times that of its second."""
    return predictions.confidence_i.mean((1, 2)) * predictions.confidence_j.mean((1, 2))


def frame_confidence(predictions: PairPredictions, frame_count: int) -> Tensor:
    """(T, H, W) the largest confidence that any pair gives to a pixel; 0 for a frame without pairs."""
    best = predictions.confidence_i.new_zeros(frame_count, *predictions.confidence_i.shape[1:])
    for e, (i, j) in enumerate(predictions.edges.tolist()):
        best[i] = torch.maximum(best[i], predictions.confidence_i[e])
        best[j] = torch.maximum(best[j], predictions.confidence_j[e])
    return best
