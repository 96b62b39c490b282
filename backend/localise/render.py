"""The capture's points as a new camera sees them: depth where something was measured, and nothing elsewhere."""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from ..geometry.camera import project, unproject
from .reference import Reference

#: Another frame's point counts only where nothing is yet, or where it is nearer than what is there by this factor.
NEARER = 0.95
#: Largest patch that a point covers, in pixels of the new picture.
LARGEST = 9
#: What a patch's pixels count as farther away, for each pixel from its middle.
RIM = 1e-3


def render(
    reference: Reference,
    frames: list[int],
    world_from_camera: np.ndarray,
    intrinsics: np.ndarray,
    size: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) float32 z-depth and confidence of a camera; 0 where no point of these frames is seen.

    `frames` of the capture, those that see most like the camera first: later ones fill in what they leave open.
    """
    width, height = size
    depth, confidence = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for frame in frames:
        z, sure = _one(reference, frame, world_from_camera, intrinsics, size)
        # What is in front of the rest is a surface, and no speck or outline.
        front = ((z > 0) & (z < NEARER * depth)).astype(np.uint8)
        front = cv2.morphologyEx(front, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
        take = ((z > 0) & (depth == 0)) | front
        depth[take], confidence[take] = z[take], sure[take]
    return depth, confidence


def _one(
    reference: Reference, frame: int, world_from_camera: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One frame's points, the nearest wherever several fall; each as large as the pixel that it comes from."""
    capture = reference.capture
    width, height = size
    known = reference.known(frame)
    there, lens = capture.world_from_camera[frame], capture.intrinsics[frame]
    own_depth = np.asarray(capture.depth[frame], np.float64)
    points = unproject(own_depth, lens, there)[known]
    xy, z = project(points, intrinsics, world_from_camera)
    sure = np.asarray(capture.confidence[frame], np.float32)[known]
    near = z > 1e-6 * max(float(np.median(own_depth[known])), 1e-9)
    inside = near & (xy > -LARGEST).all(axis=1) & (xy < np.array([width, height]) + LARGEST).all(axis=1)
    # Surfaces that this frame saw from one side are not seen from the other.
    centre = world_from_camera[:3, 3]
    inside &= ((points - centre) * (points - there[:3, 3])).sum(axis=1) > 0
    xy, z, sure = xy[inside], z[inside], sure[inside]
    side = own_depth[known][inside] / lens[0] * intrinsics[0] / z  # of its pixel, in new pixels
    reach = np.ceil((side - 1.001) / 2).clip(0, LARGEST // 2).astype(int)
    # What is nearest in a pixel, with which point it is: the bits of a positive number are in the numbers' order.
    nearest = np.full(height * width, np.iinfo(np.int64).max)
    column, row = np.floor(xy).astype(int).T
    for ring in range(int(reach.max(initial=0)) + 1):
        wide = np.flatnonzero(reach >= ring)
        # A patch's rim yields to what another point says of its own middle.
        cost = (z[wide] * (1 + RIM * ring)).astype(np.float32).view(np.int32).astype(np.int64) << 32 | wide
        for dy, dx in product(range(-ring, ring + 1), repeat=2):
            if max(abs(dx), abs(dy)) == ring:
                x, y = column[wide] + dx, row[wide] + dy
                inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
                np.minimum.at(nearest, (y * width + x)[inside], cost[inside])
    seen = nearest < np.iinfo(np.int64).max
    of = nearest[seen] & 0xFFFFFFFF
    depth, confidence = np.zeros(height * width, np.float32), np.zeros(height * width, np.float32)
    depth[seen], confidence[seen] = z[of], sure[of]
    return depth.reshape(height, width), confidence.reshape(height, width)
