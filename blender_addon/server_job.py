"""ServerJob: a job as the backend lists it, also one of an earlier Blender; and what all of them take of its disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .wire.messages import ENDED


@dataclass(frozen=True)
class ServerJob:
    """One row of the backend's list. Times are Unix seconds; `ended` is 0 while it has not."""

    job: str
    state: str  # one of wire.messages.STATES
    name: str  # of the clip, as it went over the wire
    engine: str
    created: float
    ended: float = 0.0
    position: int = 0  # jobs that come before it
    priority: int = 0  # -9 to 9, the highest first
    pinned: bool = False  # its result is kept until the artist says otherwise
    attempt: int = 1
    bytes: int = 0  # of its result

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> ServerJob:
        """What a row of the reply to `list` says."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__ if name in row})

    @property
    def ended_already(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Usage:
    """What this client's jobs and clips take of the backend's disk, in bytes; without a quota, as much as is free."""

    jobs: int
    bytes: int
    free: int
    quota: int | None = None

    @classmethod
    def from_reply(cls, reply: dict[str, Any]) -> Usage:
        """What the reply to `usage` says."""
        return cls(reply["jobs"], reply["bytes"], reply["free"], reply.get("quota"))


@dataclass(frozen=True)
class Listing:
    """All jobs of this computer's key, the newest first."""

    jobs: tuple[ServerJob, ...]
    usage: Usage | None = None
