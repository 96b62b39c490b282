"""The point of a capture under the mouse: what an import shows now, and which of it is nearest to a pixel of a view."""

from __future__ import annotations

import bpy
import numpy as np

from .imported import LINKED, PLAYER, PROJECTED, STATIC, Imported

#: Points this much farther than the nearest one under the mouse, as a share of its depth, are the same surface.
_SAME_SURFACE = 0.03


def shown_points(imported: Imported, depsgraph: bpy.types.Depsgraph) -> np.ndarray:
    """(N, 3) float32 world positions of the points and vertices that the visible objects of an import show now."""
    found = [np.empty((0, 3), np.float32)]
    for role in (PLAYER, STATIC, LINKED, PROJECTED):
        for ob in imported.objects(role):
            if not ob.visible_get(view_layer=depsgraph.view_layer):
                continue
            evaluated = ob.evaluated_get(depsgraph)
            geometry = evaluated.evaluated_geometry()
            world = np.array(evaluated.matrix_world, np.float32)
            for data in (geometry.pointcloud, geometry.mesh):
                position = data.attributes.get("position") if data is not None else None
                if position is not None and len(position.data):
                    points = np.empty(len(position.data) * 3, np.float32)
                    position.data.foreach_get("vector", points)
                    found.append(points.reshape(-1, 3) @ world[:3, :3].T + world[:3, 3])
    return np.concatenate(found)


def pick(
    points: np.ndarray, clip_from_world: np.ndarray, size: tuple[int, int], mouse: tuple[float, float], radius_px: float
) -> np.ndarray | None:
    """The (3,) one of (N, 3) world points that is seen at `mouse`, or None when none is within `radius_px`.

    `clip_from_world` (4, 4) is the view's, `size` its width and height in pixels, `mouse` in pixels from its lower
    left corner. Of several surfaces under the mouse it is the nearest, and of its points the one closest to the mouse.
    """
    projected = points @ clip_from_world[:3, :3].T + clip_from_world[:3, 3]
    w = points @ clip_from_world[3, :3] + clip_from_world[3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        offset = (projected[:, :2] / w[:, None] + 1) / 2 * size - np.asarray(mouse)
        depth = projected[:, 2] / w
    away = np.hypot(*offset.T)
    near = np.flatnonzero((w > 0) & (away <= radius_px) & (np.abs(depth) <= 1))
    if not len(near):
        return None
    if np.ptp(w[near]) > 0:  # in perspective, w is the distance along the view; an orthographic view has it in depth
        front = w[near] <= w[near].min() * (1 + _SAME_SURFACE)
    else:
        front = depth[near] <= depth[near].min() + _SAME_SURFACE * np.ptp(depth[near])
    near = near[front]
    return points[near[np.argmin(away[near])]].astype(np.float64)
