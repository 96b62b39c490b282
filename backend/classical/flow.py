"""Optical flow between frames and their neighbours (DIS, Kroeger et al. 2016), kept in a file, not in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..geometry.camera import pixel_centres
from ..geometry.motion import forward_backward_error
from ..run import Run
from .parallel import in_threads

#: Depth and motion masks look at the frames this far before and after.
OFFSETS = (2, 6, 12)
#: Frames of a piece that several processes share: some ten seconds of work, and some 50 MB to keep.
PIECE = 12


@dataclass(frozen=True)
class Flows:
    """Flow from every frame to those `offsets` before and after it: `of[offset][t]` (H, W, 2) float16, t the source."""

    of: dict[int, np.ndarray]

    def neighbours(self, t: int) -> list[int]:
        """Frames that frame `t` has flow to."""
        return [t + k for k in self.of if 0 <= t + k < self.frame_count]

    @property
    def frame_count(self) -> int:
        return len(next(iter(self.of.values())))

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        height, width = next(iter(self.of.values())).shape[1:3]
        return width, height

    def between(self, a: int, b: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow (H, W, 2) float32 from frame a to b, and its forward-backward error (H, W) in pixels."""
        forward = np.asarray(self.of[b - a][a], np.float32)
        backward = np.asarray(self.of[a - b][b], np.float32)
        targets = pixel_centres(*self.size).astype(np.float32) + forward
        error = forward_backward_error(forward, sample(backward, targets))
        return forward, error


def flow_offsets(frame_count: int) -> tuple[int, ...]:
    """The offsets that a clip of so many frames has room for; short clips get nearer neighbours."""
    return tuple(k for k in OFFSETS if k < frame_count - 1) or (1,)


def neighbour_flows(frames: np.ndarray, run: Run) -> Flows:
    """Flows of (T, H, W, 3) uint8 frames to their neighbours, both ways."""
    return flows_between(frames, flow_offsets(len(frames)), flow_method, "flow", run, sharable=True)


def next_flows(frames: np.ndarray, run: Run) -> Flows:
    """Flows of (T, H, W, 3) uint8 frames to the next ones and back, made quickly: their motion is small."""

    def quick() -> cv2.DISOpticalFlow:
        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    return flows_between(frames, (1,), quick, "next", run)


def flows_between(
    frames: np.ndarray,
    offsets: tuple[int, ...],
    method: Callable[[], cv2.DISOpticalFlow],
    name: str,
    run: Run,
    sharable: bool = False,
) -> Flows:
    """Flows of (T, H, W, 3) uint8 frames over these offsets, both ways, in files of `run.work_dir` with that name.

    Other processes may make a part of what is `sharable` (sharing.py).
    """
    count, height, width = frames.shape[:3]
    grey = [cv2.cvtColor(np.asarray(f), cv2.COLOR_RGB2GRAY) for f in frames]
    both = sorted(s * k for k in offsets for s in (-1, 1))
    of = {
        k: np.lib.format.open_memmap(
            Path(run.work_dir) / f"{name}{k:+d}.npy", mode="w+", dtype=np.float16, shape=(count, height, width, 2)
        )
        for k in both
    }

    def fill(t: int) -> None:
        dis = method()
        for k in both:
            if 0 <= t + k < count:
                of[k][t] = dis.calc(grey[t], grey[t + k], None)

    if not sharable or not run.shares(count, sum(flow.nbytes for flow in of.values())):
        for _ in in_threads(fill, count, run):
            pass
        return Flows(of)

    ranges = [range(t, min(t + PIECE, count)) for t in range(0, count, PIECE)]
    quiet = Run(is_cancelled=run.is_cancelled, threads=run.threads)

    def piece(number: int) -> dict[int, np.ndarray]:
        frames_of = ranges[number]
        for _ in in_threads(lambda n: fill(frames_of[n]), len(frames_of), quiet):
            pass
        return {k: of[k][frames_of.start : frames_of.stop] for k in both}

    made_from = {"frames": run.content(frames), "offsets": both, "method": name}
    for number, made in run.pieces("Flow of some frames", made_from, len(ranges), piece):
        for k in both:
            of[k][ranges[number].start : ranges[number].stop] = made[k]
    return Flows(of)


def flow_method() -> cv2.DISOpticalFlow:
    """DIS down to single pixels, so that edges of movers stay sharp, and with few rounds elsewhere to pay for it."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    dis.setPatchStride(4)
    dis.setGradientDescentIterations(12)
    dis.setVariationalRefinementIterations(2)
    return dis


def sample(image: np.ndarray, xy: np.ndarray, nearest: bool = False) -> np.ndarray:
    """`image` (H, W[, C]) at edge-origin pixels `xy` (..., 2), linear between centres or the nearest, 0 outside."""
    x, y = (np.ascontiguousarray(xy[..., k] - 0.5, np.float32) for k in (0, 1))
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_CONSTANT)


def inside(xy: np.ndarray, width: int, height: int) -> np.ndarray:
    """(...) bool: which edge-origin pixels (..., 2) are at least one pixel inside the picture."""
    x, y = xy[..., 0], xy[..., 1]
    return (x > 1) & (x < width - 1) & (y > 1) & (y < height - 1)
