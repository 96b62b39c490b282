"""Which pairs of a capture's frames to ask about its scale: spread over the clip, overlapping, with parallax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry.camera import project, rays, transform
from ..wire import CONFIDENCE_MEASURED, Capture, UserError

#: Of more frames than this, so many evenly taken ones are looked at.
MOST_CANDIDATES = 48
#: Pixels along the longer side at which a frame is looked at.
SAMPLES = 32
#: Least share of a frame's still pixels that the other one must see, and how far their depths may be apart there.
LEAST_OVERLAP, SAME_DEPTH = 0.35, 0.15
#: Parallax in degrees from which more of it says no more, and below which a pair says nothing of the camera's path.
ENOUGH_PARALLAX, LEAST_PARALLAX = 8.0, 1.5


@dataclass(frozen=True)
class Choice:
    """`frames` (F,) of the capture; `pairs` (P, 2) positions in `frames`, i < j; `parallax_deg` (P,) of each pair."""

    frames: np.ndarray
    pairs: np.ndarray
    parallax_deg: np.ndarray


def still(capture: Capture, frame: int) -> np.ndarray:
    """(H, W) bool: pixels of a frame that do not move and whose depth was measured, not filled in."""
    least = max(capture.confidence_default, CONFIDENCE_MEASURED) - 1e-3  # conf.npy is in half precision
    return ~capture.dynamic[frame] & (capture.depth[frame] > 0) & (capture.confidence[frame] >= least)


def choose_pairs(capture: Capture, frames: int) -> Choice:
    """At most `frames` frames and as many pairs of them. Raises UserError where no two frames see the same."""
    measured = [f.registered and not f.interpolated for f in capture.frames]
    candidates = np.flatnonzero(capture.has_camera & measured)
    if len(candidates) < 2:
        raise UserError("The capture has fewer than two frames whose camera was measured", "make a better capture")
    candidates = candidates[
        np.linspace(0, len(candidates) - 1, min(len(candidates), MOST_CANDIDATES)).round().astype(int)
    ]
    overlap, parallax = _relations(capture, candidates)
    worth = np.where(overlap >= LEAST_OVERLAP, overlap * np.clip(parallax / ENOUGH_PARALLAX, 0.05, 1), 0)
    chosen: set[int] = set()
    for anchor in np.linspace(0, len(candidates) - 1, max(1, frames // 2)).round().astype(int):
        partner = int(worth[anchor].argmax())
        if worth[anchor, partner] > 0 and len(chosen | {int(anchor), partner}) <= frames:
            chosen |= {int(anchor), partner}
    if not chosen:
        raise UserError(
            "No two frames of the capture see the same still surface",
            "make a capture with more overlap or fewer movers",
        )
    members = sorted(chosen)
    i, j = np.triu_indices(len(members), 1)
    value = worth[np.ix_(members, members)][i, j]
    best = np.argsort(-value, kind="stable")[:frames]
    best = np.sort(best[value[best] > 0])
    pairs = np.stack([i[best], j[best]], 1)
    return Choice(candidates[members], pairs, parallax[np.ix_(members, members)][pairs[:, 0], pairs[:, 1]])


def _relations(capture: Capture, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, F) overlap of frames, the lesser one of both ways and 0 with themselves, and their parallax in degrees."""
    width, height = capture.processed_size
    step = max(1, max(width, height) // SAMPLES)
    part = np.s_[step // 2 :: step, step // 2 :: step]
    seen = [still(capture, t)[part] for t in frames]
    depths = [np.asarray(capture.depth[t]) for t in frames]
    poses, lenses = capture.world_from_camera[frames], capture.intrinsics[frames]
    points = [
        transform(pose, rays(lens, width, height)[part][ok] * depth[part][ok][:, None])
        for pose, lens, depth, ok in zip(poses, lenses, depths, seen)
    ]
    count = len(frames)
    overlap, parallax = np.zeros((count, count)), np.zeros((count, count))
    for a in range(count):
        for b in range(count):
            if a == b or not len(points[a]):
                continue
            xy, z = project(points[a], lenses[b], poses[b])
            inside = (z > 0) & (xy >= 0).all(1) & (xy < (width, height)).all(1)
            x, y = np.where(inside[:, None], xy, 0).astype(int).T
            there = depths[b][y, x]
            inside &= np.abs(there - z) < SAME_DEPTH * z
            overlap[a, b] = inside.mean()
            if inside.any():
                parallax[a, b] = _median_angle_deg(points[a][inside], poses[a, :3, 3], poses[b, :3, 3])
    return np.minimum(overlap, overlap.T), (parallax + parallax.T) / 2


def _median_angle_deg(points: np.ndarray, centre_a: np.ndarray, centre_b: np.ndarray) -> float:
    """The median angle under which (N, 3) points see two places."""
    a, b = points - centre_a, points - centre_b
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(np.degrees(np.arccos(np.clip(np.median(cosine), -1, 1))))
