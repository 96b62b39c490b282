"""Conformance of the streaming network's small parts: turns, fusion, what numbers mean, cameras, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from backend.geometry.rigid import matrices_from_quaternions, poses_from
from backend.monst3r.preprocess import grid_for, prepare
from backend.nets.pairwise import pointmap
from backend.nets.point3r_heads import camera_poses, in_front
from backend.nets.rope3d import rotary_3d
from backend.nets.vit import rotary_2d
from backend.streaming.focal import frame_focal
from backend.streaming.frames import StreamedFrame
from backend.streaming.fusion import ORIGINAL, Candidates, Memory, fuse, nearest, threshold
from backend.streaming.poses import network_pose
from backend.wire import UserError

from .point3r_network import half_rotary_2d
from .rows import Arrays, Check, Row, absent, near, unchecked

#: Of what is a few operations in float32, relative where numbers are large.
EXACT = 2e-6
#: One step of half precision at 1, and some sums of it.
HALF = 2e-3
#: Of focal lengths and poses, which are sums over all pixels.
CAMERA = 1e-5


def of_file(name: str, rows: Callable[[Arrays], Iterator[Row]]) -> Check:
    """A check of one file, which may be absent; what nothing has looked at in it is said."""

    def check(folder: Path) -> Iterator[Row]:
        path = folder / f"{name}.npz"
        if not path.is_file():
            yield absent(path.name)
            return
        arrays = Arrays(path)
        yield from rows(arrays)
        yield from arrays.left("nothing here answers to it")

    return check


def _turns_3d(arrays: Arrays) -> Iterator[Row]:
    for width in _widths(arrays):
        tokens, positions = (torch.from_numpy(arrays[f"{name}_{width}"]) for name in ("tokens", "positions"))
        yield arrays.near(f"out_pose_{width}", rotary_3d(positions[0], width, unmoved=1)(tokens), EXACT, relative=True)
        others = rotary_3d(positions[0], width)(tokens[:, :, 1:])
        yield arrays.near(f"out_nopose_{width}", others, EXACT, relative=True)


def _turns_2d(arrays: Arrays) -> Iterator[Row]:
    positions = torch.from_numpy(arrays["positions"])
    for width in _widths(arrays):
        tokens = torch.from_numpy(arrays[f"tokens_{width}"])
        yield arrays.near(f"out_fp32_{width}", rotary_2d(positions[0], width)(tokens), EXACT, relative=True)
        yield arrays.near(f"out_fp16_{width}", half_rotary_2d(positions[0], width)(tokens), HALF, relative=True)


def _widths(arrays: Arrays) -> list[int]:
    return sorted(int(name.removeprefix("tokens_")) for name in arrays if name.startswith("tokens_"))


def _fusion(arrays: Arrays) -> Iterator[Row]:
    """Each case: what is near, what is new, and the memory after it, row by row."""
    for case in sorted(name.removesuffix("_threshold") for name in arrays if name.endswith("_threshold")):
        parts = [torch.from_numpy(arrays[f"{case}_{name}"]) for name in ("mem_pos", "mem_feat", "new_pos", "new_feat")]
        old, new = (Candidates(*each, torch.ones(len(each[0]))) for each in (parts[:2], parts[2:]))
        memory = Memory.of(old, ORIGINAL)
        limit, (distance, owner) = threshold(memory, new, ORIGINAL), nearest(new.positions, memory.positions)
        yield arrays.near(f"{case}_threshold", limit, EXACT, relative=True)
        # theirs are by the shorter matrix product, whose squares are as exact as the largest place is
        size = float(parts[0].abs().max() + parts[2].abs().max())
        squares = (np.square(np.asarray(d) / size) for d in (distance, arrays[f"{case}_min_dist"]))
        yield near(f"{arrays.label} {case}_min_dist, squared", *squares, EXACT)
        yield arrays.near(f"{case}_nearest", owner, 0)
        yield arrays.near(f"{case}_is_new", distance >= limit, 0)
        after = fuse(memory, new, ORIGINAL)
        yield arrays.near(f"{case}_out_pos", after.positions, EXACT, relative=True)
        yield arrays.near(f"{case}_out_feat", after.features, EXACT, relative=True)


def _numbers(arrays: Arrays) -> Iterator[Row]:
    """What a head's numbers mean: points, confidence, poses."""
    raw = torch.from_numpy(arrays["raw"])
    points, confidence = pointmap(raw)
    yield arrays.near("pts", points, EXACT, relative=True)
    yield arrays.near("conf", confidence, EXACT, relative=True)
    yield arrays.near("pts_posz", pointmap(in_front(raw))[0], EXACT, relative=True)
    poses = camera_poses(torch.from_numpy(arrays["pose_raw"])).numpy()
    yield arrays.near("pose", poses, EXACT, relative=True)
    turned = matrices_from_quaternions(poses[:, [4, 5, 6, 3]])
    yield arrays.near("c2w", poses_from(turned, poses[:, :3]), EXACT, relative=True)


def _cameras(arrays: Arrays) -> Iterator[Row]:
    """The lens and the pose that a frame's points say, as the original finds them."""
    frames = [
        StreamedFrame(n, *parts, np.full((4, 4), np.nan), 0)
        for n, parts in enumerate(zip(*(arrays[n] for n in ("pts_self", "conf_self", "pts_world", "conf_world"))))
    ]
    height, width = frames[0].confidence_camera.shape
    yield arrays.near("pp", [[width // 2, height // 2]] * len(frames), 0)
    yield arrays.near("focal_weiszfeld", [frame_focal(f.points_camera) for f in frames], CAMERA, relative=True)
    everywhere = np.ones((height, width), bool)
    found = [network_pose(f, everywhere, np.nan, "procrustes").world_from_camera for f in frames]
    yield arrays.near("c2w_procrustes", found, CAMERA)
    ours, theirs = (np.abs(np.asarray(a) - arrays["c2w_true"]).max() for a in (found, arrays["c2w_procrustes"]))
    yield near(f"{arrays.label} c2w_true, our error", ours, 0, theirs + CAMERA)
    if "focal_median" in arrays:
        yield unchecked(f"{arrays.label} focal_median", f"{arrays['focal_median']}: the lens is by Weiszfeld's rounds")


def _pictures(arrays: Arrays) -> Iterator[Row]:
    """Sizes after resizing and cropping, -1 where the original crashes, and the pictures themselves."""
    table = arrays["size_table"]
    ways = [(512, True), (512, False), (224, True), (224, False)]
    ours = [[*source, *(n for way in ways for n in _size(source, *way))] for source in table[:, :2].tolist()]
    yield arrays.near("size_table", ours, 0)
    for name in sorted(name for name in arrays if name.endswith("_in")):
        for way in ("crop", "resize"):
            target = name.replace("_in", f"_{way}")
            if target in arrays:
                yield arrays.near(target, prepare(arrays[name], max(arrays[target].shape), way == "crop").rgb, 0)


def _size(source: tuple[int, int], size: int, crop: bool) -> tuple[int, int]:
    try:
        return grid_for(tuple(source), size, crop).size
    except UserError:
        return (-1, -1)


CHECKS: dict[str, Check] = {
    "turns-3d": of_file("unit_rope3d", _turns_3d),
    "turns-2d": of_file("unit_rope2d", _turns_2d),
    "fusion": of_file("unit_fusion", _fusion),
    "numbers": of_file("unit_post", _numbers),
    "cameras": of_file("unit_camera", _cameras),
    "pictures": of_file("unit_preprocess", _pictures),
}
