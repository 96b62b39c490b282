"""Whether a frame belongs where it was put, or chance, a small part of it or another place explain it as well."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ..geometry.rigid import rotation_angles_deg
from .pose import Pose, find_pose
from .sightings import Sightings

#: Points that must agree, and in how many of the plate's cells.
LEAST_INLIERS, CELLS, LEAST_CELLS = 15, 8, 4
#: Logarithm (base 10) of how often chance may be expected to agree as well.
CHANCE = -6.0
#: Points must not lie along a line: their narrow side over the plate's diagonal.
NARROW = 0.02
#: A surface that one camera sees is seen by another one from within this angle, in degrees.
SAME_SIDE_DEG = 100.0
#: Another place is as good when so many times as many further points agree with it.
AS_GOOD = 0.6
#: A camera is in another place when it differs by so many degrees, or this share of the points' distance.
ELSEWHERE_DEG, ELSEWHERE = 5.0, 0.1


def seen_from_front(sightings: Sightings, pose: Pose) -> np.ndarray:
    """(M,) bool: points that the camera sees from the side on which the capture's camera saw them."""
    toward = pose.world_from_camera[:3, 3] - sightings.points_world
    toward /= np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-12)
    return (toward * sightings.from_view).sum(axis=1) > np.cos(np.radians(SAME_SIDE_DEG))


def why_not(
    sightings: Sightings, pose: Pose, plate_size: tuple[int, int], max_error_px: float, focal_known: bool, seed: int
) -> str:
    """Why the pose is not believed, as the end of a sentence; empty when it is."""
    agree = pose.inliers
    count, total = int(agree.sum()), len(sightings)
    if count < LEAST_INLIERS:
        return f"only {count} points agree on a camera"
    if chance(count, total, plate_size, max_error_px, focal_known) > CHANCE:
        return f"the {count} of {total} points that agree on a camera may do so by chance"
    if cells(sightings.plate_xy[agree], plate_size) < LEAST_CELLS or narrow(sightings.plate_xy[agree], plate_size):
        return "the points that agree on a camera lie in a small part of the picture"
    if seen_from_front(sightings, pose)[agree].mean() < 0.5:
        return "it would have to be seen from behind, as a mirrored picture is"
    rest = sightings.where(~agree)
    other = find_pose(rest.plate_xy, rest.points_world, pose.intrinsics, max_error_px, seed)
    if other is not None and other.inliers.sum() > AS_GOOD * count and _elsewhere(pose, other, sightings):
        return "it fits two places of the capture equally well"
    return ""


def chance(count: int, total: int, plate_size: tuple[int, int], max_error_px: float, focal_known: bool) -> float:
    """Logarithm (base 10) of how many cameras with that many points in agreement chance would bring.

    The number of false alarms of Moisan and Stival 2004 for points strewn evenly over the plate.
    """
    width, height = plate_size
    least = 3 if focal_known else 4
    share = min(0.5, np.pi * max_error_px**2 / (width * height))
    ways = _log_choose(total, count) + _log_choose(count, least) + np.log(max(total - least, 1))
    return float((ways + (count - least) * np.log(share)) / np.log(10))


def cells(plate_xy: np.ndarray, plate_size: tuple[int, int]) -> int:
    """In how many of 8 x 8 cells of the plate the (M, 2) places are."""
    cell = np.floor(plate_xy / plate_size * CELLS).astype(int).clip(0, CELLS - 1)
    return len(np.unique(cell[:, 1] * CELLS + cell[:, 0]))


def narrow(plate_xy: np.ndarray, plate_size: tuple[int, int]) -> bool:
    """Whether (M, 2) places lie about a line."""
    spread = np.linalg.svd(plate_xy - plate_xy.mean(axis=0), compute_uv=False)[1] / np.sqrt(len(plate_xy))
    return bool(spread < NARROW * np.hypot(*plate_size))


def _elsewhere(pose: Pose, other: Pose, sightings: Sightings) -> bool:
    turn = other.world_from_camera[:3, :3].T @ pose.world_from_camera[:3, :3]
    apart = np.linalg.norm(other.world_from_camera[:3, 3] - pose.world_from_camera[:3, 3])
    away = np.linalg.norm(sightings.points_world[pose.inliers] - pose.world_from_camera[:3, 3], axis=1)
    return bool(rotation_angles_deg(turn) > ELSEWHERE_DEG or apart > ELSEWHERE * np.median(away))


def _log_choose(total: int, count: int) -> float:
    return float(gammaln(total + 1) - gammaln(count + 1) - gammaln(total - count + 1))
