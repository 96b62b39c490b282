"""Folders laid out as benchmarks are distributed, of synthetic worlds: what is in them is known exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from tests.worlds import World

TAG = np.float32(202021.25)


def nyu(root: Path, world: World, scene: str = "bathroom_0001") -> None:
    for k in range(len(world.depth)):
        image(root / f"official_splits/test/{scene}/rgb_{k:05d}.jpg", world.rgb[k])
        depth(root / f"official_splits/test/{scene}/sync_depth_{k:05d}.png", world.depth[k] * 1000)


def sintel(root: Path, world: World, name: str = "alley_2") -> None:
    training = root / "training"
    for k in range(len(world.depth)):
        stem = f"{name}/frame_{k + 1:04d}"
        image(training / f"final/{stem}.png", world.rgb[k])
        height, width = world.depth[k].shape
        head = TAG.tobytes() + np.array([width, height], "<i4").tobytes()
        raw(training / f"depth/{stem}.dpt", head + world.depth[k].astype("<f4").tobytes())
        fx, fy, cx, cy = world.intrinsics[k]
        lens = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], "<f8")
        camera_from_world = np.linalg.inv(world.world_from_camera[k])[:3].astype("<f8")
        raw(training / f"camdata_left/{stem}.cam", TAG.tobytes() + lens.tobytes() + camera_from_world.tobytes())


def bonn(root: Path, world: World, name: str = "balloon2") -> None:
    tum_layout(root / f"rgbd_bonn_{name}", world)


def tum(root: Path, world: World, name: str = "walking_xyz") -> None:
    tum_layout(root / f"rgbd_dataset_freiburg3_{name}", world)


def tum_layout(folder: Path, world: World) -> None:
    """30 pictures a second; depth 5 ms and the motion capture 3 ms later, which skips frame 1. Comments as there."""
    times = 1341846313.5 + np.arange(len(world.depth)) / 30
    rgb, depths, poses = (["# timestamp filename", "# file"] for _ in range(3))
    for k, second in enumerate(times):
        image(folder / f"rgb/{second:.6f}.png", world.rgb[k])
        rgb.append(f"{second:.6f} rgb/{second:.6f}.png")
        depth(folder / f"depth/{second + 0.005:.6f}.png", world.depth[k] * 5000)
        depths.append(f"{second + 0.005:.6f} depth/{second + 0.005:.6f}.png")
        if k != 1:
            pose = world.world_from_camera[k]
            row = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
            poses.append(f"{second + 0.003:.6f} " + " ".join(f"{value:.9f}" for value in row))
    for name, lines in (("rgb", rgb), ("depth", depths), ("groundtruth", poses)):
        text(folder / f"{name}.txt", lines)


def kitti(root: Path, world: World, name: str = "2011_09_26_drive_0002_sync") -> None:
    """Depth begins with the fifth picture of a drive, as there."""
    for k in range(len(world.depth)):
        image(root / f"{name[:10]}/{name}/image_02/data/{k:010d}.png", world.rgb[k])
        if k >= 4:
            depth(root / f"val/{name}/proj_depth/groundtruth/image_02/{k:010d}.png", world.depth[k] * 256)


def scannet(root: Path, world: World, name: str = "scene0707_00") -> None:
    """The camera of frame 3 is lost; names of 10 and more do not sort as text."""
    for k in range(len(world.depth)):
        image(root / f"{name}/color/{k}.jpg", world.rgb[k])
        pose = world.world_from_camera[k] if k != 3 else np.full((4, 4), -np.inf)
        text(root / f"{name}/pose/{k}.txt", matrix(pose))


def seven_scenes(root: Path, world: World, name: str = "chess/seq-03") -> None:
    scene, number = name.split("/seq-")
    text(root / scene / "TestSplit.txt", [f"sequence{int(number)}"])
    for k in range(len(world.depth)):
        stem = root / name / f"frame-{k:06d}"
        image(stem.with_suffix(".color.png"), world.rgb[k])
        values = world.depth[k] * 1000
        values[0, 0] = 65535
        depth(stem.with_suffix(".depth.png"), values)
        text(stem.with_suffix(".pose.txt"), matrix(world.world_from_camera[k]))


def neural_rgbd(root: Path, world: World, name: str = "green_room") -> None:
    lines = []
    for k in range(len(world.depth)):
        image(root / f"{name}/images/img{k}.png", world.rgb[k])
        depth(root / f"{name}/depth/depth{k}.png", world.depth[k] * 1000)
        lines += matrix(world.world_from_camera[k] @ np.diag([1.0, -1, -1, 1]))
    text(root / f"{name}/poses.txt", lines)
    text(root / f"{name}/focal.txt", [f"{world.intrinsics[0, 0]:.6f}"])


#: Name of a benchmark -> what writes a sequence of it.
WRITE: dict[str, Callable[..., None]] = {
    "nyu": nyu,
    "sintel": sintel,
    "bonn": bonn,
    "kitti": kitti,
    "tum": tum,
    "scannet": scannet,
    "7scenes": seven_scenes,
    "nrgbd": neural_rgbd,
}


def image(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw(path, cv2.imencode(path.suffix, rgb[..., ::-1])[1].tobytes())


def depth(path: Path, values: np.ndarray) -> None:
    """A 16-bit image; what is not finite is 0."""
    whole = np.round(np.where(np.isfinite(values), values, 0)).astype(np.uint16)
    raw(path, cv2.imencode(".png", whole)[1].tobytes())


def raw(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def text(path: Path, lines: Iterable[str]) -> None:
    raw(path, ("\n".join(lines) + "\n").encode())


def matrix(pose: np.ndarray) -> list[str]:
    return ["\t".join(f"{value:.9e}" for value in row) for row in pose]
