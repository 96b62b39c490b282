"""A clip passed through a stream, frame by frame: what it says is kept in files, and its state every so many frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..run import Run
from ..streaming.focal import centre_of, frame_focal
from ..streaming.frames import StreamedFrame
from ..streaming.poses import FramePose, PoseOptions, PoseTracker
from .models import LaterStream

WHAT = "Streamed frames"
#: Frames after which the stream's state is kept: a job that was killed has so many to do again.
PIECE = 40
#: Every how many pixels points are compared with their pixels' rays.
STEP = 8
#: Confidence is cut here, which half precision still holds.
MOST = 60000.0

#: What a pose may be by; see `FramePose.source`.
SOURCES = (None, "head", "procrustes", "robust", "pnp", "step")


@dataclass(frozen=True)
class Passed:
    """What a stream said of T frames, the large arrays in files of the job.

    `depth` (T, H, W) float32 as the frame has it, 0 where there is none, and `confidence` (T, H, W) float16.
    `world_from_camera` (T, 4, 4), NaN where there is none, `scale` (T,) by which depth must be multiplied to have the
    world's unit, `source` (T,) what the pose is by, as an index into `SOURCES`, `agree` (T,), `steadied` (T,): see
    `FramePose`. `focal_px` (T,) of each frame alone, NaN where it says nothing, `lens_px` (T,) of the frames up to it,
    `off_rays` (T,) how far the frame's points lie beside their pixels' rays by its lens, as a share of the picture's
    width, and `pointers` (T,) how many there were after it.
    """

    depth: np.ndarray
    confidence: np.ndarray
    world_from_camera: np.ndarray
    scale: np.ndarray
    source: np.ndarray
    agree: np.ndarray
    steadied: np.ndarray
    focal_px: np.ndarray
    lens_px: np.ndarray
    off_rays: np.ndarray
    pointers: np.ndarray

    @classmethod
    def empty(cls, frames: int, size: tuple[int, int], folder: Path) -> Passed:
        """Of so many frames of (width, height), in files of `folder`."""

        def array(name: str, kind: type) -> np.ndarray:
            shape = (frames, size[1], size[0])
            return np.lib.format.open_memmap(folder / f"streamed_{name}.npy", mode="w+", dtype=kind, shape=shape)

        return cls(
            depth=array("depth", np.float32),
            confidence=array("confidence", np.float16),
            world_from_camera=np.full((frames, 4, 4), np.nan),
            scale=np.ones(frames),
            source=np.zeros(frames, np.int8),
            agree=np.zeros(frames),
            steadied=np.zeros(frames, bool),
            focal_px=np.full(frames, np.nan),
            lens_px=np.full(frames, np.nan),
            off_rays=np.full(frames, np.inf),
            pointers=np.zeros(frames, np.int64),
        )

    def put(self, t: int, frame: StreamedFrame, pose: FramePose, lens_px: float) -> None:
        """Keep what was said of frame `t`, and where its camera was found to be."""
        z = frame.points_camera[..., 2]
        known = np.isfinite(z) & (z > 0)
        self.depth[t] = np.where(known, z, 0)
        self.confidence[t] = np.where(known, np.minimum(frame.confidence_camera, MOST), 0)
        self.world_from_camera[t], self.scale[t], self.agree[t] = pose.world_from_camera, pose.scale, pose.agree
        self.source[t], self.steadied[t] = SOURCES.index(pose.source), pose.steadied
        self.focal_px[t] = frame_focal(frame.points_camera, known)
        self.off_rays[t] = _off_rays(frame.points_camera, known, self.focal_px[t])
        self.lens_px[t], self.pointers[t] = lens_px, frame.pointers


#: Called as a frame is known: all that is known so far, the frame's number, and what gives the places (P, 3) of the
#: pointers.
Look = Callable[[Passed, int, Callable[[], np.ndarray]], None]


@dataclass(frozen=True)
class Piece:
    """Frames in a row as `said`, the `places` (P, 3) of the pointers after them, and the states to go on from."""

    said: Mapping[str, np.ndarray]
    places: np.ndarray
    stream: Mapping[str, np.ndarray]
    tracker: Mapping[str, np.ndarray]


def pieces_of(rgb: np.ndarray, made_from: Mapping[str, Any], run: Run) -> list[dict[str, Any]]:
    """What each piece of the frames (T, H, W, 3) follows from: all frames up to its end, and `made_from`."""
    seen = [run.content(rgb[begin : begin + PIECE]) for begin in range(0, len(rgb), PIECE)]
    return [{**made_from, "frames": seen[: n + 1]} for n in range(len(seen))]


def all_known(pieces: list[dict[str, Any]], run: Run) -> bool:
    """Whether an earlier job had all pieces, so that the stream need not be opened."""
    return run.memory is not None and all(run.memory.knows(WHAT, piece) for piece in pieces)


def pass_through(
    source: LaterStream,
    rgb: np.ndarray,
    masks: np.ndarray | None,
    pieces: list[dict[str, Any]],
    options: PoseOptions,
    run: Run,
    look: Look,
) -> Passed:
    """All frames (T, H, W, 3) pushed through the stream in order, their cameras found without what is in `masks`.

    It goes on from the states after the last of the `pieces` that an earlier job had. Checks for cancellation at each
    frame.
    """
    passage = _Passage(source, rgb, masks, options, run, look)
    piece: Piece | None = None
    for n, made_from in enumerate(pieces):
        frames = range(n * PIECE, min((n + 1) * PIECE, len(rgb)))
        before, pushed = piece, passage.pushed
        piece = run.remember(WHAT, made_from, partial(passage.push, frames, before), (Piece,))
        if passage.pushed == pushed:  # an earlier job had it
            passage.take_over(frames, piece)
    return passage.passed


class _Passage:
    """Frames on their way. `pushed` says how many went through the stream itself, and `at` how far it has come."""

    def __init__(
        self,
        source: LaterStream,
        rgb: np.ndarray,
        masks: np.ndarray | None,
        options: PoseOptions,
        run: Run,
        look: Look,
    ) -> None:
        self.source, self.rgb, self.masks, self.run, self.look = source, rgb, masks, run, look
        self.tracker = PoseTracker(options)
        self.passed = Passed.empty(len(rgb), rgb.shape[2:0:-1], Path(run.work_dir))
        self.pushed, self.at = 0, -1

    def push(self, frames: range, before: Piece | None) -> Piece:
        """What the stream says of `frames`, which come after those of the piece `before`."""
        if before is None:
            self.source.reset()
        elif self.at != frames.start:
            self.source.restore(before.stream)
            self.tracker.restore(before.tracker)
        for t in frames:
            self.run.progress(t / len(self.rgb))
            frame = self.source.push(self.rgb[t])
            pose = self.tracker.push(frame, self.rgb[t], None if self.masks is None else self.masks[t])
            self.passed.put(t, frame, pose, self.tracker.focal_px)
            self.look(self.passed, t, self.source.pointers)
            self.pushed, self.at = self.pushed + 1, t + 1
        said = {name: values[frames.start : frames.stop] for name, values in vars(self.passed).items()}
        state = {name: np.asarray(value) for name, value in self.source.save().items()}
        return Piece(said, self.source.pointers(), state, self.tracker.save())

    def take_over(self, frames: range, piece: Piece) -> None:
        """The same, as an earlier job had it."""
        for name, values in vars(self.passed).items():
            values[frames.start : frames.stop] = piece.said[name]
        for t in frames:
            self.run.progress(t / len(self.rgb))
            self.look(self.passed, t, lambda: piece.places)


def _off_rays(points_camera: np.ndarray, known: np.ndarray, focal_px: float) -> float:
    """The median distance of (H, W, 3) points from their pixels, in widths; infinite where it cannot be told."""
    height, width = known.shape
    rows, columns = np.mgrid[0:height:STEP, 0:width:STEP]
    points = points_camera[rows, columns][known[rows, columns]]
    if not (len(points) and np.isfinite(focal_px)):
        return np.inf
    pixels = np.stack([columns, rows], axis=-1)[known[rows, columns]] - centre_of(width, height)
    return float(np.median(np.linalg.norm(points[:, :2] / points[:, 2:] * focal_px - pixels, axis=1)) / width)
