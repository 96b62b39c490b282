"""Pictures as MonST3R's network wants them: resized, cropped to multiples of 16, and where each pixel came from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..wire import PlateMap, UserError

PATCH = 16
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
HEIF_SUFFIXES = frozenset({".heic", ".heif"})
VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mov"})
#: This size alone means a centred square, not a long side.
SQUARE_SIZE = 224


@dataclass(frozen=True)
class Frame:
    """`rgb` (H, W, 3) uint8, and the exact map between the source's pixels and these."""

    rgb: np.ndarray
    plate_map: PlateMap


@dataclass(frozen=True)
class Grid:
    """What becomes of a source picture: `resized` (width, height), then `box` (left, top, right, bottom) of that.

    `cropped` False: the resized picture is squeezed into the box's size, and nothing is lost.
    """

    source: tuple[int, int]
    resized: tuple[int, int]
    box: tuple[int, int, int, int]
    cropped: bool = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the processed picture."""
        left, top, right, bottom = self.box
        return right - left, bottom - top

    @property
    def plate_map(self) -> PlateMap:
        """From the source's pixels to the processed ones. Each axis has its own factor, since sides are rounded."""
        target = self.resized if self.cropped else self.size
        left, top = self.box[:2] if self.cropped else (0, 0)
        return PlateMap(target[0] / self.source[0], target[1] / self.source[1], float(left), float(top))


def grid_for(
    source: tuple[int, int], size: int = 512, crop: bool = True, square_ok: bool = False, square: bool | None = None
) -> Grid:
    """The processed grid of a (width, height) picture; facts sheet, section 4.

    The long side becomes `size` and both are cropped to multiples of 16, about the middle; squares become 4:3 unless
    `square_ok`. With `square`, which size 224 alone implies, the short side becomes `size`, and the middle square is
    kept. Without `crop` the picture is squeezed instead. Raises UserError for a picture too narrow for that, or square
    without `crop` and `square_ok`.
    """
    width, height = source
    longest = max(width, height)
    square = size == SQUARE_SIZE if square is None else square
    long_side = round(size * max(width / height, height / width)) if square else size
    resized = round(width * long_side / longest), round(height * long_side / longest)
    middle_x, middle_y = resized[0] // 2, resized[1] // 2
    if square:
        half_w = half_h = min(middle_x, middle_y)
    else:
        half_w, half_h = (2 * middle // PATCH * PATCH // 2 for middle in (middle_x, middle_y))
        if resized[0] == resized[1] and not square_ok:
            if not crop:
                raise UserError(f"A square picture of {width} x {height} needs cropping", "allow the crop, or squares")
            half_h = 3 * half_w // 4
    if min(half_w, half_h) < PATCH // 2:
        raise UserError(f"A picture of {width} x {height} is too narrow", "use one that is less than 32 times as long")
    box = middle_x - half_w, middle_y - half_h, middle_x + half_w, middle_y + half_h
    return Grid(source, resized, box, crop)


def prepare(image: Image.Image | np.ndarray, size: int = 512, crop: bool = True, square_ok: bool = False) -> Frame:
    """A picture (PIL, or (H, W, 3) uint8 RGB) on its processed grid, resampled as the original does; see `grid_for`."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(image))
    image = image.convert("RGB")
    grid = grid_for(image.size, size, crop, square_ok)
    return Frame(on_grid(image, grid), grid.plate_map)


def on_grid(image: Image.Image | np.ndarray, grid: Grid) -> np.ndarray:
    """(H, W, 3) uint8: a picture of the grid's source, resampled as the original does."""
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.ascontiguousarray(image))
    shrinks = max(image.size) > max(grid.resized)
    image = image.resize(grid.resized, Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC)
    if grid.cropped:
        image = image.crop(grid.box)
    else:
        image = image.resize(grid.size, Image.Resampling.LANCZOS)
    return np.asarray(image)


def read_image(path: Path) -> Image.Image:
    """An image file as RGB, turned upright as its EXIF says. Raises UserError when it cannot be read."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except OSError as error:
        raise UserError(f"{path} cannot be read as an image ({error})", "convert it to PNG or JPEG") from error


def video_frame_indices(video_fps: float, frame_count: int, fps: float = 0, limit: int | None = None) -> list[int]:
    """Which frames of a video are used: about `fps` a second (0: all), at most `limit` of them."""
    interval = max(1, round(video_fps / fps)) if fps > 0 else 1
    return list(range(0, frame_count, interval))[:limit]


def usable_files(paths: Iterable[Path], heif: bool = False) -> list[Path]:
    """Images and videos among `paths` in the order of the original: by base name, as text. Others are left out."""
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES | (HEIF_SUFFIXES if heif else frozenset())
    return sorted((p for p in paths if p.suffix.lower() in suffixes), key=lambda p: p.name)
