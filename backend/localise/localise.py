"""Localising a plate: each frame matched with frames of the capture, placed, judged, and all of them fitted together.

It reads as the method goes: matches -> the focal length, from several frames where it is not known -> a pose for every
frame, or a reason why not -> one fit of all poses and the lens -> frames that jump are told, gaps are filled in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..run import Run
from ..wire import LocaliseSettings, UserError
from .found import Found, Matcher, Picture
from .pose import Pose, errors_px, find_pose
from .reference import Reference
from .refine import Fit, refine
from .sightings import Sightings, joined
from .track import jumps
from .verdict import seen_from_front, why_not
from .views import Views

log = logging.getLogger(__name__)

#: Matches of a frame are kept for later jobs when they took longer than this.
KEPT_FROM_S = 2.0
#: Most sightings of a frame that are used; of more, some at random.
MOST = 20_000
#: Share of the plate's diagonal that a point may be off.
MAX_ERROR = 0.006
#: The limit by which sightings are told to agree is so many times as wide, fit by fit.
WIDE = (2.0, 2.0, 1.0)
#: Frames that an unknown focal length is first taken from.
FOCAL_FRAMES = 9
#: A focal length is guessed as this many times the plate's longer side, where a number is needed before one is known.
GUESS = 1.1
#: A camera whose place is uncertain by more than this share of the points' distance is marked.
UNSURE = 0.02


@dataclass(frozen=True)
class Plate:
    """What is to be localised: `picture(t)` of each of T frames, and how its pixels map to the plate's of `size`.

    `to_plate` takes (M, 2) pixels of a picture; `mask(t)` (H, W) bool is True where the picture moves, or None.
    `intrinsics` (T, 4) fx fy cx cy of the plate; without `focal_known` their focal lengths mean nothing. `times` (T,)
    are in seconds.
    """

    picture: Callable[[int], Picture]
    mask: Callable[[int], np.ndarray | None]
    to_plate: Callable[[np.ndarray], np.ndarray]
    size: tuple[int, int]
    intrinsics: np.ndarray
    focal_known: bool
    times: np.ndarray

    @property
    def frame_count(self) -> int:
        return len(self.times)

    @property
    def diagonal(self) -> float:
        return float(np.hypot(*self.size))


@dataclass(frozen=True)
class Placed:
    """One frame: its `pose`, or `why` there is none. `compared` are the capture's frames, `spread` as in refine.Fit."""

    sightings: Sightings
    compared: tuple[int, ...]
    pose: Pose | None
    why: str = ""
    spread: np.ndarray = field(default_factory=lambda: np.full(6, np.nan))
    jumps: bool = False

    @property
    def errors_px(self) -> np.ndarray:
        """Reprojection errors of the sightings that agree, in plate pixels."""
        if self.pose is None:
            return np.zeros(0)
        agree = self.sightings.where(self.pose.inliers)
        return errors_px(agree.plate_xy, agree.points_world, self.pose.intrinsics, self.pose.world_from_camera)

    @property
    def served(self) -> list[int]:
        """The capture's frames whose points agree, those with most first."""
        if self.pose is None:
            return []
        count = np.bincount(self.sightings.view[self.pose.inliers])
        return [int(frame) for frame in np.argsort(-count, kind="stable") if count[frame]]

    @property
    def unsure(self) -> bool:
        """Whether the camera's place is not well held by the points."""
        if self.pose is None:
            return False
        away = self.sightings.points_world[self.pose.inliers] - self.pose.world_from_camera[:3, 3]
        return bool(self.spread[3:].max() > UNSURE * np.median(np.linalg.norm(away, axis=1)))


@dataclass(frozen=True)
class Localised:
    """All frames, and the standard deviation of a focal length found for all of them, as a fraction (0: known)."""

    frames: tuple[Placed, ...]
    focal_spread: float


