"""Coarse to fine: large plates matched whole, and then window by window at their own resolution.

Facts sheet, section 2. Edge-origin pixels, unless it says otherwise; sizes are (height, width).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from .fast import Decodings, match_described
from .matches import first_of_each
from .windows import BUCKETS, Size, bucket_of, centred_crop, into_bucket, pair_windows

_BATCH = 48


@dataclass(frozen=True)
class Crop:
    """What a network is shown of a plate: a picture of `size`, whose pixels `plate_from_crop` (3, 3) takes to it."""

    size: Size
    plate_from_crop: np.ndarray

    def to_plate(self, xy: np.ndarray) -> np.ndarray:
        """(M, 2) pixels of the crop, in the plate; both counted from the centre of the first one, as matches are."""
        rays = np.column_stack([xy + 0.5, np.ones(len(xy))]) @ self.plate_from_crop.T
        return rays[:, :2] / rays[:, 2:] - 0.5

    def cut(self, plate: np.ndarray) -> np.ndarray:
        """The crop of a plate's picture (H, W[, 3]); of a bool mask all that it touches."""
        if plate.dtype == bool:
            return self.cut(np.where(plate, np.float32(1), np.float32(0))) > 1e-3
        # Shrunk first, as warping reads four pixels only.
        shrink = max(1.0, np.sqrt(abs(np.linalg.det(self.plate_from_crop[:2, :2]))))
        size = np.maximum(1, np.round(np.array(plate.shape[1::-1]) / shrink)).astype(int)
        small = plate if shrink < 1.05 else cv2.resize(plate, size.tolist(), interpolation=cv2.INTER_AREA)
        small_from_plate = np.diag([*(np.array(small.shape[1::-1]) / plate.shape[1::-1]), 1.0])
        corner = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        matrix = np.linalg.inv(corner) @ small_from_plate @ self.plate_from_crop @ corner
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(small, matrix, self.size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)


#: Where nothing of plate 1 and of plate 2 may be matched: (H, W) bool, or None.
PlateMasks = tuple[np.ndarray | None, np.ndarray | None]
#: Says for each pair of crops what the network's decodings describe in them.
Predict = Callable[[Sequence[tuple[Crop, Crop]]], Iterable[Decodings]]


@dataclass(frozen=True)
class PlateMatches:
    """Places `xy_1`, `xy_2` (M, 2) float64 (x, y) of two plates that show the same, counted from the centre of the
    first pixel, and `confidence` (M,) float32."""

    xy_1: np.ndarray
    xy_2: np.ndarray
    confidence: np.ndarray

    def __len__(self) -> int:
        return len(self.confidence)


def whole(size: Size, buckets: Sequence[Size] = BUCKETS) -> Crop:
    """A plate as the network's bucket shows it: all of it but for what the bucket's shape cuts off."""
    bucket = bucket_of(size, buckets)
    return Crop(bucket, into_bucket(size, bucket)[1])


def match_whole(
    size_1: Size,
    size_2: Size,
    predict: Predict,
    masks: PlateMasks = (None, None),
    buckets: Sequence[Size] = BUCKETS,
    **options,
) -> PlateMatches:
    """Matches of two plates at the network's resolution; arguments as of `match_fine`."""
    return _matched([(whole(size_1, buckets), whole(size_2, buckets))], predict, masks, options)


def match_fine(
    size_1: Size,
    size_2: Size,
    predict: Predict,
    masks: PlateMasks = (None, None),
    cameras: tuple[np.ndarray, np.ndarray] | None = None,
    buckets: Sequence[Size] = BUCKETS,
    **options,
) -> PlateMatches:
    """Matches of two plates at their own resolution, in windows that `match_whole` leads to.

    `predict` gets at most 48 pairs of crops at a time, and yields its answers in their order. `masks`, (H, W) bool of
    the plates, are true where nothing may be matched; `options` are those of `match_described`. With `cameras` (3, 3)
    of the plates, windows are seen as by cameras turned towards them, whose principal point is in the middle.
    `buckets` are the sizes that the network was trained at. There are no matches where no window has enough coarse
    ones; plates no larger than their bucket are matched whole.
    """
    coarse = match_whole(size_1, size_2, predict, masks, buckets, **options)
    sizes, shown = (size_1, size_2), (bucket_of(size_1, buckets), bucket_of(size_2, buckets))
    if all(size[k] <= bucket[k] for size, bucket in zip(sizes, shown) for k in (0, 1)):
        return coarse
    windows = [_fitting(bucket, size) for bucket, size in zip(shown, sizes)]
    pairs = pair_windows(coarse.xy_1 + 0.5, coarse.xy_2 + 0.5, *sizes, *windows, scaled=True)
    crops = [
        [_crop(window, bucket, camera) for window in side]
        for side, bucket, camera in zip((pairs.first, pairs.second), shown, cameras or (None, None))
    ]
    return _matched(list(zip(*crops)), predict, masks, options)


def _matched(pairs: Sequence[tuple[Crop, Crop]], predict: Predict, masks: PlateMasks, options: dict) -> PlateMatches:
    """What all pairs of crops have in common, in the plates; each place once."""
    found = [(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0, np.float32))]
    for start in range(0, len(pairs), _BATCH):
        batch = pairs[start : start + _BATCH]
        for pair, decodings in zip(batch, predict(batch)):
            hidden = tuple(_cut(mask, crop) for mask, crop in zip(masks, pair))
            matches = match_described([decodings], [hidden], **options)[0]
            ends = (matches.xy_1, matches.xy_2)
            places = (crop.to_plate(xy.cpu().numpy().astype(float)) for crop, xy in zip(pair, ends))
            found.append((*places, matches.confidence.cpu().numpy()))
    xy_1, xy_2, confidence = (np.concatenate(parts) for parts in zip(*found))
    once = first_of_each(*(torch.from_numpy(xy.round().astype(int)).clamp(min=0) for xy in (xy_1, xy_2))).numpy()
    return PlateMatches(xy_1[once], xy_2[once], confidence[once])


def _fitting(bucket: Size, size: Size) -> Size:
    """The bucket, or its shape as large as a smaller plate has room for."""
    scale = min(1.0, size[0] / bucket[0], size[1] / bucket[1])
    return int(bucket[0] * scale), int(bucket[1] * scale)


def _crop(window: np.ndarray, bucket: Size, camera: np.ndarray | None) -> Crop:
    left, top, right, bottom = window.tolist()
    resized = np.diag([(right - left) / bucket[1], (bottom - top) / bucket[0], 1.0])
    if camera is None:
        return Crop(bucket, np.array([[1, 0, left], [0, 1, top], [0, 0, 1]]) @ resized)
    return Crop(bucket, centred_crop(camera, window, (bottom - top, right - left))[2] @ resized)


def _cut(mask: np.ndarray | None, crop: Crop) -> torch.Tensor | None:
    return None if mask is None else torch.from_numpy(crop.cut(mask))
