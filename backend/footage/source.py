"""What footage is: pictures in order with their times, whatever they are stored in, and which of them are used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..wire import ClipSettings, UserError

#: Longest side of a picture that is read: 8K.
MAX_PLATE_SIDE = 8192


def check_sides(width: int, height: int, where: str) -> None:
    """Raise UserError when a picture is larger than any that is read; `where` names it."""
    if max(width, height) > MAX_PLATE_SIDE:
        raise UserError(
            f"{where} is {width}x{height}; at most {MAX_PLATE_SIDE} pixels a side are read", "scale the clip down"
        )


@dataclass(frozen=True)
class Sampling:
    """Which source frames are used: from `first` to `last` (None: the end), every `step`-th."""

    first: int = 0
    last: int | None = None
    step: int = 1

    @classmethod
    def of(cls, settings: ClipSettings) -> Sampling:
        """The sampling that a job's settings ask for. Raises UserError on a range that is empty."""
        last = None if settings.last_frame < 0 else settings.last_frame
        if last is not None and last < settings.first_frame:
            raise UserError(
                f"The last frame ({last}) is before the first ({settings.first_frame})", "set Last Frame to -1 for all"
            )
        return cls(settings.first_frame, last, settings.frame_step)

    def wants(self, index: int) -> bool:
        """Whether source frame `index` is used."""
        return index >= self.first and not self.is_past(index) and (index - self.first) % self.step == 0

    def is_past(self, index: int) -> bool:
        """Whether `index` and all that follow are not used."""
        return self.last is not None and index > self.last


@dataclass(frozen=True)
class Picture:
    """Source frame `index`, upright: `rgb` (H, W, 3) uint8, or uint16 where `transfer` is 'pq' or 'hlg'."""

    index: int
    rgb: np.ndarray
    transfer: str = "sdr"


@dataclass
class Footage(ABC):
    """A source of pictures. What is known before reading is the container's word; read to the end, it is true.

    `rotation` is the degrees clockwise that were applied; `root` is what `ClipInfo.source` names. `seconds` holds the
    time of every source frame read, counted from source frame 0; at the end it is corrected, and shorter than what was
    read where the last pictures of a cut file turn out not to belong together.
    """

    root: Path
    fps: Fraction = Fraction(24)
    frame_estimate: int = 0
    plate_size: tuple[int, int] = (0, 0)
    rotation: int = 0
    variable_frame_rate: bool = False
    focal_35mm: float | None = None
    image_names: tuple[str, ...] = ()
    codec: str = ""
    audio: bool = False
    seconds: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    kind: ClassVar[str]

    @abstractmethod
    def pictures(self, sampling: Sampling, threads: int = 0) -> Generator[Picture | None, None, None]:
        """Every source frame in order: a Picture where `sampling` wants it, None where it was passed over.

        Raises UserError on pictures that are too large, change their size or cannot be read.
        """

    def count(self, patience_s: float) -> bool:
        """Find the true length, rate and times without decoding; False when it takes longer than `patience_s`."""
        return True

    def check_size(self, width: int, height: int, where: str) -> None:
        """Take the plate's size from the first picture; raise UserError when `where` is too large or differs."""
        check_sides(width, height, where)
        if self.plate_size == (0, 0):
            self.plate_size = (width, height)
        if self.plate_size != (width, height):
            raise UserError(
                f"{where} is {width}x{height} but the clip began at {self.plate_size[0]}x{self.plate_size[1]}",
                "give a clip of one size",
            )
