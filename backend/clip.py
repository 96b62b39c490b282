"""Clips: footage decoded once into a frame store, with true times and the exact plate <-> store map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from .footage import Footage, Picture, Sampling, open_footage
from .footage.colour import to_sdr
from .footage.store import FrameStore, Undistortion, grid_of, resize
from .known_cameras import KnownCameras
from .run import Run
from .stage_memory import file_digest
from .wire import Capture, ClipInfo, ClipSettings, EngineInfo, LensSettings, PlateMap, UserError

#: Long side of the frame store, unless the job's own resolution asks for more; larger plates are shrunk to it.
STORE_LONG_SIDE = 1600
#: Decoded frames are kept for later jobs when they took longer than this: from the disk they come at 1 GB a second.
KEPT_FROM_S = 3.0
#: Fewest frames that a reconstruction is tried from, unless an engine says otherwise: two views fix a scene, the third
#: tells whether they were right.
MIN_FRAMES = EngineInfo.least_frames
#: Most frames of one job.
MAX_FRAMES = 2000


@dataclass(frozen=True)
class Clip:
    """Decoded footage. `frames` (T, H, W, 3) uint8 RGB is memory-mapped, in display orientation, on the store grid.

    The store grid is the plate, or the plate shrunk when it is larger than what any solver uses (`store_map` says
    exactly how), and without lens distortion. `known_masks` (T, H, W) bool on the store grid is True where the user
    says that things move; `known_cameras` is what they say of the cameras. `focal_35mm` is the focal length in 35 mm
    equivalent that the file's metadata states, None when it states none. `reference` is the capture that the clip is to
    be put into, for tasks that do that.
    """

    info: ClipInfo
    frames: np.ndarray
    store_map: PlateMap
    known_masks: np.ndarray | None = None
    focal_35mm: float | None = None
    warnings: tuple[str, ...] = ()
    known_cameras: KnownCameras | None = None
    reference: Capture | None = None

    @property
    def frame_count(self) -> int:
        return self.frames.shape[0]

    @property
    def store_size(self) -> tuple[int, int]:
        """(width, height) of the store grid."""
        return self.frames.shape[2], self.frames.shape[1]

    @property
    def fps(self) -> Fraction:
        return self.info.fps

    def processed(self, long_side: int) -> tuple[np.ndarray, PlateMap]:
        """(T, h, w, 3) uint8 frames with that long side and their exact plate map; never larger than the store."""
        size, plate_map = self._grid(long_side)
        if size == self.store_size:
            return self.frames, plate_map
        return np.stack([resize(frame, size) for frame in self.frames]), plate_map

    def processed_masks(self, long_side: int) -> np.ndarray | None:
        """(T, h, w) bool known masks on the grid of `processed`, True where most of a pixel moves."""
        if self.known_masks is None:
            return None
        size, _ = self._grid(long_side)
        return np.stack([resize(mask.astype(np.uint8) * 255, size) > 127 for mask in self.known_masks])

    def _grid(self, long_side: int) -> tuple[tuple[int, int], PlateMap]:
        return grid_of(self.info.plate_size, min(long_side, max(self.store_size)))


def open_clip(
    source: Path,
    settings: ClipSettings,
    run: Run,
    *,
    masks: Path | None = None,
    lens: LensSettings | None = None,
    least_frames: int = MIN_FRAMES,
    still: bool = False,
) -> Clip:
    """Decode `source` (a video, an image folder or one image of a sequence) into a frame store in `run.work_dir`.

    Frame indices count decoded source frames from 0; timestamps are seconds since source frame 0, by the container's
    own clock. `masks` is a folder or video of known motion masks (white moves), one for each used or each source
    frame, of the plate's size. With distortion in `lens` the store holds undistorted frames. Raises UserError for
    what the user can fix, with the reason, such as fewer than `least_frames`, and Cancelled within one frame's time.
    `still`: an image stands for itself alone, whatever sequence it is of.
    """
    if run.work_dir is None:
        raise ValueError("open_clip needs run.work_dir, a folder for the frame store")
    lens = lens or LensSettings()
    with run.decoding():
        footage = open_footage(Path(source), lone=least_frames == 1, still=still)
    sampling = Sampling.of(settings)
    share = 1.0 if masks is None else 0.8
    long_side = max(STORE_LONG_SIDE, settings.long_side)

    def decode() -> _Decoded:
        return _decode(footage, sampling, long_side, lens, run, share, least_frames)

    made_from: dict[str, Any] = {}
    if run.memory is not None:
        images = [footage.root / name for name in footage.image_names]
        files = [(file.name, file_digest(file, run.check)) for file in images]  # numbers in the names are times
        files = files or [(footage.root.suffix, file_digest(footage.root, run.check))]
        made_from = {"files": files, "sampling": sampling, "long_side": long_side, "lens": lens}
    decoded = run.remember("Frames", made_from, decode, (_Decoded,), KEPT_FROM_S)
    decoded.tell(footage)
    indices = decoded.indices
    _check_range(footage, sampling, len(indices), least_frames)  # an earlier job may have been content with fewer
    grid = _Grid(footage.plate_size, long_side, lens)
    known_masks = None if masks is None else _read_masks(Path(masks), indices, grid, run, share)
    info = ClipInfo(
        source=str(footage.root.absolute()),
        plate_size=footage.plate_size,
        fps=footage.fps,
        frame_indices=tuple(indices),
        timestamps=tuple(footage.seconds[i] for i in indices),
        rotation=footage.rotation,
        variable_frame_rate=footage.variable_frame_rate,
        kind=footage.kind,
        image_names=tuple(footage.image_names[i] for i in indices) if footage.image_names else (),
        k1=lens.k1,
        k2=lens.k2,
    )
    return Clip(info, decoded.frames, grid.plate_map, known_masks, footage.focal_35mm, tuple(footage.warnings))


@dataclass(frozen=True)
class _Decoded:
    """What decoding brings: `frames` on the store grid, which source frames they are, and what footage knows then."""

    frames: np.ndarray
    indices: list[int]
    footage: dict[str, Any]

    #: Fields of Footage that are true only when it has been read.
    READ: ClassVar[tuple[str, ...]] = (
        "plate_size",
        "frame_estimate",
        "rotation",
        "variable_frame_rate",
        "seconds",
        "warnings",
    )

    @classmethod
    def of(cls, frames: np.ndarray, indices: list[int], footage: Footage) -> _Decoded:
        fps = {"fps": (footage.fps.numerator, footage.fps.denominator)}
        return cls(frames, indices, {name: getattr(footage, name) for name in cls.READ} | fps)

    def tell(self, footage: Footage) -> None:
        """Bring footage, of which only the header was read, to that state."""
        for name in self.READ:
            setattr(footage, name, self.footage[name])
        footage.fps = Fraction(*self.footage["fps"])


def _decode(
    footage: Footage, sampling: Sampling, long_side: int, lens: LensSettings, run: Run, share: float, least_frames: int
) -> _Decoded:
    """Read the footage into a frame store in `run.work_dir`."""
    grid: _Grid | None = None
    indices: list[int] = []
    with run.decoding(), FrameStore(run.work_dir / "frames.npy") as store:
        for picture in _read(footage, sampling, run, 0.0, share):
            if grid is None:
                grid = _Grid(footage.plate_size, long_side, lens)
            if len(indices) == MAX_FRAMES:
                raise UserError(
                    f"The clip has more than {MAX_FRAMES} frames to use",
                    "set First Frame, Last Frame or Step to use fewer",
                )
            store.append(grid.put(picture))
            indices.append(picture.index)
    indices = [i for i in indices if i < len(footage.seconds)]  # of a cut file, only the readable prefix
    _check_range(footage, sampling, len(indices), least_frames)
    return _Decoded.of(store.read(len(indices)), indices, footage)


class _Grid:
    """Puts pictures of the plate on the store grid: 8-bit, shrunk, undistorted."""

    def __init__(self, plate_size: tuple[int, int], long_side: int, lens: LensSettings) -> None:
        self.plate_size = plate_size
        self.size, self.plate_map = grid_of(plate_size, long_side)
        distorted = lens.k1 != 0 or lens.k2 != 0
        self.undistort = Undistortion(lens, plate_size, self.size, self.plate_map) if distorted else None

    def put(self, picture: Picture) -> np.ndarray:
        rgb = resize(picture.rgb, self.size)
        if picture.transfer != "sdr":
            rgb = to_sdr(rgb, picture.transfer)
        return self.undistort(rgb) if self.undistort else rgb


def _read(footage: Footage, sampling: Sampling, run: Run, begin: float, end: float) -> Iterator[Picture]:
    """The pictures that `sampling` wants, with progress from `begin` to `end` and a look for cancellation at each."""
    expected = max(footage.frame_estimate, 1)
    if sampling.last is not None:
        expected = min(expected, sampling.last + 1)
    for count, picture in enumerate(footage.pictures(sampling, run.threads)):
        run.progress(begin + (end - begin) * min(count / expected, 1.0))
        if picture is not None:
            yield picture


def _check_range(footage: Footage, sampling: Sampling, used: int, least: int) -> None:
    """Raise UserError when the frames read are not those that were asked for, or too few."""
    read = len(footage.seconds)
    if read == 0:
        raise UserError(f"No frame of {footage.root.name} could be decoded", "re-encode it as H.264 in an .mp4")
    if sampling.first >= read or (sampling.last or 0) >= read:
        asked = sampling.first if sampling.first >= read else sampling.last
        raise UserError(
            f"Frame {asked} is outside the clip, which has {read} frames", f"use frames from 0 to {read - 1}"
        )
    if read < least:
        raise UserError(
            f"The clip has {read} frame{'s' * (read > 1)}, which cannot give a camera path",
            f"give a clip of at least {least} frames",
        )
    if used < least:
        raise UserError(
            f"The chosen range holds {used} frame{'s' * (used > 1)}; at least {least} are needed",
            "widen the range or lower Step",
        )


def _read_masks(source: Path, indices: list[int], grid: _Grid, run: Run, begin: float) -> np.ndarray:
    """(T, H, W) bool on the store grid. Raises UserError when the masks fit neither the frames nor their size."""
    brightest = 0
    with run.decoding(), FrameStore(run.work_dir / "masks.npy") as store:
        footage = open_footage(source)
        for picture in _read(footage, Sampling(), run, begin, 1.0):
            if footage.plate_size not in (grid.plate_size, grid.size):
                raise UserError(
                    "The masks are {}x{} but the clip is {}x{}".format(*footage.plate_size, *grid.plate_size),
                    "give masks of the clip's size",
                )
            brightest = max(brightest, int(picture.rgb.max()))
            grey = resize(cv2.cvtColor(np.ascontiguousarray(picture.rgb), cv2.COLOR_RGB2GRAY), grid.size)
            store.append((grid.undistort(grey) if grid.undistort else grey) > 127)
    if 0 < brightest <= 127:
        raise UserError(f"The masks are black, their brightest value is {brightest}", "paint what moves white (255)")
    if store.count == len(indices):
        return store.read(store.count).view(bool)
    if store.count > indices[-1]:
        return store.read(store.count).view(bool)[indices]
    raise UserError(
        f"There are {store.count} masks for {len(indices)} frames",
        "give one for each frame used, or one for each frame of the clip",
    )
