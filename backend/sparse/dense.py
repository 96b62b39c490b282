"""From solved anchors to the depth of every pixel, frame by frame, and confidence without points that hang in front."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from scipy.ndimage import map_coordinates

from .canonical import BLOCK, CanonicalView
from .solve import SparseSolution

#: Nearer than this share of another frame's depth is in front of it. The original has 0.999, which is less than the
#: noise of depth and takes half of the good points.
IN_FRONT = 0.97


def dense_depth(views: Iterable[CanonicalView], solution: SparseSolution) -> Iterator[np.ndarray]:
    """(H, W) float32 z-depth of each frame, streamed; NaN for frames that are not registered.

    A pixel's predicted depth times what the solution corrects it by, which is interpolated between the anchors around
    it: with one correction a block its edges would show.
    """
    for view, anchor_depth, known in zip(views, solution.anchor_depth, solution.registered):
        core, ratio, own = (
            t.cpu().numpy().astype(np.float64) for t in (view.core_depth, view.depth_ratio, view.points[..., 2])
        )
        height, width = ratio.shape
        if not known:
            yield np.full((height, width), np.nan, np.float32)
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            correction = np.log(anchor_depth / core)
        correction = np.where(np.isfinite(correction), correction, np.nanmedian(correction))
        rows, columns = ((np.arange(n) - BLOCK // 2) / BLOCK for n in (height, width))
        between = map_coordinates(correction, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
        # The ratio is the steadier mean of the two, but of surfaces seen edge-on it may not be a depth.
        predicted = np.kron(core, np.ones((BLOCK, BLOCK))) * ratio
        predicted = np.where(predicted > 0, predicted, own)
        yield (predicted * np.exp(between)).astype(np.float32)


def cleaned_confidence(
    depth: np.ndarray,
    confidence: np.ndarray,
    solution: SparseSolution,
    pairs: Iterable[tuple[int, int]],
    in_front: float = IN_FRONT,
    progress: Callable[[float], None] = lambda fraction: None,
) -> np.ndarray:
    """(N, H, W) `confidence`, 0 where a point hangs in front of what another frame saw more surely.

    Of frames in `pairs`, either way. Frame after frame, so that what one has lost cannot take from the next;
    specs/mast3r.md 3.6. `depth` (N, H, W), NaN or 0 where unknown. Holds one frame's points at a time. `progress` is
    told the fraction done and may raise to stop.
    """
    cleaned = confidence.copy()
    height, width = depth.shape[1:]
    partners: dict[int, set[int]] = {}
    for i, j in pairs:
        if solution.registered[i] and solution.registered[j]:
            partners.setdefault(i, set()).add(j)
            partners.setdefault(j, set()).add(i)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    xy = np.stack([x, y], -1)
    rotation, place = solution.world_from_camera[:, :3, :3], solution.world_from_camera[:, :3, 3]
    for done, i in enumerate(sorted(partners)):
        progress(done / len(partners))
        ray = np.concatenate([(xy - solution.principal_point[i]) / solution.focal_px[i], np.ones((*x.shape, 1))], -1)
        points = (ray * depth[i][..., None]) @ rotation[i].T + place[i]
        for j in sorted(partners[i]):
            seen = (points - place[j]) @ rotation[j]
            z = seen[..., 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                at = seen[..., :2] / z[..., None] * solution.focal_px[j] + solution.principal_point[j]
            inside = (z > 0) & (at > -0.5).all(-1) & (at < [width - 0.5, height - 0.5]).all(-1)
            column, row = at[inside].round().astype(np.int64).T
            hides = (z[inside] < in_front * depth[j][row, column]) & (cleaned[i][inside] < cleaned[j][row, column])
            cleaned[i][inside] = np.where(hides, 0, cleaned[i][inside])
    return cleaned
