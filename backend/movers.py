"""Which mover a moving pixel belongs to: the regions of the motion masks, followed through the clip."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import cv2
import numpy as np

from .classical.flow import Flows, inside, sample
from .geometry.camera import pixel_centres
from .run import Run

#: Regions of a smaller share of the picture are specks: they belong to a mover that is near, or to none.
SMALLEST = 5e-4
#: Parts that are nearer to each other than this share of the width are parts of the same mover.
NEAR = 0.02
#: A mover is in a region when so much of what it was a frame ago went there.
PRESENT = 0.2
#: A part that comes back within so many frames never was a mover of its own.
SHORT_SPLIT = 12
#: A mover may be hidden for so many frames.
HIDDEN = 15
#: It counts as seen whole in frames with this share of its usual area, and its velocity is taken from so many of them.
WHOLE, STEADY = 0.7, 5
#: Where a hidden mover comes out again may be off by this share of its size, and its area by this factor.
ASTRAY, RESIZED = 0.75, 2.5
#: What is there for fewer frames is a flicker of the masks.
SHORTEST = 3
#: Pixels at 512 across by which flow and the flow back may disagree.
MAX_ERROR_PX = 1.5
#: Numbers that a capture has room for.
MOST = 255


@dataclass(frozen=True)
class _Sight:
    """A track in one frame: its area and centroid in pixels, and its flow to the next frame, NaN where not known."""

    area: int
    centre: np.ndarray
    step: np.ndarray


@dataclass
class _Track:
    """A region followed from frame to frame, with what is seen of it in each."""

    parent: int = 0  # the track that it came off, 0 for none
    rejoined: bool = False  # it came back so soon that it was a part of its parent all the time
    seen: dict[int, _Sight] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.seen)

    @property
    def last(self) -> int:
        return max(self.seen)

    def at_end(self, which: int) -> _End:
        """How it is seen in the first (0) or last (-1) frame that shows it whole."""
        usual = np.median([sight.area for sight in self.seen.values()])
        whole = sorted(t for t, sight in self.seen.items() if sight.area >= WHOLE * usual)
        steps = np.array([self.seen[t].step for t in (whole[:STEADY], whole[-STEADY:])[which]])
        known = steps[np.isfinite(steps).all(axis=1)]
        pace = np.median(known, axis=0) if len(known) else np.full(2, np.nan)
        sight = self.seen[whole[which]]
        return _End(whole[which], sight.area, tuple(sight.centre.tolist()), tuple(pace.tolist()))


@dataclass(frozen=True)
class _End:
    """Where a track comes from or goes to: a frame, its area and centroid there, and pixels a frame, NaN if unknown."""

    frame: int
    area: int
    centre: tuple[float, float]
    pace: tuple[float, float]


def number_movers(dynamic: np.ndarray, flows: Flows, run: Run) -> np.ndarray:
    """(T, H, W) uint8: 0 where nothing moves, and one number for the same mover through the clip, the largest first.

    `dynamic` (T, H, W) bool are the motion masks, `flows` those between consecutive frames. A region takes the number
    that flow carries into it; where several movers meet in one region, each keeps the pixels that are carried. Of a
    mover that falls apart the largest part keeps the number. One that is hidden for a few frames is known again by
    where it would be. Specks away from any mover, and flickers, are 0.
    """
    labels = np.zeros(dynamic.shape, np.int32)
    tracks: dict[int, _Track] = {}
    for t in run.steps(len(dynamic)):
        regions = _regions(dynamic[t])
        labels[t] = _labelled(t, regions, labels, flows, tracks)
        _note(t, labels[t], flows, tracks)
    for n, track in tracks.items():
        if track.parent and not track.rejoined and len(track.seen) >= SHORTEST:
            _trace_back(n, labels, flows, tracks)
    names = _joined(tracks)
    return _numbered(labels, dynamic, names, tracks)


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions (H, W) bool of a mask that are no specks, the largest first."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    large = [n for n in range(1, count) if areas[n] >= max(SMALLEST * mask.size, 4)]
    return [parts == n for n in sorted(large, key=lambda n: -areas[n])]


def _carried(t: int, labels: np.ndarray, flows: Flows) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) the labels of frame t - 1 looked up from frame t by flow, and whether the flow is sure of it."""
    width, height = flows.size
    back, error = flows.between(t, t - 1)
    targets = pixel_centres(width, height).astype(np.float32) + back
    sure = inside(targets, width, height) & (error < MAX_ERROR_PX * width / 512)
    return sample(labels[t - 1].astype(np.float32), targets, nearest=True).astype(np.int32), sure


