"""Points of one picture found again in another, and how the camera moved from one to the other by them.

Pixels are counted from the first one's centre, as OpenCV and the network's family count them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..geometry.rigid import Similarity, invert_poses

#: Side of the patch that is followed, for a picture of 512 pixels across, and the least one.
WINDOW, LEAST_WINDOW = 21, 9
#: A point that misses its start by more than this, followed there and back, is lost.
ROUND_TRIP_PX = 0.5
#: How far a point may be seen from where the camera says, as a share of the picture's width.
REACH = 0.008
#: Points that must agree on a camera, and the share of all of them.
LEAST, LEAST_SHARE = 12, 0.3
#: A depth is not used where the pixels around say another, by this factor.
EDGE = 1.08


@dataclass(frozen=True)
class View:
    """A frame as others are compared with: `grey` (H, W) uint8, z-`depth` (H, W) in any unit, 0 where none is to be
    used, and the lens `focal_px` with its principal point at `centre`."""

    grey: np.ndarray
    depth: np.ndarray
    focal_px: float
    centre: tuple[float, float]

    @property
    def matrix(self) -> np.ndarray:
        """(3, 3) of the lens."""
        (cx, cy), f = self.centre, self.focal_px
        return np.array([[f, 0, cx], [0, f, cy], [0, 0, 1.0]])

    def depth_at(self, xy: np.ndarray) -> np.ndarray:
        """(N,) depth of the pixels nearest to (N, 2); 0 where there is none."""
        height, width = self.depth.shape
        x, y = np.round(xy).astype(int).T
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return np.where(inside, self.depth[y.clip(0, height - 1), x.clip(0, width - 1)], 0.0)

    def points(self, xy: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """(N, 3) in the camera, of pixels (N, 2) at (N,) depth."""
        return np.concatenate([(xy - self.centre) / self.focal_px, np.ones((len(xy), 1))], axis=1) * depth[:, None]


@dataclass(frozen=True)
class Motion:
    """Camera b as camera a's points have it: `b_from_a` (4, 4) in a's unit, the `log_scale` that b's depth must be
    multiplied with to be in a's unit too, which points (N,) are `inliers`, and by how much half of them miss at most.
    """

    b_from_a: np.ndarray
    log_scale: float
    inliers: np.ndarray
    miss_px: float

    @property
    def a_from_b(self) -> Similarity:
        """From points as b has them to camera a, in a's unit."""
        pose = invert_poses(self.b_from_a)
        return Similarity(float(np.exp(self.log_scale)), pose[:3, :3], pose[:3, 3])

    def turned_round(self) -> Motion:
        """From b to a, in b's unit."""
        back = invert_poses(self.b_from_a)
        back[:3, 3] *= np.exp(-self.log_scale)
        return Motion(back, -self.log_scale, self.inliers, self.miss_px)


def view_of(rgb: np.ndarray, depth: np.ndarray, usable: np.ndarray, focal_px: float, centre) -> View:
    """A view of (H, W, 3) uint8 pictures; depth is used where `usable` (H, W) and not at edges of depth."""
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    known = usable & np.isfinite(depth) & (depth > 0)
    d = np.where(known, depth, 0).astype(np.float32)
    box = np.ones((3, 3), np.uint8)
    smooth = cv2.dilate(d, box) < EDGE * cv2.erode(d, box)
    return View(grey, np.where(smooth, d, 0), float(focal_px), centre)


def corners(view: View, count: int) -> np.ndarray:
    """(N, 2) places of a view that can be followed and have a depth, well spread."""
    spacing = 0.6 * np.sqrt(view.grey.size / count)
    mask = (view.depth > 0).astype(np.uint8) * 255
    found = cv2.goodFeaturesToTrack(view.grey, count, 0.005, spacing, mask=mask, blockSize=5)
    return np.zeros((0, 2), np.float32) if found is None else found.reshape(-1, 2)


