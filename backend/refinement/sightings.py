"""Sightings to refine by: what stands still, followed through the clip at the frame store's resolution."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..classical.tracks import WINDOW, Observations, track_points
from ..clip import Clip
from ..run import Run
from ..wire import Capture

#: Tracks sighted inside a mask more often than this are a mover's, and dropped whole.
MOVER_SHARE = 0.25
#: Sightings that a track needs: two place a point, and each further one tests it.
SHORTEST = 3


@dataclass(frozen=True)
class Static:
    """M sightings, in plate pixels, of N still points; `depth` (M,) is the engine's there, 0 where it has none.

    Tracks are numbered from 0 without gaps.
    """

    seen: Observations
    depth: np.ndarray

    @property
    def track_count(self) -> int:
        return int(self.seen.track.max(initial=-1)) + 1

    def where(self, keep: np.ndarray) -> Static:
        """The sightings for which `keep` (M,) is true, of tracks that keep enough of them, numbered anew."""
        keep = keep & (np.bincount(self.seen.track, keep, self.track_count)[self.seen.track] >= SHORTEST)
        seen = self.seen.where(keep)
        _, track = np.unique(seen.track, return_inverse=True)
        return Static(replace(seen, track=track), self.depth[keep])

    def per_frame(self, frame_count: int) -> np.ndarray:
        """(T,) sightings on every frame."""
        return np.bincount(self.seen.frame, minlength=frame_count)


def still_sightings(capture: Capture, clip: Clip, per_frame: int, run: Run) -> Static:
    """Tracks of `per_frame` points a frame without what was sighted in or beside a motion mask.

    A track that is masked often is dropped whole. Frames without a camera take no part.
    """
    made_from = {"frames": clip.frames, "per_frame": per_frame}
    found = run.remember("Still points", made_from, lambda: track_points(clip.frames, per_frame, run), (Observations,))
    found = replace(found, xy=clip.store_map.to_plate(found.xy))
    reach = WINDOW / 2 / np.array([clip.store_map.sx, clip.store_map.sy])  # plate pixels that the tracker looks at
    masked = _masked(capture, found, reach)
    share = np.bincount(found.track, masked) / np.maximum(np.bincount(found.track), 1)
    known = capture.has_camera & np.isfinite(capture.intrinsics).all(axis=1)
    keep = ~masked & (share[found.track] < MOVER_SHARE) & known[found.frame]
    return Static(found, _engine_depth(capture, found)).where(keep)


def _masked(capture: Capture, seen: Observations, reach: np.ndarray) -> np.ndarray:
    """(M,) bool: sightings within `reach` (x, y) plate pixels of something that moves."""
    if capture.plate_masks is not None:
        masks, xy = capture.plate_masks, seen.xy
    else:
        masks, xy = capture.dynamic, capture.plate_map.to_grid(seen.xy)
        reach = reach * (capture.plate_map.sx, capture.plate_map.sy)
    height, width = masks.shape[1:]
    x, y = np.floor(xy).astype(int).T
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    near = np.ones(2 * np.ceil(reach[::-1]).astype(int) + 1, np.uint8)
    out = np.zeros(len(seen), bool)
    for t in np.unique(seen.frame):
        here = seen.frame == t
        if masks[t].any():
            grown = cv2.dilate(np.asarray(masks[t]).astype(np.uint8), near)
            out[here] = grown[y[here], x[here]] > 0
    return out


def _engine_depth(capture: Capture, seen: Observations) -> np.ndarray:
    """(M,) the engine's depth where points were sighted, 0 where it has none or where the sighting is off its grid."""
    width, height = capture.processed_size
    x, y = np.floor(capture.plate_map.to_grid(seen.xy)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    depth = np.asarray(capture.depth)[seen.frame, y.clip(0, height - 1), x.clip(0, width - 1)]
    return np.where(inside & np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float64)
