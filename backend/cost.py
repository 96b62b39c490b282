"""What a job costs, as each engine's own `cost` tells it before anything is begun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Footage:
    """What the costs follow from: the plate's size in pixels, and the times (s) of the frames that are used."""

    width: int
    height: int
    times: tuple[float, ...]

    @property
    def frames(self) -> int:
        return len(self.times)

    def megapixels(self, long_side: int) -> float:
        """Millions of pixels of a frame that is shrunk to this long side, never enlarged."""
        scale = min(1.0, long_side / max(self.width, self.height))
        return self.width * self.height * scale**2 / 1e6


@dataclass(frozen=True)
class Cost:
    """Seconds by stage on a machine, true within a factor of `spread`, and the most bytes that are held at a time.

    `gpu_bytes` None: nothing is done on a graphics card. `weights` are the models that must be there.
    """

    stages: Mapping[str, float]
    spread: float
    memory_bytes: int
    gpu_bytes: int | None = None
    weights: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.stages.values())
