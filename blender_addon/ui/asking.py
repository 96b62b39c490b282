"""Questions to the backend: what is this clip, what would this take. Asked once they have stood still."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..wire.settings import JobSettings

if TYPE_CHECKING:
    from ..client import Answered, Client

SETTLE_S = 0.3  # a slider that is being dragged asks nothing
FRESH_S = 120.0  # how much memory is free changes
KEPT = 200


@dataclass(frozen=True)
class WhatClip:
    """What is the clip at `path`? `state` changes with the file."""

    path: Path
    state: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> WhatClip:
        """The question about a file or folder as it is now. Raises OSError when it is gone."""
        about = path.stat()
        return cls(path, (about.st_size, about.st_mtime_ns))

    def ask(self, client: Client) -> str:
        return client.probe(self.path)


@dataclass(frozen=True)
class WhatCost:
    """What would these settings take for a clip of that size (pixels), length and rate?"""

    settings: JobSettings
    width: int
    height: int
    frames: int
    fps: float

    def ask(self, client: Client) -> str:
        return client.estimate(self.settings, self.width, self.height, self.frames, self.fps)


Question = WhatClip | WhatCost


class Asking:
    """What was asked of one backend. Drawing code calls `answer`, the pump `tick` and `take`."""

    def __init__(self) -> None:
        self._wanted: dict[object, tuple[Question, float]] = {}  # with the time since; of costs only the newest
        self._under_way: dict[str, Question] = {}
        self._answers: dict[Question, tuple[Answered, float]] = {}

    @property
    def busy(self) -> bool:
        """A question waits to be asked or answered."""
        return bool(self._wanted or self._under_way)

    def answer(self, question: Question) -> Answered | None:
        """What is known, perhaps a little old; None while nothing is. Asks when need be."""
        known = self._answers.get(question)
        passes = isinstance(question, WhatCost)
        fresh = known is not None and not (passes and time.monotonic() - known[1] > FRESH_S)
        if not fresh and question not in self._under_way.values():
            key = WhatCost if passes else question
            if key not in self._wanted or self._wanted[key][0] != question:
                self._wanted[key] = (question, time.monotonic())
        return known[0] if known else None

    def tick(self, client: Client) -> None:
        """Ask what has stood still."""
        now = time.monotonic()
        for key, (question, since) in list(self._wanted.items()):
            if now - since >= SETTLE_S:
                del self._wanted[key]
                self._under_way[question.ask(client)] = question

    def take(self, event: Answered) -> Question | None:
        """Keep an answer; the question it is to."""
        question = self._under_way.pop(event.ticket, None)
        if question is not None:
            self._answers[question] = (event, time.monotonic())
            while len(self._answers) > KEPT:
                del self._answers[next(iter(self._answers))]
        return question
