"""Points that hang in front of what another view saw more surely lose their confidence."""

from __future__ import annotations

import torch
from torch import Tensor

_IN_FRONT = 0.999  # of a depth map: nearer than this share of it is in front


def without_floaters(
    points: Tensor, depth: Tensor, world_from_camera: Tensor, focal_px: Tensor, centre_px: Tensor, confidence: Tensor
) -> Tensor:
    """(T, H, W) `confidence`, 0 where a point hangs in front of another view's depth and is less sure than it.

    `points` (T, H, W, 3) of the views' pixels in the world, z-`depth` (T, H, W), poses (T, 4, 4), `focal_px` (T,),
    principal points `centre_px` (T, 2). View after view, so what one has lost cannot take from the next. As the
    originals of MonST3R (facts sheet, section 8.4) and MASt3R (3.6) do it.
    """
    frame_count, h, w = confidence.shape
    camera_from_world = torch.linalg.inv(world_from_camera)
    cleaned = confidence.clone()
    for i in range(frame_count):
        for j in range(frame_count):
            if i == j:
                continue
            rotation, shift = camera_from_world[j, :3, :3], camera_from_world[j, :3, 3]
            x, y, z = (points[i] @ rotation.T + shift).unbind(-1)
            column = (focal_px[j] * x / z + centre_px[j, 0]).round()
            row = (focal_px[j] * y / z + centre_px[j, 1]).round()
            seen = (z > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
            at = row[seen].long(), column[seen].long()
            hides = (z[seen] < _IN_FRONT * depth[j][at]) & (cleaned[i][seen] < cleaned[j][at])
            cleaned[i][seen] = torch.where(hides, 0.0, cleaned[i][seen])
    return cleaned
