"""Which frames of the capture a frame of the plate is matched with: a hint, its last neighbours, or the most alike."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..run import Run
from .classic import ClassicMatcher
from .found import Picture
from .reference import Reference
from .similar import Likeness

#: Frames of the capture that are looked at for likeness; of more, some evenly.
LOOKED_AT = 240
#: Frames beside a hint that are taken along: at these distances, as far as they go.
BESIDE = (0, -1, 1, -2, 2, -4, 4, -8, 8, -16, 16, -32, 32)


class Views:
    """Ranks the capture's frames; `near` is the user's hint, -1 for none."""

    def __init__(self, reference: Reference, classic: ClassicMatcher, near: int, run: Run) -> None:
        self.frames, self._reference, self._classic, self.near = reference.frames, reference, classic, near
        self._likeness: Likeness | None = None
        self._looked = self.frames
        self._run = run

    def look(self, count: int) -> None:
        """Learn to tell the capture's frames apart, unless `count` takes them all."""
        if len(self.frames) <= count:
            return
        picks = np.linspace(0, len(self.frames) - 1, min(LOOKED_AT, len(self.frames)))
        self._looked = self.frames[np.unique(picks.round().astype(int))]
        pictures = [self._reference.picture(int(t)) for t in self._looked]
        self._likeness = Likeness([self._classic.features(p) for p in self._run.steps(pictures)], self._run.seed)

    def ranked(self, plate: Picture, count: int, last: Sequence[int]) -> list[int]:
        """The `count` frames to match with: half of them near those that served the frame before, if there are any.

        `last` are these, the best first.
        """
        chosen = [frame for best in last[:1] for frame in self._beside(best)][: (count + 1) // 2] if last else []
        if not last and self.near >= 0:
            chosen = self._beside(self.near)[:count]
        chosen += [frame for frame in last if frame not in chosen][: max(0, count - len(chosen) - (count + 1) // 3)]
        for frame in self._alike(plate):
            if len(chosen) >= count:
                break
            if frame not in chosen:
                chosen.append(frame)
        return chosen[:count]

    def _beside(self, frame: int) -> list[int]:
        """Usable frames at and about a frame, the nearest first."""
        order = [int(self.frames[np.abs(self.frames - (frame + step)).argmin()]) for step in BESIDE]
        return list(dict.fromkeys(order))

    def _alike(self, plate: Picture) -> list[int]:
        """All that were looked at, the most alike first."""
        if self._likeness is None:
            return [int(t) for t in self._looked]
        order = np.argsort(-self._likeness.to(self._classic.features(plate)), kind="stable")
        return [int(t) for t in self._looked[order]]
