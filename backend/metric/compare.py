"""What one pair of frames says of a capture's scale: by the depth of its pixels, and by the way between its cameras.

A network that sees in metres knows things by their size, which fixes depth over focal length. So depths are compared
after both are divided by the focal length that goes with them, and a lens that the network takes for another one does
no harm. The way between the cameras needs no such thing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..align.original_views import weiszfeld_focal
from ..geometry.rigid import similarity_between
from ..monst3r.preprocess import grid_for, on_grid
from ..sparse.views import SymmetricPair, View
from ..wire import Capture, PlateMap
from .frames import still

#: Least share of a picture's pixels that must be still, measured and among the network's surer half.
LEAST_PIXELS = 0.02
#: Pixels that the way between two cameras is found from, and the share of them that is kept as fitting.
WAY_PIXELS, WAY_KEPT = 2000, 0.7


@dataclass(frozen=True)
class KnownFrame:
    """A frame of the capture on the network's grid: `depth` (H, W) in its units, 0 where it does not count;
    `focal_px` of that grid and `world_from_camera` (4, 4)."""

    rgb: np.ndarray
    depth: np.ndarray
    focal_px: float
    world_from_camera: np.ndarray


@dataclass(frozen=True)
class PairScale:
    """Natural logarithms of metres per unit that a pair says: `by_depth`, NaN where too few pixels count, of which
    single pixels are `pixel_spread` apart (MAD as a standard deviation); `by_path`, NaN where it cannot be told."""

    by_depth: float
    pixel_spread: float
    by_path: float


def known_frame(capture: Capture, frame: int, long_side: int) -> KnownFrame:
    """A frame of the capture as the network is to see it."""
    grid = grid_for(capture.processed_size, long_side)
    width, height = grid.size
    x, y = _nearest(grid.plate_map, width, height, capture.processed_size)
    depth = np.where(still(capture, frame), capture.depth[frame], 0)[y, x]
    lens = grid.plate_map.intrinsics_to_grid(capture.intrinsics[frame])
    rgb = on_grid(np.asarray(capture.rgb[frame]), grid)
    return KnownFrame(rgb, depth, float(np.sqrt(lens[0] * lens[1])), capture.world_from_camera[frame])


def compare(pair: SymmetricPair, a: KnownFrame, b: KnownFrame) -> PairScale:
    """What the pair of frames `a` (its i) and `b` (its j) says of the scale: the mean of its two decodings."""
    depths = [_by_depth(view, frame) for view, frame in ((pair.ii, a), (pair.jj, b))]
    apart = float(np.linalg.norm(a.world_from_camera[:3, 3] - b.world_from_camera[:3, 3]))
    ways = [_way(pair.jj, pair.ji, b), _way(pair.ii, pair.ij, a)]
    by_path = float(np.mean(np.log(ways))) - math.log(apart) if apart > 0 and min(ways) > 0 else math.nan
    return PairScale(float(np.mean([d[0] for d in depths])), float(np.mean([d[1] for d in depths])), by_path)


def _by_depth(view: View, frame: KnownFrame) -> tuple[float, float]:
    """The logarithm of metres per unit by a frame's own view, and the pixels' spread; NaN where too few count."""
    counts = _counting(view, frame)
    if counts.mean() < LEAST_PIXELS:
        return math.nan, math.nan
    points = view.points.float().cpu()
    focal_px = weiszfeld_focal(points[None]).item()
    if not focal_px > 0:
        return math.nan, math.nan
    ratio = np.log(points[..., 2].numpy()[counts] / frame.depth[counts]) - math.log(focal_px / frame.focal_px)
    middle = float(np.median(ratio))
    return middle, 1.4826 * float(np.median(np.abs(ratio - middle)))


def _way(own: View, there: View, frame: KnownFrame) -> float:
    """Metres between two cameras: from a frame's points in `own` camera and the same `there`, in the other's camera.

    The two are of different decodings, so their scales may differ; the way is in that of `there`. NaN where too few
    pixels count.
    """
    counts = np.flatnonzero(_counting(own, frame) & _counting(there, frame))
    if len(counts) < LEAST_PIXELS * frame.depth.size / 2:
        return math.nan
    counts = counts[np.linspace(0, len(counts) - 1, min(len(counts), WAY_PIXELS)).round().astype(int)]
    source, target = (_flat(view.points)[counts] for view in (own, there))
    fits = np.ones(len(source), bool)
    try:
        for _ in range(4):
            found = similarity_between(source[fits], target[fits])
            off = np.linalg.norm(found.apply(source) - target, axis=1) / np.linalg.norm(target, axis=1)
            fits = off <= np.quantile(off, WAY_KEPT)
    except ValueError:  # all on one line
        return math.nan
    return float(np.linalg.norm(found.translation))


def _counting(view: View, frame: KnownFrame) -> np.ndarray:
    """(H, W) bool: pixels that are still and measured in the capture, and of which the network is surest."""
    z = view.points[..., 2].float().cpu().numpy()
    sure = view.confidence.float().cpu().numpy()
    counts = (frame.depth > 0) & (z > 0) & np.isfinite(z)
    return counts & (sure >= np.median(sure[counts])) if counts.any() else counts


def _flat(points: Tensor) -> np.ndarray:
    return points.reshape(-1, 3).double().cpu().numpy()


def _nearest(plate_map: PlateMap, width: int, height: int, source: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(1, W) columns and (H, 1) rows of the source's pixels under the centres of the grid's."""
    x = plate_map.to_plate(np.stack([np.arange(width) + 0.5, np.zeros(width)], -1))[:, 0]
    y = plate_map.to_plate(np.stack([np.zeros(height), np.arange(height) + 0.5], -1))[:, 1]
    columns, rows = (np.floor(v).astype(int).clip(0, n - 1) for v, n in zip((x, y), source))
    return columns[None, :], rows[:, None]
