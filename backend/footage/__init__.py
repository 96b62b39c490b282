"""Footage: a path becomes pictures with true times, whether it names a video, a folder or an image of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from ..wire import UserError
from .images import IMAGE_SUFFIXES, ImageFootage
from .source import Footage, Picture, Sampling
from .video import VideoFootage

__all__ = ["Footage", "Picture", "Probe", "Sampling", "open_footage", "probe"]


def open_footage(source: Path, *, lone: bool = False, still: bool = False) -> Footage:
    """The footage at `source`: a video, a folder of images, or one image of a numbered sequence.

    `lone`: an image that is of no sequence will do, too. `still`: an image stands for itself alone in any case. Raises
    UserError when there is none, or when it is of no kind that can be read.
    """
    try:
        if source.is_dir():
            return ImageFootage.of_folder(source)
        if not source.exists():
            raise UserError(f"There is no file {source}", "check the path of the clip")
        if not source.is_file():
            raise UserError(f"{source} is not a file", "choose a video, a folder of images or one of its images")
        if source.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFootage.of_image(source) if still else ImageFootage.of_sequence(source, lone)
        return VideoFootage.of_file(source)
    except PermissionError as error:
        raise UserError(f"{source} may not be read", "change its permissions") from error


@dataclass(frozen=True)
class Probe:
    """What a look at the first frame tells; `frame_estimate` is the container's word, 0 when it gives none."""

    kind: str
    plate_size: tuple[int, int]
    fps: Fraction
    frame_estimate: int
    rotation: int
    focal_35mm: float | None
    codec: str

    @property
    def duration_s(self) -> float:
        """Seconds by the container's word, 0 when it gives none."""
        return float(self.frame_estimate / self.fps)


def probe(source: Path, *, lone: bool = False, still: bool = False) -> Probe:
    """What a clip is, from its header and first frame alone. Takes and raises what `open_footage` does."""
    footage = open_footage(source, lone=lone, still=still)
    pictures = footage.pictures(Sampling())
    first = next(pictures, None)
    pictures.close()
    if first is None:
        raise UserError(f"No frame of {source.name} could be decoded", "re-encode it as H.264 in an .mp4")
    return Probe(
        kind=footage.kind,
        plate_size=footage.plate_size,
        fps=footage.fps,
        frame_estimate=footage.frame_estimate,
        rotation=footage.rotation,
        focal_35mm=footage.focal_35mm,
        codec=footage.codec,
    )
