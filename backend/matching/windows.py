"""Windows of two plates that show the same, chosen by coarse matches (facts sheet, section 2).

Sizes are (height, width), as a network's buckets are; pixels are edge-origin. A window is left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int]
#: The sizes that the published network was trained at, upright ones being their mirror.
BUCKETS: tuple[Size, ...] = ((384, 512), (336, 512), (288, 512), (256, 512), (160, 512))
#: Coarse matches that a window needs before it is paired.
_FEWEST = 10
#: What the spread of matches in a window, in pixels, is at least taken to be.
_LEAST_SPREAD = 20.0
#: Where the same things differ less than that in size, neither window is resized; none is enlarged more than fourfold.
_SAME_SIZE, _SMALLEST = 1.25, 0.25


def bucket_of(size: Size, buckets: Sequence[Size] = BUCKETS) -> Size:
    """The bucket whose short side is most nearly the same share of the long one; a square is taken as landscape."""
    height, width = size
    nearest = min(buckets, key=lambda b: abs(min(size) / max(size) - min(b) / max(b)))
    return nearest if width >= height else nearest[::-1]


def into_bucket(size: Size, bucket: Size) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) to the bucket and back: of the plate the largest part of its shape about the centre, resized."""
    height, width = size
    scale = max(bucket[0] / height, bucket[1] / width)
    part = np.minimum((width, height), np.round(np.array(bucket[::-1]) / scale))
    left, top = (np.array((width, height)) - part) / 2
    x, y = part / bucket[::-1]
    to_plate = np.array([[x, 0, left], [0, y, top], [0, 0, 1]])
    return np.linalg.inv(to_plate), to_plate