def _labelled(
    t: int, regions: list[np.ndarray], labels_before: np.ndarray, flows: Flows, tracks: dict[int, _Track]
) -> np.ndarray:
    """(H, W) the track of every pixel of the regions of frame t; new tracks are added."""
    labels = np.zeros(labels_before.shape[1:], np.int32)
    near = NEAR * labels.shape[1]
    found, sure = _carried(t, labels_before, flows) if t else (labels.copy(), labels > 0)
    carried = np.where(sure, found, 0)
    new = []
    for region in regions:
        # By what flow is sure of; else by flow; else by what was at the same place.
        hints = (carried, found, labels_before[t - 1]) if t else ()
        present = next(filter(None, (_present(t, hint[region], tracks) for hint in hints)), [])
        if not present:
            new.append(region)
        elif len(present) == 1:
            labels[region] = present[0]
        else:
            labels[region] = _divided(t, region, carried, present, flows)[region]
    for track in np.unique(labels[labels > 0]):
        for part in _fallen_off(labels == track, near):
            labels[part] = _begun(tracks, parent=int(track))
    for region in new:  # a part of what is beside it, or the first of its own
        beside, distance = _nearest(labels)
        reached = np.where(region, distance, np.inf)
        at = np.unravel_index(reached.argmin(), reached.shape)
        labels[region] = beside[at] if reached[at] <= near else _begun(tracks)
    return labels


def _present(t: int, carried: np.ndarray, tracks: dict[int, _Track]) -> list[int]:
    """The tracks that are in a region, by the labels (N,) carried into it, the strongest first."""
    votes = np.bincount(carried, minlength=1)
    votes[0] = 0
    order = [int(n) for n in np.argsort(-votes) if votes[n]]
    present = order[:1] + [n for n in order[1:] if votes[n] >= PRESENT * tracks[n].seen[tracks[n].last].area]
    for n in present:
        tracks[n].rejoined |= tracks[n].parent in present and t - tracks[n].first <= SHORT_SPLIT
    return [n for n in present if not (tracks[n].rejoined and tracks[n].parent in present)]


def _divided(t: int, region: np.ndarray, carried: np.ndarray, present: list[int], flows: Flows) -> np.ndarray:
    """(H, W) each pixel of the region with one of the tracks: the carried one, else the one that moves as it does.

    What comes out from behind another mover was not there to be carried. Where flow cannot tell, the nearest counts.
    """
    known = np.where(region & np.isin(carried, present), carried, 0)
    nearest, _ = _nearest(known)
    if t + 1 < flows.frame_count:
        flow, error = flows.between(t, t + 1)
        limit = MAX_ERROR_PX * region.shape[1] / 512
        off = [np.where(error < limit, _off_its_motion(flow, (known == n) & (error < limit)), np.inf) for n in present]
        best, least = np.array(present)[np.argmin(off, axis=0)], np.min(off, axis=0)
        clear = (known == 0) & (np.sort(off, axis=0)[1] > least + limit) & (least < 2 * limit)
        nearest = np.where(clear, best, nearest)
    votes = [cv2.blur((region & (nearest == n)).astype(np.float32), (5, 5)) for n in present]
    return np.array(present)[np.argmax(votes, axis=0)]


