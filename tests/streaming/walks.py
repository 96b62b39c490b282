"""What tests of the streamed path share: an oracle's frames of a world, and these as refinement reads them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.streaming.following import View, view_of
from backend.streaming.frames import StreamedFrame
from backend.streaming.poses import sure_points
from tests.stream_oracle import StreamErrors, StreamOracle
from tests.worlds import World


@dataclass(frozen=True)
class Walk:
    """A world, and what a streaming network said of its frames; refinement's `Frames`."""

    world: World
    frames: list[StreamedFrame]
    focal_px: float

    def __len__(self) -> int:
        return len(self.frames)

    def view(self, n: int) -> View:
        frame = self.frames[n]
        width, height = self.world.size
        usable = sure_points(frame)
        return view_of(self.world.rgb[n], frame.points_camera[..., 2], usable, self.focal_px, (width // 2, height // 2))


_USUAL = StreamErrors()


def walk(world: World, errors: StreamErrors = _USUAL, seed: int = 0) -> Walk:
    """The world as an oracle streams it, with the true lens."""
    oracle = StreamOracle(world, errors, seed)
    return Walk(world, [oracle.push(rgb) for rgb in world.rgb], float(world.intrinsics[0, 0]))


def head_path(frames: list[StreamedFrame]) -> np.ndarray:
    """(T, 4, 4) what the pose head says."""
    return np.stack([frame.world_from_camera for frame in frames])
