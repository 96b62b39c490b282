"""What is known of the cameras before a solve, on the network's grid: from files, lens settings and the flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..align.predictions import PairFlows
from ..align.unknowns import Knowns
from ..clip import Clip
from ..wire import JobSettings, MonST3RSettings, UserError
from .pictures import Pictures

#: Median flow in pixels at 512 across below which nothing but noise moves a picture.
STILL_PX = 0.4
TILES = 4
#: How far fx and fy may be apart: the network's pixels are square.
SQUARE_PIXELS = 0.02


@dataclass(frozen=True)
class Given:
    """`focal_px` (T,) on the grid and `world_from_camera` (T, 4, 4), NaN where unknown; None where nothing is known.

    `centre` is the principal point in the solver's pixels, None for the one that it assumes. `source` says where the
    focal length comes from, as in `ShotReport.focal_source`.
    """

    focal_px: np.ndarray | None
    world_from_camera: np.ndarray | None
    centre: tuple[float, float] | None = None

    @property
    def source(self) -> str:
        return "solved" if self.focal_px is None else "user"

    def knowns(self, keys: np.ndarray, options: MonST3RSettings) -> Knowns:
        """What the solver is told of the key frames (K,)."""
        poses = None
        if self.world_from_camera is not None and options.camera == "locked":
            raise UserError("Camera poses are given for a camera that is said not to move", "leave out one of the two")
        if self.world_from_camera is not None:
            poses = torch.from_numpy(np.linalg.inv(self.world_from_camera[keys]))
        return Knowns(
            focal_px=None if self.focal_px is None else torch.from_numpy(self.focal_px[keys]),
            camera_from_world=poses,
            per_frame_focal=options.zoom,
            locked=options.camera == "locked",
            centre=self.centre,
        )


def given_cameras(clip: Clip, settings: JobSettings, pictures: Pictures) -> Given:
    """The user's cameras and lens. Raises UserError for pixels that are far from square."""
    known = clip.known_cameras
    width = clip.info.plate_size[0]
    plate = None if known is None else known.plate_intrinsics
    centre = None if plate is None else _centre(plate, pictures)
    if plate is None and settings.lens.focal_mm > 0:
        focal_px = settings.lens.focal_mm / settings.lens.sensor_width_mm * width
        plate = np.tile([focal_px, focal_px, 0.0, 0.0], (clip.frame_count, 1))
    focal = None
    if plate is not None:
        fx, fy = plate[:, 0], plate[:, 1]
        if (np.abs(fx / fy - 1) > SQUARE_PIXELS).any():
            raise UserError(
                "The focal lengths in x and y differ, so the plate's pixels are not square",
                "stretch the plate to square pixels first",
            )
        scale = pictures.plate_map
        focal = np.sqrt(fx * scale.sx * fy * scale.sy)
    return Given(focal, None if known is None else known.world_from_camera, centre)


def _centre(plate: np.ndarray, pictures: Pictures) -> tuple[float, float]:
    """The one principal point of (T, 4) plate intrinsics. Raises UserError when it moves."""
    if np.ptp(plate[:, 2:], axis=0).max() > 1:
        raise UserError("The principal point moves during the clip", "give intrinsics with one for all frames")
    x, y = pictures.plate_map.to_grid(plate[:, 2:].mean(axis=0)) - 0.5  # we count from the first pixel's edge
    return float(x), float(y)


def known_part(knowns: Knowns, frames: slice) -> Knowns:
    """What is known of some of the frames."""

    def part(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values[frames]

    return replace(knowns, focal_px=part(knowns.focal_px), camera_from_world=part(knowns.camera_from_world))


def looks_locked(flows: PairFlows) -> bool:
    """Whether most of the picture stays where it is in all pairs: a locked-off camera, or one that hardly moves.

    By the median flow of each tile, in which noise goes, and the median of those, in which movers do.
    """
    height, width = flows.flow.shape[2:]
    step, rows, columns = max(1, width // 256), height // TILES, width // TILES
    for flow in flows.flow.split(64):
        cut = flow[:, :, : rows * TILES, : columns * TILES].float()
        tiles = cut.unflatten(3, (TILES, columns)).unflatten(2, (TILES, rows))[:, :, :, ::step, :, ::step]
        middle = tiles.movedim(4, 3).flatten(4).median(dim=-1).values.norm(dim=1).flatten(1)
        if not bool((middle.median(dim=1).values < STILL_PX * width / 512).all()):
            return False
    return True