def _off_its_motion(flow: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """(H, W) pixels by which flow (H, W, 2) differs from the affine motion of the pixels `mine` (H, W)."""
    if np.count_nonzero(mine) < 12:
        return np.full(mine.shape, np.inf)
    y, x = np.indices(mine.shape) / mine.shape[1]
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    keep = mine
    for _ in range(2):  # the second time without what does not fit
        motion, *_ = np.linalg.lstsq(terms[keep], flow[keep], rcond=None)
        off = np.linalg.norm(flow - terms @ motion, axis=-1)
        keep = mine & (off <= np.median(off[mine]) * 2 + 0.1)
    return off


def _fallen_off(mask: np.ndarray, near: float) -> list[np.ndarray]:
    """Parts of a track that are too far from its largest part to belong to it."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return []
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    away = cv2.distanceTransform((parts != largest).astype(np.uint8), cv2.DIST_L2, 5)
    least = max(SMALLEST * mask.size, 4)
    found = [parts == n for n in range(1, count) if n != largest and stats[n, cv2.CC_STAT_AREA] >= least]
    return [part for part in found if away[part].min() > near]


def _nearest(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H, W) the label nearest to each pixel and its distance; infinitely far where there is none at all."""
    if not labels.any():
        return labels, np.full(labels.shape, np.inf)
    distance, cell = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_cell = np.zeros(cell.max() + 1, np.int32)
    of_cell[cell[labels > 0]] = labels[labels > 0]
    return of_cell[cell], distance


def _begun(tracks: dict[int, _Track], parent: int = 0) -> int:
    """A new track."""
    tracks[len(tracks) + 1] = _Track(parent)
    return len(tracks)


def _note(t: int, labels: np.ndarray, flows: Flows, tracks: dict[int, _Track]) -> None:
    """Note what is seen of the tracks in the labels (H, W) of frame t."""
    ahead = flows.between(t, t + 1) if t + 1 < flows.frame_count else None
    limit = MAX_ERROR_PX * labels.shape[1] / 512
    for n in np.unique(labels[labels > 0]):
        mask = labels == n
        sure = mask & (ahead[1] < limit) if ahead is not None else np.zeros_like(mask)
        step = np.median(ahead[0][sure], axis=0) if sure.any() else np.full(2, np.nan)
        tracks[int(n)].seen[t] = _Sight(int(mask.sum()), np.argwhere(mask).mean(axis=0)[::-1], step)


def _trace_back(n: int, labels: np.ndarray, flows: Flows, tracks: dict[int, _Track]) -> None:
    """Give a track that came off another what was its own before, as far as flow leads back into it."""
    width, height = flows.size
    xy, parent = pixel_centres(width, height).astype(np.float32), tracks[n].parent
    for t in range(tracks[n].first - 1, -1, -1):
        flow, error = flows.between(t, t + 1)
        there = xy + flow
        theirs = labels[t] == parent
        sure = theirs & inside(there, width, height) & (error < MAX_ERROR_PX * width / 512)
        led = sure & (sample((labels[t + 1] == n).astype(np.uint8), there, nearest=True) > 0)
        votes, voters = (cv2.blur(mask.astype(np.float32), (5, 5)) for mask in (led, sure))
        mine = theirs & (votes > 0.5 * voters)
        if np.count_nonzero(mine) < max(SMALLEST * mine.size, PRESENT * tracks[n].seen[t + 1].area):
            return
        if np.count_nonzero(theirs & ~mine) < PRESENT * np.count_nonzero(mine):
            return  # hardly anything is left for the other: here they were one
        labels[t][mine] = n
        _note(t, labels[t], flows, tracks)


def _joined(tracks: dict[int, _Track]) -> dict[int, int]:
    """Of each track the first one of the same mover, which may have been hidden in between."""
    order = sorted(tracks, key=lambda n: (tracks[n].first, n))
    firsts = [tracks[n].first for n in order]
    end = max((track.last for track in tracks.values()), default=0)
    comes, goes = ({n: tracks[n].at_end(which) for n in order} for which in (0, -1))
    pairs = []
    for a, before in tracks.items():
        span = bisect_left(firsts, max(before.last - HIDDEN, 1)), bisect_right(firsts, before.last + HIDDEN)
        for b in order[slice(*span)] if before.last < end else ():
            if before.first < tracks[b].first:
                off = _astray(goes[a], comes[b])
                if off < ASTRAY:
                    pairs.append((off, a, b))
    follows: dict[int, int] = {}
    taken: set[int] = set()
    for _, a, b in sorted(pairs):
        if b not in follows and a not in taken:
            follows[b] = a
            taken.add(a)
    names = {}
    for n in order:  # parents and what comes before have theirs by then
        part = tracks[n].rejoined or (tracks[n].parent and len(tracks[n].seen) < SHORTEST)
        names[n] = names[tracks[n].parent] if part else names[follows[n]] if n in follows else n
    return names


def _astray(goes: _End, comes: _End) -> float:
    """How far a mover comes from where one that goes would have come, in shares of its size; infinite if too late."""
    frames = comes.frame - goes.frame
    small, large = sorted((goes.area, comes.area))
    if not 0 < frames <= 2 * HIDDEN or large > RESIZED * small:
        return math.inf
    paces = [pace for pace in (goes.pace, comes.pace) if math.isfinite(pace[0])]
    missed = [comes.centre[k] - goes.centre[k] - frames * sum(p[k] for p in paces) / max(len(paces), 1) for k in (0, 1)]
    return math.hypot(*missed) / math.sqrt(small)


def _numbered(labels: np.ndarray, dynamic: np.ndarray, names: dict[int, int], tracks: dict[int, _Track]) -> np.ndarray:
    """(T, H, W) uint8 of tracks (T, H, W): movers by their size, and specks with the mover that they are near to."""
    areas: dict[int, int] = {}
    frames: dict[int, set[int]] = {}
    for n, track in tracks.items():
        areas[names[n]] = areas.get(names[n], 0) + sum(sight.area for sight in track.seen.values())
        frames.setdefault(names[n], set()).update(track.seen)
    lasting = [n for n in areas if len(frames[n]) >= min(SHORTEST, len(labels))]
    order = sorted(lasting, key=lambda n: (-areas[n], n))[:MOST]
    number = {name: k for k, name in enumerate(order, 1)}
    table = np.zeros(len(tracks) + 1, np.uint8)
    for n in tracks:
        table[n] = number.get(names[n], 0)
    objects = table[labels]
    for numbers, mask in zip(objects, dynamic):
        loose = mask & (numbers == 0)
        if loose.any():
            beside, distance = _nearest(numbers.astype(np.int32))
            near = loose & (distance <= NEAR * mask.shape[1])
            numbers[near] = beside[near]
    return objects
