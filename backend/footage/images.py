"""Image sequences: a folder of images, or the numbered sequence that one image belongs to, as footage at 24 fps."""

from __future__ import annotations

import re
from collections.abc import Generator
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ..wire import UserError
from .source import MAX_PLATE_SIDE, Footage, Picture, Sampling, check_sides

#: Image files by kind; kinds do not mix in one sequence.
KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".webp": "WebP",
}
#: Known image files that no library here reads.
UNREAD = {".exr", ".dpx", ".cin", ".hdr", ".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd"}
IMAGE_SUFFIXES = frozenset(KINDS) | UNREAD
CONVERT_HINT = "convert the images to 8 or 16-bit PNG, TIFF or JPEG"

#: What Pillow raises on files that OpenCV may still read.
PILLOW_CANNOT = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)

ORIENTATION, EXIF_IFD, FOCAL_35MM = 0x0112, 0x8769, 0xA405  # Exif 2.32
CLOCKWISE = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}  # degrees by EXIF orientation, mirroring left aside


class ImageFootage(Footage):
    """Images in natural order. `root` is their folder; `image_names` are all of them, each one source frame."""

    kind = "images"

    @classmethod
    def of_folder(cls, folder: Path) -> ImageFootage:
        """All images of a folder. Raises UserError when there is none, or more than one kind or sequence."""
        images = [p for p in _files(folder) if p.suffix.lower() in IMAGE_SUFFIXES]
        if not images:
            raise UserError(
                f"There are no images in {folder}", "choose a folder of PNG, JPEG or TIFF images, or a video"
            )
        kinds = sorted({KINDS.get(p.suffix.lower(), p.suffix.lower()) for p in images})
        if len(kinds) > 1:
            raise UserError(
                f"{folder.name} mixes {' and '.join(kinds)} images", "choose one image of the sequence you mean"
            )
        sequences = {(m[1], m[3]) for p in images if (m := _number(p))}
        if len(sequences) > 1 and all(_number(p) for p in images) and len(sequences) < len(images):
            names = " and ".join(f"{a}...{b}" for a, b in sorted(sequences)[:2])
            raise UserError(f"{folder.name} holds several sequences ({names})", "choose one image of the one you mean")
        return cls._of(folder, images)

    @classmethod
    def of_image(cls, image: Path) -> ImageFootage:
        """That image alone, as footage of one frame."""
        return cls._of(image.parent, [image])

    @classmethod
    def of_sequence(cls, image: Path, lone: bool = False) -> ImageFootage:
        """The numbered sequence that `image` belongs to. Raises UserError when it stands alone, unless `lone` may."""
        if image.suffix.lower() in UNREAD:
            raise UserError(f"{image.suffix[1:].upper()} images such as {image.name} cannot be read", CONVERT_HINT)
        mine = _number(image)
        siblings = [
            p for p in _files(image.parent) if mine and (m := _number(p)) and (m[1], m[3]) == (mine[1], mine[3])
        ]
        if len(siblings) < 2 and lone:
            return cls.of_image(image)
        if len(siblings) < 2:
            raise UserError(
                f"{image.name} is a single image, and one frame cannot give a camera path",
                "choose a video, a folder of images or one image of a numbered sequence",
            )
        return cls._of(image.parent, siblings)

    @classmethod
    def _of(cls, folder: Path, images: list[Path]) -> ImageFootage:
        images = sorted(images, key=lambda p: _natural(p.name))
        suffix = images[0].suffix.lower()
        if suffix in UNREAD:
            raise UserError(f"{suffix[1:].upper()} images such as {images[0].name} cannot be read", CONVERT_HINT)
        footage = cls(folder, frame_estimate=len(images), codec=KINDS[suffix])
        footage.image_names = tuple(p.name for p in images)
        footage.focal_35mm, footage.rotation = _exif(images[0])
        footage._frame_numbers = footage._numbers_or_positions()
        return footage

    def pictures(self, sampling: Sampling, threads: int = 0) -> Generator[Picture | None, None, None]:
        first_number = self._frame_numbers[0]
        first_name = ""
        for index, name in enumerate(self.image_names):
            if sampling.is_past(index):
                break
            self.seconds.append(float((self._frame_numbers[index] - first_number) / self.fps))
            if not sampling.wants(index):
                yield None
                continue
            rgb = _read(self.root / name)
            size = (rgb.shape[1], rgb.shape[0])
            if first_name and size != self.plate_size:
                raise UserError(
                    f"{name} is {size[0]}x{size[1]} but {first_name} is {self.plate_size[0]}x{self.plate_size[1]}",
                    "give images of one size",
                )
            self.check_size(*size, name)
            first_name = first_name or name
            yield Picture(index, rgb)

    def _numbers_or_positions(self) -> list[int]:
        """The frame number of each image: that in its name where names count frames, else its position.

        Names count frames when they are one sequence with few gaps; a regular stride counts as no gap.
        """
        positions = list(range(len(self.image_names)))
        matches = [_number(Path(name)) for name in self.image_names]
        if not all(matches) or len({(m[1], m[3]) for m in matches}) > 1:
            return positions
        numbers = [int(m[2]) for m in matches]
        stride = min((b - a for a, b in pairwise(numbers)), default=1)
        if stride < 1 or any((n - numbers[0]) % stride for n in numbers):
            return positions
        numbers = [(n - numbers[0]) // stride for n in numbers]
        missing = numbers[-1] + 1 - len(numbers)
        if missing > len(numbers) // 2:
            return positions
        if missing:
            gap = next(i for i, (a, b) in enumerate(pairwise(numbers)) if b - a > 1)
            count = "1 image is" if missing == 1 else f"{missing} images are"
            self.warnings.append(
                f"{count} missing from the sequence, the first after {self.image_names[gap]}; the rest keep their times"
            )
        return numbers


def _read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, upright by its EXIF orientation; 16-bit images are rounded to 8, alpha is dropped."""
    _check_header(path)
    try:
        data = np.fromfile(path, np.uint8)  # not cv2.imread, which cannot open every path on Windows
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if data.size else None
    except PermissionError as error:
        raise UserError(f"{path} may not be read", "change its permissions") from error
    except (OSError, cv2.error) as error:
        raise UserError(f"{path.name} cannot be read ({error})", CONVERT_HINT) from error
    if bgr is None:
        raise UserError(f"{path.name} is not an image that can be read", CONVERT_HINT)
    if bgr.dtype == np.uint16:
        bgr = ((bgr.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bgr.dtype != np.uint8:
        raise UserError(f"{path.name} holds {bgr.dtype} pixels", CONVERT_HINT)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _check_header(path: Path) -> None:
    """Raise UserError on an image that its header says to be too large, before any memory is taken for it."""
    try:
        with Image.open(path) as image:
            check_sides(*image.size, path.name)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{path.name} is too large; at most {MAX_PLATE_SIDE} pixels a side are read", "scale the clip down"
        ) from error
    except PILLOW_CANNOT:
        pass  # OpenCV may, and looks at the size itself (server/sandbox.py)


def _exif(path: Path) -> tuple[float | None, int]:
    """Focal length in 35 mm equivalent (None: not stated) and degrees clockwise that show the image upright."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            focal = exif.get_ifd(EXIF_IFD).get(FOCAL_35MM)
    except PILLOW_CANNOT:
        return None, 0
    return (float(focal) if focal else None), CLOCKWISE.get(exif.get(ORIENTATION, 1), 0)


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]


def _number(path: Path) -> re.Match | None:
    """The name as (before, number, after) around its last number before the extension."""
    return re.fullmatch(r"(.*?)(\d+)(\D*?\.[^.]+)", path.name)


def _natural(name: str) -> list:
    """Sort key by which frame 9 comes before frame 10."""
    return [int(part) if part.isdigit() else part.casefold() for part in re.split(r"(\d+)", name)]
