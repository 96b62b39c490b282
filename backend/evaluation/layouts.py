"""Benchmarks as they are distributed: where the pictures, true depth and cameras of each of their sequences lie.

A layout is a function of the folder that a benchmark was unpacked to: name of each sequence -> what reads it. A folder
that is not laid out so is a UserError, of all or of one sequence. Depth and poses are read when they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..wire import UserError
from .files import tum_rows
from .formats import (
    AGAIN,
    known_pose,
    numbers,
    picture_size,
    png_depth,
    pose_matrix,
    present,
    sintel_depth,
    sintel_pose,
    timed_files,
)

#: Pictures, depth and poses of the TUM layout belong together when they are not further apart, in seconds.
_TOGETHER_S = 0.02
#: Rooms end here, in metres: depth beyond is taken for an error of the sensor.
_ROOM_M = 10.0


@dataclass(frozen=True)
class TrueFrame:
    """One frame: its picture, and what reads its true depth (h, w) and pose (4, 4), None where there is none."""

    image: Path
    depth: Callable[[], np.ndarray] | None = None
    pose: Callable[[], np.ndarray] | None = None


@dataclass(frozen=True)
class Take:
    """One sequence of a benchmark, or every `every`-th of its frames from number `first` on.

    `intrinsics` fx fy cx cy are of its pictures, in edge-origin pixels.
    """

    name: str
    frames: tuple[TrueFrame, ...]
    intrinsics: tuple[float, float, float, float] | None = None
    first: int = 0
    every: int = 1

    def only(self, first: int, every: int, most: int | None) -> Take:
        """Every `every`-th frame of the whole sequence from number `first` on, at most `most` of them."""
        return replace(self, frames=tuple(islice(self.frames, first, None, every))[:most], first=first, every=every)

    @property
    def numbered(self) -> dict[int, TrueFrame]:
        """The frames by their number in the whole sequence."""
        return {self.first + self.every * k: frame for k, frame in enumerate(self.frames)}


Takes = dict[str, Callable[[], Take]]


def nyu(root: Path) -> Takes:
    """NYU Depth v2, the official test half in files: SCENE/rgb_N.jpg and SCENE/sync_depth_N.png."""
    test = _folder(root, "official_splits/test", "test")

    def take() -> Take:
        images = sorted(p for ending in ("jpg", "png") for p in test.glob(f"*/rgb_*.{ending}"))
        if not images:
            raise UserError(f"There are no files SCENE/rgb_N.jpg in {test}", AGAIN)
        depth = [p.with_name(p.name.replace("rgb_", "sync_depth_", 1)).with_suffix(".png") for p in images]
        return Take("test", tuple(TrueFrame(p, partial(png_depth, d, 1000)) for p, d in zip(images, depth)))

    return {"test": take}


def sintel(root: Path) -> Takes:
    """MPI Sintel's training part, the final pass, with its depth and its left camera."""
    root = _folder(root, "training") if (root / "training").is_dir() else root

    def take(folder: Path) -> Take:
        depth, cameras = (root / what / folder.name for what in ("depth", "camdata_left"))
        return Take(
            folder.name,
            tuple(
                TrueFrame(
                    image,
                    partial(sintel_depth, depth / f"{image.stem}.dpt"),
                    partial(sintel_pose, cameras / f"{image.stem}.cam"),
                )
                for image in _numbered(folder, ".png")
            ),
        )

    return {folder.name: partial(take, folder) for folder in _subfolders(_folder(root, "final"))}


def bonn(root: Path) -> Takes:
    """Bonn RGB-D Dynamic: folders in the TUM layout, of which the depth counts."""

    def take(folder: Path, name: str) -> Take:
        times, images = timed_files(folder / "rgb.txt")
        depth_times, files = timed_files(folder / "depth.txt")
        near = _nearest(depth_times, times)
        depths = [partial(png_depth, files[k], 5000) if k >= 0 else None for k in near]
        return Take(name, tuple(TrueFrame(image, depth) for image, depth in zip(images, depths)))

    return _named(take, "rgbd_bonn_", _subfolders(root, "rgbd_bonn_*"))


def tum(root: Path) -> Takes:
    """TUM RGB-D, the dynamic sequences of freiburg3: frames whose camera the motion capture knows."""

    def take(folder: Path, name: str) -> Take:
        times, images = timed_files(folder / "rgb.txt")
        pose_times, poses = tum_rows(present(folder / "groundtruth.txt"))
        near = _nearest(pose_times, times)
        frames = [TrueFrame(image, None, partial(known_pose, poses[k])) for image, k in zip(images, near) if k >= 0]
        return Take(name, tuple(frames))

    folders = [p for p in _subfolders(root, "*freiburg3_*") if re.search("_(sitting|walking)_", p.name)]
    return _named(take, "rgbd_dataset_freiburg3_", folders)


def kitti(root: Path) -> Takes:
    """KITTI's annotated depth of the validation drives, camera 2, with the pictures of the raw recordings."""

    def take(drive: Path) -> Take:
        raw = Path(drive.name) / "image_02" / "data"
        images = _folder(root, str(Path("val") / raw), str(Path(drive.name[:10]) / raw))
        depths = _numbered(_folder(drive, "proj_depth/groundtruth/image_02"), ".png")
        return Take(drive.name, tuple(TrueFrame(images / p.name, partial(png_depth, p, 256)) for p in depths))

    return {drive.name: partial(take, drive) for drive in _subfolders(_folder(root, "val"), "*_sync")}


