"""What a frame sees of places in the world: whether something is there, or the frame looks right through the place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import max_pool2d

from ..align.start import similarities

#: A place may be off by one pixel in a picture of this width, by more in larger ones.
SLACK_WIDTH = 256
#: How badly points in the camera and in the world may agree, relative to their distance, for a frame to judge places.
AGREED = 0.05
#: Every how many pixels a camera is looked for.
STEP = 8
#: Nearer than this to the plane of the camera, in metres, nothing is seen.
CLOSEST = 1e-3


@dataclass(frozen=True)
class Sight:
    """One frame as a judge of places, all on one device.

    `depth` (H, W), 0 where it is unknown, and there also `nearest` and `farthest` (H, W): the least and the most known
    depth within the slack of each pixel. `camera_from_world` (4, 4) may hold a scale. `lens` (4,): fx, fy, cx, cy in
    pixels.
    """

    depth: torch.Tensor
    nearest: torch.Tensor
    farthest: torch.Tensor
    camera_from_world: torch.Tensor
    lens: torch.Tensor

    @classmethod
    def of(cls, depth: torch.Tensor, camera_from_world: torch.Tensor, lens: torch.Tensor) -> Sight:
        """A frame with `depth` (H, W), which is 0 or not finite where it is unknown."""
        known = torch.where(torch.isfinite(depth) & (depth > CLOSEST), depth, 0.0).float()
        reach = max(1, round(depth.shape[1] / SLACK_WIDTH))
        near = -_highest(torch.where(known > 0, -known, -torch.inf), reach)
        near, far = (torch.where(known > 0, of, 0.0) for of in (near, _highest(known, reach)))
        return cls(known, near, far, camera_from_world.float(), lens.float())

    def look(self, positions: torch.Tensor) -> Look:
        """What the frame says of (..., 3) places of the world."""
        placed = positions.float() @ self.camera_from_world[:3, :3].T + self.camera_from_world[:3, 3]
        z = placed[..., 2]
        in_front = z > CLOSEST
        safe = torch.where(in_front, z, 1.0)
        height, width = self.depth.shape
        x = torch.floor(placed[..., 0] / safe * self.lens[0] + self.lens[2])
        y = torch.floor(placed[..., 1] / safe * self.lens[1] + self.lens[3])
        inside = in_front & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = torch.where(inside, y * width + x, 0.0).long()
        pick = (torch.where(inside, whole.flatten()[at], 0.0) for whole in (self.depth, self.nearest, self.farthest))
        return Look(z, *pick)


@dataclass(frozen=True)
class Look:
    """What a frame says of places: their depth `z` in it, and what it sees there, 0 where it does not know."""

    z: torch.Tensor
    depth: torch.Tensor
    nearest: torch.Tensor
    farthest: torch.Tensor

    def through(self, tolerance: torch.Tensor | float) -> torch.Tensor:
        """(...) bool: the frame sees farther than the place, by more than `tolerance` in the logarithm of depth."""
        return (self.nearest > 0) & (self.clearance() > tolerance)

    def clearance(self) -> torch.Tensor:
        """(...) the logarithm of how much farther than the place the frame sees; 0 where it does not."""
        known = self.nearest > 0
        return torch.where(known, torch.log(self.nearest / torch.where(known, self.z, 1.0)), 0.0).clamp(min=0)

    def visible(self, tolerance: torch.Tensor | float) -> torch.Tensor:
        """(...) bool: nothing hides the place, so that the frame can tell whether something is there."""
        return (self.nearest > 0) & (
            torch.log(self.z.clamp(min=CLOSEST) / self.farthest.clamp(min=CLOSEST)) <= tolerance
        )


def sight_of_points(
    points_camera: torch.Tensor, points_world: torch.Tensor, confidence: torch.Tensor, least: torch.Tensor | float
) -> Sight:
    """The sight of a frame that is known by its points alone: `points_camera` and `points_world` (H, W, 3).

    The camera is the similarity between the two, the lens follows from the points of the camera with the principal
    point in the middle. Pixels of less `confidence` (H, W) than `least` are unknown; all are, where points in the
    camera and in the world do not agree, so that such a frame says nothing.
    """
    height, width = confidence.shape
    lattice = (slice(STEP // 2, None, STEP), slice(STEP // 2, None, STEP))
    camera, world = (points[lattice].reshape(1, -1, 3) for points in (points_camera, points_world))
    finite = (torch.isfinite(camera) & torch.isfinite(world)).all(-1)
    camera, world = (torch.where(finite[..., None], points, 0.0) for points in (camera, world))
    sure = torch.where(confidence[lattice] >= least, confidence[lattice], 0.0).reshape(1, -1) * finite
    scale, rotation, shift, residual = similarities(world, camera, sure, rounds=4)
    camera_from_world = torch.eye(4, dtype=rotation.dtype, device=rotation.device)
    camera_from_world[:3, :3], camera_from_world[:3, 3] = scale[0] * rotation[0], shift[0]
    centre = torch.tensor([width / 2, height / 2], device=confidence.device)
    focal = _focal(points_camera[lattice], centre)
    agreed = (residual[0] < AGREED) & torch.isfinite(focal) & (focal > 0)
    depth = torch.where(agreed & (confidence >= least), points_camera[..., 2], 0.0)
    return Sight.of(depth, torch.nan_to_num(camera_from_world), torch.cat([focal.expand(2), centre]))


def _focal(points: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """() Focal length in pixels: the median of what the lattice's points (h, w, 3) say, without those in the middle."""
    rows, columns = (torch.arange(n, device=points.device) * STEP + STEP // 2 + 0.5 for n in points.shape[:2])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    pixel = torch.stack([x, y], dim=-1) - centre
    z = points[..., 2:]
    ray = points[..., :2] / torch.where(z > CLOSEST, z, torch.nan)
    outer = pixel.square().sum(-1) > (centre.square().sum() / 9)
    said = (pixel * ray).sum(-1) / ray.square().sum(-1)
    return torch.where(outer, said, torch.nan).flatten().nanmedian()


def _highest(values: torch.Tensor, reach: int) -> torch.Tensor:
    """(H, W) the highest value within `reach` pixels in each direction."""
    return max_pool2d(values[None, None], 2 * reach + 1, stride=1, padding=reach)[0, 0]