def window_grid(size: Size, window: Size) -> np.ndarray:
    """(N, 4) int64 windows of one size, of which neighbours share half or more."""

    def starts(side: int, part: int) -> np.ndarray:
        return np.round(np.linspace(0, side - part, 2 + int((side - part - 1) // (part / 2)))).astype(int)

    tall, wide = window
    return np.array([(x, y, x + wide, y + tall) for y in starts(size[0], tall) for x in starts(size[1], wide)])


@dataclass(frozen=True)
class WindowPairs:
    """N windows of plate 1 and those of plate 2 that they are paired with, (N, 4) int64 each, and `weight` (N, M) of
    each of M coarse matches in a pair: highest where it lies at the centre of both windows, 0 outside."""

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def swapped(self) -> WindowPairs:
        return WindowPairs(self.second, self.first, self.weight)

    def and_also(self, other: WindowPairs) -> WindowPairs:
        return WindowPairs(*(np.concatenate([getattr(p, n) for p in (self, other)]) for n in _FIELDS))

    def chosen(self, covered: float = 0.9) -> WindowPairs:
        """Those that a greedy choice takes until it has `covered` of the weight that all could give; best first."""
        left, found = self.weight.copy(), []
        goal = covered * self.weight.max(0, initial=0).sum()
        while goal > 0 and len(found) < len(self):
            gains = left.sum(1)
            found.append(int(gains.argmax()))
            goal -= gains[found[-1]]
            left = (left - left[found[-1]]).clip(0)
        return WindowPairs(*(getattr(self, n)[found] for n in _FIELDS))


_FIELDS = ("first", "second", "weight")


def propose(
    xy_1: np.ndarray, xy_2: np.ndarray, grid_1: np.ndarray, size_2: Size, window_2: Size, scaled: bool = False
) -> WindowPairs:
    """The windows of `grid_1` (N, 4) that hold enough of the coarse matches `xy_1`, `xy_2` (M, 2), each with a window
    of the size `window_2` about the mean of where these are in plate 2.

    `scaled`: of that shape, but as large as what the first window shows is in plate 2.
    """
    first, second, weight = [], [], []
    for window in grid_1:
        inside = ((xy_1 >= window[:2]) & (xy_1 < window[2:])).all(1)
        if inside.sum() >= _FEWEST:
            extent = _as_large(xy_1[inside], xy_2[inside], window, window_2, size_2) if scaled else window_2
            other = _about(xy_2[inside].mean(0), extent, size_2)
            first.append(window)
            second.append(other)
            weight.append(inside * _central(xy_1, window) * _central(xy_2, other))
    lists = ((first, 4, int), (second, 4, int), (weight, len(xy_1), float))
    return WindowPairs(*(np.array(rows, kind).reshape(len(rows), columns) for rows, columns, kind in lists))


def pair_windows(
    xy_1: np.ndarray,
    xy_2: np.ndarray,
    size_1: Size,
    size_2: Size,
    window_1: Size,
    window_2: Size,
    scaled: bool = False,
) -> WindowPairs:
    """Pairs of windows that cover the coarse matches `xy_1`, `xy_2` (M, 2) of two plates; none if these are too few.

    In the original all are of the sizes given; `scaled`, those of a pair show things at one size.
    """
    there = propose(xy_1, xy_2, window_grid(size_1, window_1), size_2, window_2, scaled)
    back = propose(xy_2, xy_1, window_grid(size_2, window_2), size_1, window_1, scaled).swapped()
    return there.and_also(back).chosen()


def _as_large(xy_1: np.ndarray, xy_2: np.ndarray, first: np.ndarray, window_2: Size, size_2: Size) -> Size:
    """The size in plate 2 of what the window `first` shows, by how far its matches spread in either plate."""
    spread_1, spread_2 = (
        np.maximum(np.ptp(np.percentile(xy, (10, 90), axis=0), axis=0), _LEAST_SPREAD) for xy in (xy_1, xy_2)
    )
    factor = ((first[2:] - first[:2]) * spread_2 / spread_1 / window_2[::-1]).max()
    if max(factor, 1 / factor) < _SAME_SIZE:
        return window_2
    factor = np.clip(factor, _SMALLEST, min(np.array(size_2) / window_2))
    return int(window_2[0] * factor), int(window_2[1] * factor)


def _about(centre: np.ndarray, window: Size, size: Size) -> np.ndarray:
    """(4,) the window about a point of a plate of `size`, moved into it."""
    extent = np.array(window[::-1])
    start = np.clip(np.floor(centre - extent / 2).astype(int), 0, np.array(size[::-1]) - extent)
    return np.concatenate([start, start + extent])


def _central(xy: np.ndarray, window: np.ndarray) -> np.ndarray:
    """(M,) 1 at the window's centre, 0.61 in the middle of a side, 0.37 in a corner, and less outside."""
    off = (xy - (window[:2] + window[2:]) / 2) / (window[2:] - window[:2])
    return np.exp(-2 * (off**2).sum(1))


def centred_crop(camera: np.ndarray, window: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera turned towards a window sees, with its principal point in the middle of a picture of `size`.

    `camera` (3, 3) is that of the plate. Returns the new camera (3, 3) of the same focal length, the rotation (3, 3)
    plate_from_new, and the homography (3, 3) from new pixels to the plate's. The window's corner farthest from the
    principal point stays a corner, so that nothing beyond it is seen.
    """
    new = camera.copy()
    new[:2, 2] = np.array(size[::-1]) / 2
    corners = np.array([(x, y) for y in window[1::2] for x in window[::2]], float)
    new_corners = np.array([(x, y) for y in (0, size[0]) for x in (0, size[1])], float)
    farthest = np.linalg.norm(corners - camera[:2, 2], axis=1).argmax()
    plate_from_new = _turned_to(camera, corners[farthest]) @ _turned_to(new, new_corners[farthest]).T
    return new, plate_from_new, camera @ plate_from_new @ np.linalg.inv(new)


def _turned_to(camera: np.ndarray, pixel: np.ndarray) -> np.ndarray:
    """(3, 3) the least rotation that turns the optical axis into the ray of a pixel."""
    ray = np.linalg.solve(camera, [*pixel, 1.0])
    x, y, z = ray / np.linalg.norm(ray)
    xx, xy, yy = np.array([x * x, x * y, y * y]) / (1 + z)
    return np.array([[1 - xx, -xy, x], [-xy, 1 - yy, y], [-x, -y, z]])
