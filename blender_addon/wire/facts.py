"""Facts asked for before a job: what a clip is, and what its reconstruction would take; see docs/protocol.md."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any


@dataclass(frozen=True)
class ClipFacts:
    """A clip as the backend's decoder sees it, upright.

    With `counted`, `frames`, `fps` and `variable_frame_rate` are of the whole file; without, the container's word.
    """

    kind: str  # 'video' or 'images'
    width: int
    height: int
    fps: Fraction
    frames: int  # 0: not known
    rotation: int  # degrees clockwise that were applied
    codec: str
    variable_frame_rate: bool
    counted: bool
    audio: bool
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` takes back."""
        rate = {"fps_num": self.fps.numerator, "fps_den": self.fps.denominator}
        fields = {**asdict(self), **rate, "warnings": list(self.warnings)}
        del fields["fps"]
        return fields

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ClipFacts:
        """Facts from what came over the wire, checked there."""
        rest = {k: v for k, v in data.items() if k not in ("fps_num", "fps_den")}
        return cls(**{**rest, "fps": Fraction(data["fps_num"], data["fps_den"]), "warnings": tuple(data["warnings"])})


@dataclass(frozen=True)
class Estimate:
    """What a job would take on a backend, and what that has free now.

    `gpu_bytes` and `gpu_free` are None without a graphics card in it. `learned` counts the finished jobs that the time
    is corrected by. `problem` says why the job would not end well, and `hint` what to do, both empty when it should;
    `weights` names those that must be got first.
    """

    frames: int  # that are used
    seconds_low: float
    seconds_high: float
    memory_bytes: int
    memory_free: int
    gpu_bytes: int | None = None
    gpu_free: int | None = None
    learned: int = 0
    problem: str = ""
    hint: str = ""
    weights: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `from_json` takes back."""
        fields = {**asdict(self), "weights": list(self.weights)}
        return {k: v for k, v in fields.items() if v is not None}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Estimate:
        """An estimate from what came over the wire, checked there."""
        return cls(**{**data, "weights": tuple(data["weights"])})
