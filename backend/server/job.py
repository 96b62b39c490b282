"""A job: one row of the store, and the id that the same work always has."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Job:
    """One row. `since` is the number of the event before the first of what was asked for last, `last` the newest's.

    `number` orders all jobs as they came, `place` the owner's queue, `started` all starts. `created` and `ended` are
    for display alone; ages are told by `used`, seconds of the store's own clock, when the job ended or was last
    fetched. `faults` counts the workers that were lost in each stage.
    """

    id: str
    owner: str
    state: str
    spec: dict[str, Any]
    name: str
    engine: str
    created: float
    ended: float | None
    attempt: int
    since: int
    last: int
    files: list[dict[str, Any]]
    number: int
    place: int
    started: int
    resumed: bool
    priority: int
    pinned: bool
    bytes: int
    used: float
    faults: dict[str, int]

    @classmethod
    def of(cls, row: sqlite3.Row) -> Job:
        told = {name: json.loads(row[name]) for name in ("spec", "files", "faults")}
        return cls(**{**dict(row), **told, "pinned": bool(row["pinned"]), "resumed": bool(row["resumed"])})


@dataclass(frozen=True)
class Kept:
    """What retention knows of a job that has ended."""

    id: str
    owner: str
    bytes: int
    used: float
    pinned: bool = False


def job_id(owner: str, sha256: str, masks_sha256: str, settings: bytes, version: str) -> str:
    """The same id for the same work: who asks, the footage, the masks, the settings and the code that computes."""
    parts = [owner.encode(), sha256.encode(), masks_sha256.encode(), settings, version.encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:32]
