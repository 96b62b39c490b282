"""What a streaming network says of one frame, and the stream that says it: frames in one at a time, in order.

Facts sheet of Point3R (Wu et al. 2025, arXiv 2507.02863), sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class StreamedFrame:
    """One frame's result, in host memory and with nothing of the device left in it.

    `points_camera` (H, W, 3) float32 are in the frame's own camera, `points_world` (H, W, 3) in the stream's world,
    which is about the camera of the first frame; OpenCV axes, metres as the network was trained. `confidence_camera`
    and `confidence_world` (H, W) are 1 and more. `world_from_camera` (4, 4) float64 is what the pose head says.
    `pointers` is how many the memory holds after this frame.
    """

    index: int
    points_camera: np.ndarray
    confidence_camera: np.ndarray
    points_world: np.ndarray
    confidence_world: np.ndarray
    world_from_camera: np.ndarray
    pointers: int


class FrameStream(Protocol):
    """A network with its memory of the frames so far. All frames of a stream have one size, multiples of 16."""

    def push(self, rgb: np.ndarray) -> StreamedFrame:
        """The result for the next frame (H, W, 3) uint8."""

    def pointers(self) -> np.ndarray:
        """(P, 3) float32: where the memory has something, in the stream's world."""

    def save(self) -> Mapping[str, np.ndarray]:
        """The state after the frames so far as plain arrays, from which `restore` goes on bit for bit."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a saved state. Raises ValueError when it is not one of this network's."""

    def reset(self) -> None:
        """Forget all frames: the next one is the first of a new world."""
