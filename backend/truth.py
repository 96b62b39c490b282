"""Ground truth of a clip: exact cameras, depth and motion masks in one compact NumPy archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .wire import UserError

FORMAT = "kinora-truth-1"
#: Inverse depth is stored in this many steps, the last being the nearest surface of the clip: 0.03 % at a tenth of it.
_LEVELS = 2**14 - 1


@dataclass(frozen=True)
class Truth:
    """What is true of T frames of a clip, in the conventions of `geometry/camera.py`.

    `world_from_camera` (T, 4, 4) in metres; `intrinsics` (T, 4) fx fy cx cy in edge-origin pixels of the plate;
    `masks` (T, plate H, plate W) bool, True on what moves. `depth` (T, h, w) float32 is z-depth in metres, 0 where
    there is no surface, at the centres of every `depth_step`-th pixel of the plate (see `depth_pixels`).
    """

    world_from_camera: np.ndarray
    intrinsics: np.ndarray
    masks: np.ndarray
    depth: np.ndarray
    depth_step: int

    @classmethod
    def from_plates(cls, world_from_camera, intrinsics, depth, masks, step: int) -> Truth:
        """Truth from (T, H, W) depth and masks at plate resolution; depth keeps every `step`-th pixel."""
        first = step // 2
        return cls(world_from_camera, intrinsics, masks, np.float32(depth[:, first::step, first::step]), step)

    @property
    def frame_count(self) -> int:
        return len(self.world_from_camera)

    @property
    def plate_size(self) -> tuple[int, int]:
        """(width, height) of the plate."""
        return self.masks.shape[2], self.masks.shape[1]

    @property
    def depth_pixels(self) -> np.ndarray:
        """(h, w, 2) edge-origin plate pixels at which `depth` is known."""
        height, width = self.depth.shape[1:]
        first = self.depth_step // 2 + 0.5
        x, y = np.meshgrid(np.arange(width) * self.depth_step + first, np.arange(height) * self.depth_step + first)
        return np.stack([x, y], axis=-1)

    @property
    def depth_moves(self) -> np.ndarray:
        """(T, h, w) bool: which of the known depths are on something that moves."""
        first = self.depth_step // 2
        return self.masks[:, first :: self.depth_step, first :: self.depth_step]


def write_truth(truth: Truth, path: Path) -> None:
    """Write `truth` to a .npz file.

    Inverse depth is linear on planes, so what is stored of it is its mixed second difference in 14 bits: nearly all
    zeros, which the archive's own compression then removes.
    """
    seen = truth.depth > 0
    inverse = np.divide(1.0, truth.depth, where=seen, out=np.zeros_like(truth.depth, np.float64))
    level = inverse.max() / _LEVELS
    steps = np.round(inverse / level).astype(np.int32)
    steps = np.diff(np.diff(steps, axis=1, prepend=0), axis=2, prepend=0)
    folded = np.where(steps < 0, -2 * steps - 1, 2 * steps).astype(np.uint16)  # small numbers of either sign
    np.savez_compressed(
        path,
        format=np.array(FORMAT),
        world_from_camera=np.float64(truth.world_from_camera),
        intrinsics=np.float64(truth.intrinsics),
        masks=np.packbits(truth.masks, axis=2),
        plate_size=np.array(truth.plate_size),
        depth_low=(folded & 255).astype(np.uint8),
        depth_high=(folded >> 8).astype(np.uint8),
        depth_level=np.float64(level),
        depth_step=np.array(truth.depth_step),
    )


def read_truth(path: Path | str) -> Truth:
    """Read what `write_truth` wrote. Raises UserError when the file is not that."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no ground truth at {path}", "choose the truth.npz that belongs to the clip")
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["format"]) != FORMAT:
                raise UserError(f"{path} is not a ground truth of this version of Kinora")
            width, _ = stored["plate_size"].tolist()
            folded = stored["depth_low"].astype(np.int32) | (stored["depth_high"].astype(np.int32) << 8)
            steps = np.where(folded & 1, -(folded + 1) // 2, folded // 2)
            inverse = np.cumsum(np.cumsum(steps, axis=2), axis=1) * stored["depth_level"]
            return Truth(
                world_from_camera=stored["world_from_camera"],
                intrinsics=stored["intrinsics"],
                masks=np.unpackbits(stored["masks"], axis=2, count=width).astype(bool),
                depth=np.divide(1.0, inverse, where=inverse > 0, out=np.zeros_like(inverse)).astype(np.float32),
                depth_step=int(stored["depth_step"]),
            )
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise UserError(f"{path} is not a ground truth ({error})", "choose the truth.npz of the clip") from error
