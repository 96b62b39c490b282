"""One stage made by several processes, each on a card or a machine of its own: its pieces meet in the memory of stages.

The job itself makes the pieces from the first on, and takes those that it finds made. Helpers run beside it on the same
footage, do nothing but pieces, and begin at the ends of their shares; so they meet, and whichever is lost, the job goes
on alone. A piece is remembered by what it was made from, so the result is that of the job alone, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

#: A clip of fewer frames is not worth the start of a helper, which has to decode it as well.
LEAST_FRAMES = 48


@dataclass(frozen=True)
class Sharing:
    """A process's part in it: the job (`helper` None) or the helper of that number among `helpers`.

    `ask` lets whoever runs the job know that helpers would be of use. Clips below `least_frames` are nobody's but the
    job's own.
    """

    least_frames: int = LEAST_FRAMES
    ask: Callable[[], None] = lambda: None
    helper: int | None = None
    helpers: int = 0

    def order(self, pieces: int) -> list[int]:
        """In which order this process makes the pieces: its own share backwards, then all others backwards."""
        if self.helper is None:
            return list(range(pieces))
        begin, end = (pieces * (self.helper + k) // (self.helpers + 1) for k in (1, 2))
        own = range(begin, end)
        return [*reversed(own), *(piece for piece in reversed(range(pieces)) if piece not in own)]
