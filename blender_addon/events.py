"""Events: what the client tells Blender, as `Client.drain` hands it out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .server_job import Listing
from .wire.facts import ClipFacts, Estimate
from .wire.live import LiveFrame

#: What `Client.probe`, `estimate`, `jobs` and `ask` bring.
Answer: TypeAlias = ClipFacts | Estimate | Listing | dict[str, Any]


@dataclass(frozen=True)
class Event:
    """Something that happened; events of one job carry the ticket that `submit` returned."""


@dataclass(frozen=True)
class Connected(Event):
    """The server answers; `server` is its hello: `server`, `gpu`, `limits`, `instance`, and `same_host`."""

    server: dict[str, Any]


@dataclass(frozen=True)
class Disconnected(Event):
    """The server cannot be reached; the client keeps trying."""

    reason: str
    hint: str


@dataclass(frozen=True)
class JobQueued(Event):
    """The server has the job `job`; `position` jobs come before it."""

    ticket: str
    job: str
    position: int


@dataclass(frozen=True)
class JobProgress(Event):
    """How far the job is; `eta_s` is None when not known. With `total_bytes`, the stage moves data: so many of them."""

    ticket: str
    stage: str
    stage_fraction: float
    fraction: float
    eta_s: float | None
    done_bytes: int = 0
    total_bytes: int = 0
    bytes_per_s: float | None = None
    where: str = ""  # device and machine that it runs on


@dataclass(frozen=True)
class JobFrame(Event):
    """What a running job knows of a frame now; one of a higher `attempt` makes those of lower ones obsolete."""

    ticket: str
    attempt: int
    live: LiveFrame


@dataclass(frozen=True)
class JobLog(Event):
    """A line of the job's log; `level` is 'info', 'warning' or 'retry': it is tried again, or in another way."""

    ticket: str
    level: str
    text: str


@dataclass(frozen=True)
class JobDone(Event):
    """The capture is whole in `folder`."""

    ticket: str
    folder: Path


@dataclass(frozen=True)
class JobFailed(Event):
    """The job ended without a capture; `message` says what happened, `hint` what to do."""

    ticket: str
    message: str
    hint: str


@dataclass(frozen=True)
class JobCancelled(Event):
    """The job was cancelled and left nothing behind."""

    ticket: str


@dataclass(frozen=True)
class Answered(Event):
    """What came of a question to the server; without an answer, `message` says why."""

    ticket: str
    answer: Answer | None
    message: str = ""
    hint: str = ""