def follow(a: View, b: View, xy_a: np.ndarray, guess: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where (N, 2) places of `a` are in `b`, and (N,) which were found; near `guess` (N, 2) where there is one."""
    if not len(xy_a):
        return np.zeros((0, 2)), np.zeros(0, bool)
    height, width = a.grey.shape
    side = max(LEAST_WINDOW, round(WINDOW * width / 512) | 1)
    start = xy_a if guess is None else guess
    options = {
        "winSize": (side, side),
        "maxLevel": 3 if guess is None else 1,
        "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
        "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
    }
    xy_a = np.ascontiguousarray(xy_a, np.float32)
    there, found, _ = cv2.calcOpticalFlowPyrLK(a.grey, b.grey, xy_a, np.array(start, np.float32), **options)
    back, home, _ = cv2.calcOpticalFlowPyrLK(b.grey, a.grey, there, xy_a.copy(), **options)
    ok = (found.ravel() > 0) & (home.ravel() > 0) & (np.linalg.norm(back - xy_a, axis=1) < ROUND_TRIP_PX)
    ok &= (there > 1).all(axis=1) & (there < (width - 2, height - 2)).all(axis=1)
    return there.astype(np.float64), ok


def seen_from(view: View, b_from_a: np.ndarray, points_a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) where points (N, 3) of camera a are seen in camera b's `view`, and their (N,) depth there."""
    p = points_a @ b_from_a[:3, :3].T + b_from_a[:3, 3]
    z = np.where(p[:, 2] > 1e-6, p[:, 2], np.nan)
    return p[:, :2] / z[:, None] * view.focal_px + np.array(view.centre), p[:, 2]


def motion(a: View, b: View, xy_a: np.ndarray, xy_b: np.ndarray, reach: float = REACH) -> Motion | None:
    """How the camera moved, by (N, 2) places of `a` and where they are in `b`; None where they do not agree."""
    depth_a = a.depth_at(xy_a)
    points = a.points(xy_a, depth_a)
    known = np.flatnonzero(depth_a > 0)
    found = camera_by_points(points[known], xy_b[known], b.matrix, reach * a.grey.shape[1])
    if found is None:
        return None
    b_from_a, chosen = found
    inliers = np.zeros(len(xy_a), bool)
    inliers[known[chosen]] = True
    xy, z = seen_from(b, b_from_a, points[inliers])
    depth_b = b.depth_at(xy_b[inliers])
    both = depth_b > 0
    if both.sum() < LEAST:
        return None
    log_scale = float(np.median(np.log(z[both] / depth_b[both])))
    return Motion(b_from_a, log_scale, inliers, float(np.median(np.linalg.norm(xy - xy_b[inliers], axis=1))))


def camera_by_points(
    points: np.ndarray, xy: np.ndarray, matrix: np.ndarray, reach_px: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """(4, 4) camera_from_world that sees points (N, 3) at pixels (N, 2), and the indices of those that agree.

    RANSAC with SQPNP, then robust refinement; None where too few agree. The same input has the same answer.
    """
    if len(points) < LEAST:
        return None
    cv2.setRNGSeed(0)
    try:
        found, turn, shift, inliers = cv2.solvePnPRansac(
            np.ascontiguousarray(points, np.float64),
            np.ascontiguousarray(xy, np.float64),
            matrix,
            None,
            iterationsCount=200,
            reprojectionError=reach_px,
            confidence=0.999,
            flags=cv2.SOLVEPNP_SQPNP,
        )
    except cv2.error:  # points that OpenCV cannot work with, such as all in one place
        return None
    if not found or inliers is None:
        return None
    for _ in range(2):
        inside = inliers.ravel()
        if len(inside) < max(LEAST, LEAST_SHARE * len(points)):
            return None
        turn, shift = cv2.solvePnPRefineLM(points[inside].astype(np.float64), xy[inside], matrix, None, turn, shift)
        camera = np.eye(4)
        camera[:3, :3], camera[:3, 3] = cv2.Rodrigues(turn)[0], shift[:, 0]
        p = points @ camera[:3, :3].T + camera[:3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            miss = np.linalg.norm(p @ matrix.T[:, :2] / p[:, 2:] - xy, axis=1)
        inliers = np.flatnonzero((p[:, 2] > 0) & (miss < reach_px))
    if len(inliers) < max(LEAST, LEAST_SHARE * len(points)) or not np.isfinite(camera).all():
        return None
    return camera, inliers