class Localiser:
    """Localises the frames of one plate in one capture. `shown` is told of every pose as soon as it is known."""

    def __init__(
        self,
        plate: Plate,
        reference: Reference,
        matcher: Matcher,
        views: Views,
        options: LocaliseSettings,
        run: Run,
        shown: Callable[[int, Placed], None] = lambda t, placed: None,
    ) -> None:
        self.plate, self.reference, self.matcher, self.views = plate, reference, matcher, views
        self.options, self.run, self.shown = options, run, shown
        self.max_error_px = options.max_error_px or MAX_ERROR * plate.diagonal
        self._matched: dict[tuple[int, int], Sightings] = {}

    def localise(self) -> Localised:
        """Every frame placed or refused. Raises UserError, in a sentence, when none belongs."""
        plate, each = self.plate, self.options.zoom and not self.plate.focal_known
        with self.run.stage("Matching the plate"):
            lens = plate.intrinsics if plate.focal_known or each else self._first_lens()
            frames: list[Placed] = []
            for t in self.run.steps(plate.frame_count):
                last = frames[-1].served[: self.options.compare] if frames else ()
                frames.append(self._place(t, lens[t], plate.focal_known or not each, last))
                self._matched = {key: s for key, s in self._matched.items() if key[0] != t}  # needed no more
        with self.run.stage("Fitting the cameras"):
            if not any(f.pose for f in frames):
                raise _refusal(frames)
            frames, focal_spread = self._fit(frames, each)
            if not any(f.pose for f in frames):
                raise _refusal(frames)
            marked = jumps([f.sightings for f in frames], [f.pose for f in frames], plate.times, self.max_error_px)
        return Localised(tuple(replace(f, jumps=bool(j)) for f, j in zip(frames, marked)), focal_spread)

    def _first_lens(self) -> np.ndarray:
        """(T, 4) intrinsics with the median focal length of some frames that are placed without one.

        Where none can be placed, a guess: placing the frames then says why.
        """
        plate = self.plate
        some = np.unique(
            np.linspace(0, plate.frame_count - 1, min(FOCAL_FRAMES, plate.frame_count)).round().astype(int)
        )
        found = [placed.pose for placed in (self._place(int(t), self._guess(t), False) for t in some) if placed.pose]
        if not found:
            return np.array([self._guess(t) for t in range(plate.frame_count)])
        counts = np.array([p.inliers.sum() for p in found], float)
        focal = np.array([p.intrinsics[0] for p in found])
        order = np.argsort(focal)
        middle = order[np.searchsorted(np.cumsum(counts[order]), counts.sum() / 2)]
        log.info("Focal length %.1f px from %d frames, %.1f to %.1f", focal[middle], len(focal), *focal[order][[0, -1]])
        lens = np.array(plate.intrinsics)
        lens[:, :2] = focal[middle]
        return lens

    def _guess(self, t: int) -> np.ndarray:
        focal = GUESS * max(self.plate.size)
        return np.array([focal, focal, *self.plate.intrinsics[t, 2:]])

    def _place(self, t: int, lens: np.ndarray, focal_known: bool, last: Sequence[int] = ()) -> Placed:
        """One frame, from its own sightings alone; with twice as many frames of the capture where it needs them.

        `last` are the capture's frames that served the frame before, the best first.
        """
        picture, count = self.plate.picture(t), self.options.compare
        lens = lens if focal_known else self._guess(t)
        placed = None
        for more in (1, 2):
            compared = tuple(self.views.ranked(picture, more * count, last))
            if placed is not None and len(compared) == len(placed.compared):
                break
            sightings = self._capped(joined(self._sightings(t, compared)), t)
            placed = self._judged(Placed(sightings, compared, None), lens, focal_known)
            if placed.pose is not None:
                self.shown(t, placed)
                break
        return placed

    def _judged(self, placed: Placed, lens: np.ndarray, focal_known: bool) -> Placed:
        s, error, seed = placed.sightings, self.max_error_px, self.run.seed
        pose = find_pose(s.plate_xy, s.points_world, lens, error, seed, focal_known)
        if pose is None:
            return replace(placed, why=f"its {len(s)} matches agree on no camera")
        # From here on only what can be seen from there.
        why = why_not(s, pose, self.plate.size, error, focal_known, seed)
        if why:
            return replace(placed, why=why)
        return replace(placed, pose=replace(pose, inliers=pose.inliers & seen_from_front(s, pose)))

    def _sightings(self, t: int, frames: Sequence[int]) -> list[Sightings]:
        """What frame `t` of the plate sees of the points of frames of the capture."""
        missing = [frame for frame in frames if (t, frame) not in self._matched]
        if missing:
            picture, views = self.plate.picture(t), [self.reference.picture(frame) for frame in missing]
            known = [self.reference.known(frame) for frame in missing]
            content = self.run.content
            made_from = {
                "matcher": self.matcher.made_from,
                "plate": content(picture.rgb),
                "views": [(content(view.rgb), content(here)) for view, here in zip(views, known)],
            }

            def match() -> list[Found]:
                found = []
                for view, here in zip(views, known):
                    self.run.check()
                    found.append(self.matcher.match(picture, view, here))
                return found

            matched = self.run.remember("Plate matches", made_from, match, (Found,), KEPT_FROM_S)
            self._matched |= {(t, frame): self._seen(t, frame, f) for frame, f in zip(missing, matched)}
        return [self._matched[t, frame] for frame in frames]

    def _seen(self, t: int, frame: int, found: Found) -> Sightings:
        """The matches that neither a mask nor a missing depth takes away, with the points that they are of."""
        mask = self.plate.mask(t)
        if mask is not None and len(found):
            x, y = np.floor(found.plate_xy).astype(int).T
            found = found.where(~mask[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)])
        points, known = self.reference.points(frame, found.map_xy)
        found, points = found.where(known), points[known]
        toward = self.reference.capture.world_from_camera[frame, :3, 3] - points
        toward /= np.maximum(np.linalg.norm(toward, axis=1, keepdims=True), 1e-12)
        return Sightings(
            plate_xy=self.plate.to_plate(found.plate_xy),
            points_world=points,
            view=np.full(len(found), frame),
            map_xy=found.map_xy,
            from_view=toward,
        )

    def _capped(self, sightings: Sightings, t: int) -> Sightings:
        if len(sightings) <= MOST:
            return sightings
        rng = np.random.default_rng([self.run.seed, t])
        return sightings.where(np.sort(rng.permutation(len(sightings))[:MOST]))

    def _fit(self, frames: Sequence[Placed], each: bool) -> tuple[list[Placed], float]:
        """The frames with poses fitted: together where they share an unknown lens, else each by itself."""
        good = [t for t, f in enumerate(frames) if f.pose is not None]
        free = not self.plate.focal_known
        groups = [good] if free and not each else [[t] for t in good]
        fitted, spreads = list(frames), []
        for group in groups:
            self.run.check()
            fit = self._settled([frames[t] for t in group], free)
            spreads.append(fit.focal_spread)
            for t, pose, spread in zip(group, fit.poses, fit.spread):
                moved = replace(frames[t], pose=pose, spread=spread)
                why = why_not(moved.sightings, pose, self.plate.size, self.max_error_px, not free, self.run.seed)
                fitted[t] = replace(moved, pose=None, why=why) if why else moved
        return fitted, float(np.median(spreads)) if each else max(spreads)

    def _settled(self, frames: Sequence[Placed], free: bool) -> Fit:
        """The fit of some frames; what agrees is told anew each time, by a wider limit first."""
        sightings, poses = [f.sightings for f in frames], [f.pose for f in frames]
        for wide in WIDE:
            fit = refine(sightings, poses, wide * self.max_error_px, free)
            poses = [replace(p, inliers=p.inliers & seen_from_front(s, p)) for s, p in zip(sightings, fit.poses)]
        return replace(fit, poses=poses)


def _refusal(frames: Sequence[Placed]) -> UserError:
    """Why no frame was placed: what most of them say."""
    reasons = [f.why for f in frames]
    why = max(dict.fromkeys(reasons), key=reasons.count)
    return UserError(
        f"The plate does not seem to belong to this capture: {why}",
        "choose a plate of the same set, from a view not too far from the capture's, or give a near frame",
    )
