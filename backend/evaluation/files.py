"""Ground truth in plain files: a TUM camera path, depth as arrays or 16-bit images, masks as images."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ..wire import ClipInfo, UserError

#: What a folder of truth may hold, by part.
POSES = ("poses.txt", "groundtruth.txt", "traj.txt", "pred_traj.txt")
DEPTH = ("depth", "depth.npy", "depth.npz")
MASKS = ("masks", "mask")
#: Times are the same when they differ by less than this share of a frame.
_SAME_TIME = 0.1


@dataclass(frozen=True)
class Pictures:
    """True pictures of the frames of a capture: `read(k)` gives that of its k-th frame, (h, w)."""

    read: Callable[[int], np.ndarray]
    count: int


def read_poses(path: Path, clip: ClipInfo) -> tuple[np.ndarray, str]:
    """(T, 4, 4) world_from_camera of a capture's frames from a TUM file, NaN where it has none, and how it was told.

    A row is `time x y z qx qy qz qw`, camera to world, OpenCV axes. Rows belong to the frames whose times they bear;
    if those tell nothing, to the capture's frames in order, or to the clip's frames by number, as their count says.
    Raises UserError when the file is not that, or none of it fits.
    """
    times, poses = tum_rows(path)
    row, how = _rows_of_frames(times, clip, path)
    found = np.full((len(clip.frame_indices), 4, 4), np.nan)
    found[row >= 0] = poses[row[row >= 0]]
    return found, how


def tum_rows(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N,) times and (N, 4, 4) world_from_camera of a TUM file, rows of `time x y z qx qy qz qw`.

    Raises UserError when the file is not that.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of an empty file
            rows = np.loadtxt(path, dtype=np.float64, comments="#", ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a camera path ({error})", "give a TUM file: time x y z qx qy qz qw") from error
    if rows.shape[1:] != (8,) or not len(rows) or not np.isfinite(rows).all():
        raise UserError(f"{path} is not a camera path in TUM format", "give rows of time x y z qx qy qz qw")
    if (np.abs(np.linalg.norm(rows[:, 4:], axis=1) - 1) > 0.01).any():
        raise UserError(f"{path} has rotations that are no unit quaternions", "give rows of time x y z qx qy qz qw")
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(rows[:, 4:]).as_matrix()
    poses[:, :3, 3] = rows[:, 1:4]
    return rows[:, 0], poses


def _rows_of_frames(times: np.ndarray, clip: ClipInfo, path: Path) -> tuple[np.ndarray, str]:
    """(T,) which row each frame has, -1 for none, and how that was told."""
    frames, wanted = np.array(clip.frame_indices), np.array(clip.timestamps)
    nearest = np.abs(times[None] - wanted[:, None]).argmin(1)
    same = np.abs(times[nearest] - wanted) < _SAME_TIME / float(clip.fps)
    if same.all():
        return nearest, "time"
    if len(times) == len(frames):
        return np.arange(len(frames)), "order"
    if len(times) > frames.max():
        return frames, "frame number"
    if same.mean() >= 0.5:
        return np.where(same, nearest, -1), "time"
    raise UserError(
        f"{path} has {len(times)} poses, which fit the capture's {len(frames)} frames neither in number nor in time",
        "give a path with one row for each frame of the clip",
    )


def read_depth(path: Path, clip: ClipInfo, scale: float | None = None) -> Pictures:
    """True z-depth of a capture's frames, 0 where unknown: an array (T, h, w), or a folder of one file a frame.

    Files are .npy, .npz or, with `scale`, 16-bit .png: depth is value / scale. Raises UserError when it is not that.
    """
    path = Path(path)
    if path.is_dir():
        files = _files(path, (".npy", ".npz", ".png"))
        return _of_clip(lambda k: known_depth(_depth_file(files[k], scale)), len(files), clip, path)
    depth = _array(path)
    if depth.ndim != 3:
        raise UserError(f"{path} has an array of shape {depth.shape}, not frames x height x width")
    return _of_clip(lambda k: known_depth(depth[k]), len(depth), clip, path)


def read_masks(path: Path, clip: ClipInfo) -> Pictures:
    """True motion masks (bool) of a capture's frames from a folder of images; what is not black moves."""
    files = _files(Path(path), (".png", ".bmp", ".tif", ".tiff"))
    return _of_clip(lambda k: read_image(files[k]) > 0, len(files), clip, path)


def _of_clip(read: Callable[[int], np.ndarray], count: int, clip: ClipInfo, path: Path) -> Pictures:
    """Pictures of a capture's frames out of `count`: one for each of them, or for each of the clip."""
    frames = clip.frame_indices
    if count == len(frames):
        return Pictures(read, count)
    if count > max(frames):
        return Pictures(lambda k: read(frames[k]), len(frames))
    raise UserError(
        f"{path} has {count} frames, the capture {len(frames)} of a clip of at least {max(frames) + 1}",
        "give one for each frame of the capture or of the clip",
    )


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}", f"give a folder of {', '.join(endings)} files")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in endings)
    if not files:
        raise UserError(f"{folder} holds no {', '.join(endings)} files", "give one for each frame")
    if len({p.suffix.lower() for p in files}) > 1:
        raise UserError(f"{folder} holds files of several kinds", "keep one kind, one for each frame")
    return files


def _depth_file(path: Path, scale: float | None) -> np.ndarray:
    if path.suffix.lower() != ".png":
        return _array(path)
    if not scale:
        raise UserError("Depth in .png files needs a scale", "give --depth-scale, such as 1000 for millimetres")
    return read_image(path) / scale


def _array(path: Path) -> np.ndarray:
    """The array of a .npy file, or of a .npz file that has one only or one called depth."""
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored
        with stored:
            names = stored.files
            if len(names) != 1 and "depth" not in names:
                raise UserError(f"{path} holds {', '.join(names)}, and no depth", "name the array depth")
            return stored[names[0] if len(names) == 1 else "depth"]
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"{path} is no NumPy array ({error})", "give a .npy or .npz file") from error


def read_image(path: Path) -> np.ndarray:
    """(h, w) values of an image, of one in colour the largest of each pixel. Raises UserError when it is none."""
    stored = np.fromfile(path, np.uint8)
    image = cv2.imdecode(stored, cv2.IMREAD_UNCHANGED) if stored.size else None
    if image is None:
        raise UserError(f"{path} is no image that can be read")
    return image if image.ndim == 2 else image[..., :3].max(-1)


def known_depth(depth: np.ndarray) -> np.ndarray:
    """Depth with 0 where it is not a positive number."""
    depth = np.asarray(depth, np.float32)
    return np.where(np.isfinite(depth) & (depth > 0), depth, 0)
