"""What each suite measures of one sequence of a benchmark: a capture of it, or depth of single pictures, and the truth.

Facts sheets of MonST3R (section 10) and Point3R (section 9). Raises UserError for a capture that is not of the sequence
or says too little of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..geometry.camera import transform
from ..geometry.rigid import invert_poses
from ..wire import Capture, PlateMap, UserError
from .clouds import cloud_errors, icp, scale_and_shift
from .depth import depth_error
from .files import Pictures
from .formats import picture_size
from .layouts import Take, TrueFrame
from .path import path_error
from .standard import Given, compared_depths, plate_pixels, sampled_depth

#: Reconstructions are compared in the middle square of so many pixels, of pictures with this long side.
SQUARE, LONG_SIDE = 224, 512
#: Of clouds that may have more points than about this, some are compared.
MOST_POINTS = 2_000_000
#: See `stand_in_name`.
_STAND_IN = re.compile(r"whole_(\d{6})")
#: Name of an alignment of video depth in tables -> that of `evaluation.depth`.
VIDEO_ALIGNMENTS = {
    "scale": "scale, least absolute",
    "scale_shift": "scale and shift, least absolute",
    "median": "median scale",
    "metric": "none",
}


@dataclass(frozen=True)
class Measured:
    """Figures of one sequence by name, of how many of its frames they are, and their weight in the benchmark's mean.

    `made_by` says what made that which was measured.
    """

    figures: dict[str, float]
    frames: int
    weight: float = 1.0
    made_by: dict[str, Any] = field(default_factory=dict)


def measure_video_depth(take: Take, capture: Capture, max_depth: float) -> Measured:
    """Abs Rel and the share within 1.25 times by each alignment of the whole sequence, weighted by pixels.

    `metric` is NaN for a capture whose unit is not the metre.
    """
    frames = frames_of(take, capture)
    width, height = capture.clip.plate_size

    def read(k: int) -> np.ndarray:
        frame = frames[k]
        return np.zeros((height, width), np.float32) if frame is None or frame.depth is None else frame.depth()

    depths = compared_depths(capture, Given(depth=Pictures(read, len(frames))), max_depth)
    if not len(depths.truth):
        raise UserError("The capture has no depth where the truth has one", "make the capture again")
    figures = {"seen": depths.seen}
    for name, alignment in VIDEO_ALIGNMENTS.items():
        if name == "metric" and not capture.metric:
            figures |= {f"{name}_abs_rel": np.nan, f"{name}_delta_125": np.nan}
            continue
        error = depth_error(depths.estimate, depths.truth, alignment, max_depth)
        figures |= {f"{name}_abs_rel": error.abs_rel, f"{name}_delta_125": error.delta_125}
    return Measured(figures, sum(frame is not None for frame in frames), depths.pixels)


def measure_single_depth(take: Take, singles: Iterable[tuple[np.ndarray, PlateMap]], max_depth: float) -> Measured:
    """Abs Rel and the share within 1.25 times, each picture after a median scale of its own, weighted by pixels.

    `singles` are the depth (h, w) of each frame and how its pixels come from the picture's, in the take's order.
    """
    frames, wanted, compared, sums = 0, 0, 0, np.zeros(2)
    for frame, (depth, grid) in zip(take.frames, singles, strict=True):
        if frame.depth is None:
            continue
        true = frame.depth()
        found = sampled_depth(depth, grid.to_grid(plate_pixels(*true.shape, picture_size(frame.image))))
        counts = (true > 0) & (true < max_depth)
        both = counts & (found > 0)
        wanted, compared = wanted + int(counts.sum()), compared + int(both.sum())
        frames += 1
        if both.any():
            error = depth_error(found[both], true[both], "median scale", max_depth)
            sums += np.array([error.abs_rel, error.delta_125]) * both.sum()
    if not compared:
        raise UserError("No picture got a depth where the truth has one")
    abs_rel, delta_125 = sums / compared
    return Measured({"seen": compared / wanted, "abs_rel": abs_rel, "delta_125": delta_125}, frames, wanted)


def measure_pose(take: Take, capture: Capture) -> Measured:
    """ATE and RPE after Sim(3), of the frames whose camera both know."""
    frames = frames_of(take, capture)
    truth = np.stack([np.full((4, 4), np.nan) if frame is None else frame.pose() for frame in frames])
    error = path_error(capture.world_from_camera, truth)
    if not np.isfinite(error.ate):
        raise UserError("The camera path has no extent to align by", "the camera stands still, or few frames have one")
    return Measured({"ate": error.ate, "rpe": error.rpe, "rpe_deg": error.rpe_deg}, error.compared)


def measure_reconstruction(take: Take, capture: Capture) -> Measured:
    """Accuracy, completeness and normal consistency of the points in the middle of each frame.

    In the first camera's frame, after scale and shift in depth, and then ICP.
    """
    if capture.clip.k1 or capture.clip.k2:
        raise UserError("The benchmark has no lens distortion and the capture has", "set the distortion to 0")
    found, true, first = [], [], None
    frames = frames_of(take, capture)
    share = MOST_POINTS / (sum(frame is not None for frame in frames) * SQUARE**2)
    for k, frame in enumerate(frames):
        if frame is None:
            continue
        pose, own_pose = frame.pose(), capture.world_from_camera[k]
        if not (np.isfinite(pose).all() and np.isfinite(own_pose).all()):
            continue
        first = first or (invert_poses(pose), invert_poses(own_pose))
        depth = frame.depth()
        x, y = middle_pixels(*depth.shape)
        on_plate = np.stack([x + 0.5, y + 0.5], -1) * capture.clip.plate_size / depth.shape[::-1]
        own_depth = sampled_depth(capture.depth[k], capture.plate_map.to_grid(on_plate))
        depth = depth[y, x]
        both = (depth > 0) & (own_depth > 0)
        if share < 1:  # at random: any stride would favour some columns
            both &= np.random.default_rng(k).random(both.shape) < share
        here = np.stack([x, y], -1)[both] + 0.5
        true.append(transform(first[0] @ pose, _lifted(here, depth[both], np.array(take.intrinsics))))
        own = _lifted(on_plate[both], own_depth[both], capture.plate_intrinsics[k])
        found.append(transform(first[1] @ own_pose, own))
    if not sum(map(len, true)):
        raise UserError("No frame has a camera and depth in both the capture and the truth", "make the capture again")
    estimate, truth = np.concatenate(found), np.concatenate(true)
    try:
        estimate = scale_and_shift(estimate, truth).apply(estimate)
    except ValueError as error:
        raise UserError(f"The clouds cannot be aligned: {error}", "make the capture again") from error
    errors = cloud_errors(icp(estimate, truth).apply(estimate), truth)
    return Measured(asdict(errors) | {"points": float(len(truth))}, len(true))


def frames_of(take: Take, capture: Capture) -> list[TrueFrame | None]:
    """The take's frame that each frame of a capture is, None for one that is not taken.

    By the names of their files, or by their numbers in the whole sequence.
    """
    size, clip = picture_size(take.frames[0].image), capture.clip
    if tuple(clip.plate_size) != size:
        raise UserError(
            f"The capture is of pictures of {tuple(clip.plate_size)}, those of {take.name} have {size}",
            "make it of the sequence",
        )
    named = {frame.image.name: frame for frame in take.frames}
    stood_in = [_STAND_IN.fullmatch(Path(name).stem) for name in clip.image_names]
    if stood_in and all(stood_in):
        frames = [take.numbered.get(int(match[1])) for match in stood_in]
    elif len(named) == len(take.frames) and any(name in named for name in clip.image_names):
        frames = [named.get(name) for name in clip.image_names]
    else:
        frames = [take.numbered.get(number) for number in clip.frame_indices]
    if not any(frames):
        raise UserError(f"The capture has none of the frames that are taken of {take.name}", "make it of those")
    return frames


def stand_in_name(number: int, image: Path) -> str:
    """What the picture of frame `number` of a whole sequence is called in a folder of those that an engine is shown."""
    return f"whole_{number:06d}{image.suffix.lower()}"


def middle_pixels(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """x, y (n, n) int: a picture's pixels nearest to those of the middle square of the picture at `LONG_SIDE`."""
    step = max(height, width) / LONG_SIDE
    count = min(SQUARE, *(int(side / step) for side in (height, width)))
    if step < 1:  # a smaller picture's pixels count once
        count, step = int(count * step), 1.0
    along = (np.arange(count) - (count - 1) / 2) * step
    x, y = np.meshgrid(along + width / 2, along + height / 2)
    return np.floor(x).astype(int), np.floor(y).astype(int)


def _lifted(xy: np.ndarray, depth: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """(N, 3) points in the camera's frame of edge-origin pixels (N, 2)."""
    return np.column_stack([(xy - intrinsics[2:]) / intrinsics[:2], np.ones(len(xy))]) * depth[:, None]
