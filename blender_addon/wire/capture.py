"""The capture: the folder that a job produces, as dataclasses, written whole or not at all.

`docs/capture.md` is the authority. Everything here is NumPy and the standard library; image files (rgb, masks,
depth for looking) are added by whoever calls `write_capture`, into the staging folder it is given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np

from .errors import UserError
from .folders import check_writable, names_in, staged_folder

FORMAT = "kinora-capture"
SCHEMA = 1
JSON_MAX = 256 * 1024 * 1024  # bytes of capture.json; of 20 000 frames it has 20 million

#: Confidence of pixels whose depth was not measured but guessed from what surrounds them.
CONFIDENCE_FILLED = 0.1
#: Confidence of pixels that stand on a flat card through the contact point of a moving subject.
CONFIDENCE_CARD = 0.2
#: Least confidence of a measured depth; 1 is the best.
CONFIDENCE_MEASURED = 0.3

# What each file pattern holds is listed in docs/capture.md; names count from 0 in clip order.
RGB_NAME = "rgb_{:04d}.png"
MASK_NAME = "dynamic_mask_{:04d}.png"
DEPTH_NAME = "depth_{:04d}.png"
CONF_NAME = "conf_{:04d}.png"


@dataclass(frozen=True)
class PlateMap:
    """The exact map between plate pixels and the pixels of a resized and cropped grid.

    Edge-origin pixels (the first pixel's centre is 0.5): `grid = plate * (sx, sy) - (ox, oy)`.
    """

    sx: float
    sy: float
    ox: float = 0.0
    oy: float = 0.0

    def to_grid(self, plate_xy: np.ndarray) -> np.ndarray:
        """(..., 2) plate pixels to grid pixels."""
        return np.asarray(plate_xy) * (self.sx, self.sy) - (self.ox, self.oy)

    def to_plate(self, grid_xy: np.ndarray) -> np.ndarray:
        """(..., 2) grid pixels to plate pixels."""
        return (np.asarray(grid_xy) + np.array([self.ox, self.oy])) / (self.sx, self.sy)

    def intrinsics_to_grid(self, plate_fxfycxcy: np.ndarray) -> np.ndarray:
        """(..., 4) intrinsics fx fy cx cy of the plate to those of the grid."""
        return np.asarray(plate_fxfycxcy) * (self.sx, self.sy, self.sx, self.sy) - (0, 0, self.ox, self.oy)

    def intrinsics_to_plate(self, grid_fxfycxcy: np.ndarray) -> np.ndarray:
        """(..., 4) intrinsics fx fy cx cy of the grid to those of the plate."""
        return (np.asarray(grid_fxfycxcy) + np.array([0, 0, self.ox, self.oy])) / (self.sx, self.sy, self.sx, self.sy)


@dataclass(frozen=True)
class ClipInfo:
    """Where the frames came from. `plate_size` is (width, height) as displayed, after `rotation`."""

    source: str
    plate_size: tuple[int, int]
    fps: Fraction
    frame_indices: tuple[int, ...]  # which source frame each frame of the capture is, from 0
    timestamps: tuple[float, ...]  # seconds in the clip, as the container states them
    rotation: int = 0  # degrees clockwise applied to show the plate upright
    variable_frame_rate: bool = False
    kind: str = "video"  # 'video' or 'images'
    image_names: tuple[str, ...] = ()  # of an image sequence: the file of each frame of the capture
    k1: float = 0.0  # OpenCV radial distortion of the plate; the capture's own pixels are undistorted
    k2: float = 0.0

    @property
    def clip_frames(self) -> np.ndarray:
        """(T,) int: how many frames of the plate after the first used one each frame of the capture is.

        With a variable frame rate this follows the timestamps, since Blender reads movies by time.
        """
        if self.variable_frame_rate:
            seconds = np.asarray(self.timestamps) - self.timestamps[0]
            return np.round(seconds * float(self.fps)).astype(int)
        return np.asarray(self.frame_indices) - self.frame_indices[0]


@dataclass(frozen=True)
class EngineStamp:
    """What made the capture and under which terms."""

    name: str
    version: str
    licence: str
    commercial_use: bool
    weights: tuple[dict, ...] = ()


@dataclass(frozen=True)
class FrameReport:
    """What is known of one frame's camera.

    `registered` means measured; `interpolated` means that its pose was taken from its neighbours and says so.
    A frame that is neither has NaN for its camera. `reprojection_error_px` is the mean over its tracks in plate
    pixels, None when the frame has none.
    """

    registered: bool
    interpolated: bool = False
    low_confidence: bool = False
    reprojection_error_px: float | None = None


@dataclass(frozen=True)
class ShotReport:
    """What is known of the shot as a whole.

    `kind` is 'moving', 'rotation' or 'locked'. `solver_disagreement` is the RMS distance between the camera paths
    of two independent solvers after alignment, divided by the path length; None when only one applies.
    `focal_source` is 'user', 'metadata', 'solved' or 'prior'.
    """

    kind: str
    solver_disagreement: float | None
    focal_source: str
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricScale:
    """How long the unit of a capture is whose unit is not the metre; measured afterwards, and applied to no file.

    `metres_per_unit` lies between `low` and `high` in 95 of 100 cases, as far as the pairs of frames that said so tell;
    `spread` is the standard deviation of a single pair's answer, as a share of it, and `pairs` how many agreed.
    `source` names what was asked, and `weights` the checkpoints. Raises ValueError for numbers that are no scale.
    """

    metres_per_unit: float
    low: float
    high: float
    spread: float
    pairs: int
    source: str
    weights: tuple[dict, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.metres_per_unit <= self.high < math.inf or not 0 <= self.spread < math.inf:
            raise ValueError(f"{self.metres_per_unit} metres per unit, {self.low} to {self.high}, is no scale")


@dataclass(frozen=True)
class Tracks:
    """Sparse points that the camera solve measured: what reprojection errors are computed from.

    `points_world` (N, 3), `colours` (N, 3) uint8, `errors_px` (N,) mean reprojection error in plate pixels;
    observation m says that point `point[m]` was seen in frame `frame[m]` at undistorted plate pixel `plate_xy[m]`.
    """

    points_world: np.ndarray
    colours: np.ndarray
    errors_px: np.ndarray
    point: np.ndarray
    frame: np.ndarray
    plate_xy: np.ndarray


@dataclass(frozen=True)
class Capture:
    """A 4D capture: T frames of H x W pixels with cameras, depth, confidence and motion.

    Cameras have OpenCV axes; `world_from_camera` (T, 4, 4) float64 and `intrinsics` (T, 4) fx fy cx cy in
    edge-origin pixels of the processed grid; NaN where a frame has no camera. `depth` (T, H, W) float32 is z-depth,
    0 where nothing was measured or filled. `confidence` (T, H, W) float16, `dynamic` (T, H, W) bool,
    `rgb` (T, H, W, 3) uint8 on the undistorted processed grid. `plate_masks` (T, plate H, plate W) bool is the
    motion mask at plate resolution, where the engine made one (a loaded capture has it as image files only).

    Both of what follows may be absent. `objects` (T, H, W) uint8 numbers the movers: 0 where nothing moves, and one
    number from 1 up for the same mover throughout the clip. `velocity` (T, H, W, 3) float16 is how the surface under a
    pixel moves, world units per second in the world's axes; finite, and 0 where it stands still or is not known.
    """

    clip: ClipInfo
    plate_map: PlateMap
    engine: EngineStamp
    settings: dict[str, Any]
    metric: bool
    confidence_meaning: str
    confidence_default: float  # what an importer shows by default: points at or above this
    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    rgb: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    dynamic: np.ndarray
    frames: tuple[FrameReport, ...]
    shot: ShotReport
    tracks: Tracks | None = None
    timings: tuple[tuple[str, float], ...] = ()
    plate_masks: np.ndarray | None = None
    objects: np.ndarray | None = None
    velocity: np.ndarray | None = None
    scale: MetricScale | None = None  # of one that is not metric, once it was measured
    partial_of: int | None = None  # of a partial one: how many frames its job was to have
    folder: Path | None = None  # where it was read from

    def __post_init__(self) -> None:
        t, h, w = self.depth.shape
        for name, value, shape in (
            ("world_from_camera", self.world_from_camera, (t, 4, 4)),
            ("intrinsics", self.intrinsics, (t, 4)),
            ("rgb", self.rgb, (t, h, w, 3)),
            ("confidence", self.confidence, (t, h, w)),
            ("dynamic", self.dynamic, (t, h, w)),
            ("objects", self.objects, (t, h, w)),
            ("velocity", self.velocity, (t, h, w, 3)),
        ):
            if value is not None and value.shape != shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {shape}")
        for name, value in (
            ("frames", self.frames),
            ("frame_indices", self.clip.frame_indices),
            ("timestamps", self.clip.timestamps),
        ):
            if len(value) != t:
                raise ValueError(f"{name} has {len(value)} entries for {t} frames")

    @property
    def frame_count(self) -> int:
        return self.depth.shape[0]

    @property
    def processed_size(self) -> tuple[int, int]:
        """(width, height) of the processed grid."""
        return self.depth.shape[2], self.depth.shape[1]

    @property
    def has_camera(self) -> np.ndarray:
        """(T,) bool: frames with a measured or interpolated camera."""
        return np.isfinite(self.world_from_camera).all(axis=(1, 2))

    @property
    def plate_intrinsics(self) -> np.ndarray:
        """(T, 4) fx fy cx cy in edge-origin pixels of the undistorted plate."""
        return self.plate_map.intrinsics_to_plate(self.intrinsics)


def metadata(capture: Capture) -> dict[str, Any]:
    """The content of capture.json, without its list of files."""
    clip = asdict(capture.clip) | {"fps": [capture.clip.fps.numerator, capture.clip.fps.denominator]}
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "clip": clip,
        "processed": {"size": list(capture.processed_size), "plate_map": asdict(capture.plate_map)},
        "engine": asdict(capture.engine),
        "settings": capture.settings,
        "metric": capture.metric,
        "confidence": {"meaning": capture.confidence_meaning, "default": capture.confidence_default},
        "cameras": {
            "convention": "OpenCV axes, world_from_camera, edge-origin pixels of the processed grid",
            "world_from_camera": _nan_to_none(capture.world_from_camera),
            "intrinsics": _nan_to_none(capture.intrinsics),
        },
        "frames": [asdict(f) for f in capture.frames],
        "shot": asdict(capture.shot),
        "timings": [{"stage": stage, "seconds": round(seconds, 3)} for stage, seconds in capture.timings],
        **({} if capture.scale is None else {"scale": asdict(capture.scale)}),
        **({} if capture.partial_of is None else {"partial": {"of_frames": capture.partial_of}}),
    }


def write_capture(
    capture: Capture,
    folder: Path,
    add_files: Iterable[Callable[[Capture, Path], dict[str, Any] | None]] = (),
    *,
    replace: bool = False,
) -> Path:
    """Write `capture` to `folder`, which appears whole or not at all.

    `add_files` are called with the capture and the staging folder before capture.json is written; what they return
    is merged into capture.json. Raises UserError when the folder holds something (unless `replace`, which takes only
    an earlier capture) or cannot be written; an earlier capture stays untouched until the new one is whole.
    """
    folder = Path(folder).absolute()
    check_output_folder(folder, replace=replace)
    with staged_folder(folder, "The capture") as staging:
        info = metadata(capture)
        np.save(staging / "depth.npy", np.ascontiguousarray(capture.depth, np.float32))
        np.save(staging / "conf.npy", np.ascontiguousarray(capture.confidence, np.float16))
        np.save(staging / "dynamic.npy", np.ascontiguousarray(capture.dynamic, bool))
        np.save(staging / "rgb.npy", np.ascontiguousarray(capture.rgb, np.uint8))
        if capture.objects is not None:
            np.save(staging / "objects.npy", np.ascontiguousarray(capture.objects, np.uint8))
        if capture.velocity is not None:
            np.save(staging / "velocity.npy", np.ascontiguousarray(capture.velocity, np.float16))
        if capture.tracks is not None:
            np.savez(staging / "tracks.npz", **{k: np.asarray(v) for k, v in vars(capture.tracks).items()})
        for add in add_files:
            info.update(add(capture, staging) or {})
        files = sorted(p for p in staging.rglob("*") if p.is_file())
        info["files"] = {p.relative_to(staging).as_posix(): p.stat().st_size for p in files}
        text = json.dumps(info, indent=1, allow_nan=False)
        (staging / "capture.json").write_text(text, encoding="utf-8")
    return folder


def check_output_folder(folder: Path, *, replace: bool = False) -> None:
    """Raise UserError unless a capture may appear at `folder`: call it before the work, not only after."""
    folder = Path(folder).absolute()
    check_writable(folder)
    names = names_in(folder)
    if names:
        if "capture.json" not in names:
            raise UserError(f"The output folder {folder} is not empty", "choose a new folder for the capture")
        if not replace:
            raise UserError(f"{folder} already holds a capture", "choose another folder, or ask to replace it")


def read_capture(folder: Path | str) -> Capture:
    """Read a capture; its large arrays are memory-mapped. Raises UserError when it is not a whole capture."""
    folder = Path(folder)
    if folder.name == "capture.json":
        folder = folder.parent
    path = folder / "capture.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a capture", "choose the folder that holds capture.json")
    try:
        info = read_metadata(folder)
        if info.get("format") != FORMAT:
            raise UserError(f"{path} is not a capture of Kinora")
        if info["schema"] > SCHEMA:
            raise UserError(f"{folder} was written by a newer Kinora", "update the add-on")
        odd = [n for n in (*info["files"], *info["clip"].get("image_names", ())) if not _stays_inside(n)]
        if odd:
            raise UserError(f"The capture {folder} names files outside of it", "do not use it: it may be an attack")
        missing = [n for n, size in info["files"].items() if _size(folder / n) != size]
        if missing:
            raise UserError(f"The capture {folder} is damaged: {missing[0]} is missing or cut", "make it again")
        clip = info["clip"]
        return Capture(
            clip=ClipInfo(
                **{k: tuple(v) if isinstance(v, list) else v for k, v in clip.items() if k != "fps"},
                fps=Fraction(*map(int, clip["fps"])),  # of text, Fraction would compute 10**999999999
            ),
            plate_map=PlateMap(**info["processed"]["plate_map"]),
            engine=EngineStamp(**{**info["engine"], "weights": tuple(info["engine"]["weights"])}),
            settings=info["settings"],
            metric=info["metric"],
            confidence_meaning=info["confidence"]["meaning"],
            confidence_default=info["confidence"]["default"],
            world_from_camera=_none_to_nan(info["cameras"]["world_from_camera"]),
            intrinsics=_none_to_nan(info["cameras"]["intrinsics"]),
            rgb=_array(folder / "rgb.npy", np.uint8),
            depth=_array(folder / "depth.npy", np.float32),
            confidence=_array(folder / "conf.npy", np.float16),
            dynamic=_array(folder / "dynamic.npy", np.bool_),
            frames=tuple(FrameReport(**f) for f in info["frames"]),
            shot=ShotReport(**{**info["shot"], "warnings": tuple(info["shot"]["warnings"])}),
            tracks=_read_tracks(folder / "tracks.npz"),
            objects=_optional_array(folder / "objects.npy", np.uint8),
            velocity=_optional_array(folder / "velocity.npy", np.float16),
            timings=tuple((t["stage"], t["seconds"]) for t in info["timings"]),
            scale=_read_scale(info.get("scale")),
            partial_of=int(info["partial"]["of_frames"]) if info.get("partial") else None,
            folder=folder.absolute(),
        )
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        EOFError,
        OSError,
        MemoryError,
        RecursionError,
        BadZipFile,
        SyntaxError,  # of NumPy's headers, which are Python literals
        TokenError,
    ) as error:
        raise UserError(f"The capture {folder} is damaged ({error})", "make it again") from error


def read_metadata(folder: Path | str) -> dict[str, Any]:
    """capture.json as it stands, for what exporters and tools added to it. Raises ValueError on an absurd one."""
    with open(Path(folder) / "capture.json", "rb") as file:
        text = file.read(JSON_MAX + 1)
    if len(text) > JSON_MAX:
        raise ValueError(f"capture.json has more than {JSON_MAX} bytes")
    return json.loads(text.decode("utf-8"))


def _array(path: Path, dtype: type[np.generic]) -> np.ndarray:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype:
        raise ValueError(f"{path.name} holds {array.dtype}")
    return array


def _optional_array(path: Path, dtype: type[np.generic]) -> np.ndarray | None:
    return _array(path, dtype) if path.is_file() else None


def _read_tracks(path: Path) -> Tracks | None:
    if not path.is_file():
        return None
    with ZipFile(path) as archive:
        if any(
            entry.compress_type != ZIP_STORED for entry in archive.infolist()
        ):  # nothing of ours is, so nothing grows
            raise ValueError("the tracks are compressed")
    with np.load(path, allow_pickle=False) as arrays:
        return Tracks(**{k: arrays[k] for k in arrays.files})


def _read_scale(entry: Any) -> MetricScale | None:
    if entry is None:
        return None
    numbers = {name: float(entry[name]) for name in ("metres_per_unit", "low", "high", "spread")}
    return MetricScale(
        **numbers, pairs=int(entry["pairs"]), source=str(entry["source"]), weights=tuple(entry["weights"])
    )


def _stays_inside(name: Any) -> bool:
    """Whether a name from capture.json leads nowhere but into the folder it is used in."""
    if not isinstance(name, str) or "\0" in name or "\\" in name or ":" in name[:2]:
        return False
    return not name.startswith("/") and ".." not in name.split("/")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _nan_to_none(array: np.ndarray) -> Any:
    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(v) for v in value]
        return value if math.isfinite(value) else None

    return convert(np.asarray(array, np.float64).tolist())


def _none_to_nan(nested: Any) -> np.ndarray:
    return np.asarray(nested, dtype=object).astype(np.float64)