def scannet(root: Path) -> Takes:
    """ScanNet's scenes as the makers' reader of .sens files writes them."""

    def take(scene: Path) -> Take:
        poses = _folder(scene, "pose")
        images = _numbered(_folder(scene, "color"), ".jpg", ".png")
        frames = (TrueFrame(image, None, partial(pose_matrix, poses / f"{image.stem}.txt")) for image in images)
        return Take(scene.name, tuple(frames))

    return {scene.name: partial(take, scene) for scene in _subfolders(root, "scene*_*")}


def seven_scenes(root: Path) -> Takes:
    """7-Scenes: the sequences that each scene's TestSplit.txt names.

    Depth is .depth.proj.png where somebody projected it into the colour camera, else .depth.png as distributed.
    """

    def take(folder: Path, name: str) -> Take:
        images = sorted(folder.glob("frame-*.color.png"))
        if not images:
            raise UserError(f"There are no frames in {folder}", "unpack the archive of the sequence there")
        stems = [p.name.removesuffix(".color.png") for p in images]
        projected = (folder / f"{stems[0]}.depth.proj.png").is_file()
        ending, focal = (".depth.proj.png", 525.0) if projected else (".depth.png", 585.0)  # at 640 x 480
        width, height = picture_size(images[0])
        frames = (
            TrueFrame(
                image,
                partial(png_depth, folder / f"{stem}{ending}", 1000, _ROOM_M),
                partial(pose_matrix, folder / f"{stem}.pose.txt"),
            )
            for image, stem in zip(images, stems)
        )
        return Take(name, tuple(frames), _lens(focal * width / 640, width, height))

    found: Takes = {}
    for split in sorted(root.glob("*/TestSplit.txt")):
        for number in re.findall(r"\d+", split.read_text(encoding="utf-8")):
            folder = split.with_name(f"seq-{int(number):02d}")
            name = f"{split.parent.name}/{folder.name}"
            found[name] = partial(take, folder, name)
    return found or _nothing("SCENE/TestSplit.txt", root)


def neural_rgbd(root: Path) -> Takes:
    """The scenes of Neural RGB-D, with their depth without noise."""

    def take(scene: Path) -> Take:
        images = _numbered(_folder(scene, "images"), ".png")
        poses = numbers(scene / "poses.txt")
        if poses.shape != (4 * len(images), 4):
            raise UserError(f"{scene} has {len(images)} images and {len(poses) / 4:g} poses", AGAIN)
        poses = poses.reshape(-1, 4, 4) * (1, -1, -1, 1)  # from OpenGL axes
        depth = scene / "depth"
        frames = (
            TrueFrame(
                image,
                partial(png_depth, depth / f"depth{_number(image)}.png", 1000, _ROOM_M),
                partial(known_pose, pose),
            )
            for image, pose in zip(images, poses)
        )
        return Take(scene.name, tuple(frames), _lens(numbers(scene / "focal.txt").item(0), *picture_size(images[0])))

    scenes = [path.parent for path in sorted(root.glob("*/focal.txt"))]
    return {scene.name: partial(take, scene) for scene in scenes} or _nothing("SCENE/focal.txt", root)


def _named(take: Callable[[Path, str], Take], prefix: str, folders: list[Path]) -> Takes:
    """Folders whose sequences are known by shorter names."""
    names = [folder.name.removeprefix(prefix) for folder in folders]
    return {name: partial(take, folder, name) for name, folder in zip(names, folders)}


def _lens(focal: float, width: int, height: int) -> tuple[float, float, float, float]:
    """fx fy cx cy of a focal length. These benchmarks put W/2, H/2 in the middle and count from a pixel's centre."""
    return focal, focal, width / 2 + 0.5, height / 2 + 0.5


def _nearest(of: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(N,) which of the times `of` is nearest to each of `times`, -1 where none is near enough."""
    if not len(of):
        return np.full(len(times), -1)
    place = np.abs(of[None] - times[:, None]).argmin(1)
    return np.where(np.abs(of[place] - times) <= _TOGETHER_S, place, -1)


def _folder(root: Path, *names: str) -> Path:
    """The first of these folders that is there."""
    return next((root / name for name in names if (root / name).is_dir()), None) or _nothing(names[0], root)


def _subfolders(root: Path, pattern: str = "*") -> list[Path]:
    return sorted(p for p in root.glob(pattern) if p.is_dir()) or _nothing(pattern, root)


def _numbered(folder: Path, *endings: str) -> list[Path]:
    """The files of a folder by the last number in their names."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in endings and re.search(r"\d", p.stem)]
    return sorted(found, key=lambda p: (_number(p), p.name)) or _nothing(f"N{endings[0]}", folder)


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def _nothing(name: str, root: Path) -> NoReturn:
    raise UserError(f"There is no {name} in {root}", "give the folder that the benchmark was unpacked to")
