"""Jobs: what was asked for and what became of it, in one SQLite file that only the server opens."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..wire import UserError, messages

SCHEMA = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL, name TEXT NOT NULL,
    engine TEXT NOT NULL, created REAL NOT NULL, queued REAL NOT NULL, ended REAL, attempt INTEGER NOT NULL DEFAULT 1,
    since INTEGER NOT NULL DEFAULT 0, last INTEGER NOT NULL DEFAULT 0, files TEXT NOT NULL DEFAULT '[]'
);
CREATE TABLE events (
    job TEXT NOT NULL, n INTEGER NOT NULL, at REAL NOT NULL, kind TEXT NOT NULL, level TEXT NOT NULL,
    text TEXT NOT NULL, hint TEXT NOT NULL, PRIMARY KEY (job, n)
) WITHOUT ROWID;
CREATE INDEX jobs_by_state ON jobs (state, queued);
PRAGMA user_version = 1;
"""


@dataclass(frozen=True)
class Job:
    """One row. `since` is the number of the event before the current attempt's first, `last` that of the newest."""

    id: str
    owner: str
    state: str
    spec: dict[str, Any]
    name: str
    engine: str
    created: float
    queued: float
    ended: float | None
    attempt: int
    since: int
    last: int
    files: list[dict[str, Any]]

    @classmethod
    def of(cls, row: sqlite3.Row) -> Job:
        return cls(**{**dict(row), "spec": json.loads(row["spec"]), "files": json.loads(row["files"])})


def job_id(owner: str, sha256: str, masks_sha256: str, settings: bytes, version: str) -> str:
    """The same id for the same work: who asks, the footage, the masks, the settings and the code that computes."""
    parts = [owner.encode(), sha256.encode(), masks_sha256.encode(), settings, version.encode()]
    return hashlib.sha256(b"\0".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:32]


class JobStore:
    """The jobs and their numbered events. Raises sqlite3.Error when the disk is full."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
        self._db.row_factory = sqlite3.Row
        try:
            # Exclusive for as long as the server lives, and freed by the system however it dies: this is the lock
            # that keeps a second server out.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("BEGIN EXCLUSIVE")
            self._db.execute("COMMIT")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.OperationalError as error:
            self._db.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise UserError("A Kinora server runs already on this machine", "use it, or stop it first") from error
            raise
        if version > 1:
            self._db.close()
            raise UserError(f"{path} was written by a newer Kinora", "update the backend")
        if version == 0:
            self._db.executescript(SCHEMA)

    def close(self) -> None:
        self._db.close()

    def find(self, job: str, owner: str | None = None) -> Job | None:
        """The job, when it is there and is the owner's (None: anybody's)."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        return Job.of(row) if row is not None and owner in (None, row["owner"]) else None

    def submit(self, job: str, owner: str, spec: dict[str, Any], name: str, engine: str) -> tuple[Job, bool]:
        """The job, queued unless it is under way or done already; and whether it was."""
        now = time.time()
        before = self.find(job)
        if before is not None and before.state in ("queued", "running", "done"):
            return before, True
        with self._transaction():
            if before is None:
                self._db.execute(
                    "INSERT INTO jobs (id, owner, state, spec, name, engine, created, queued)"
                    " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?)",
                    (job, owner, json.dumps(spec), name, engine, now, now),
                )
            else:
                self._db.execute(
                    "UPDATE jobs SET state = 'queued', spec = ?, queued = ?, ended = NULL, attempt = attempt + 1,"
                    " since = last, files = '[]' WHERE id = ?",
                    (json.dumps(spec), now, job),
                )
            self._add_event(job, "queued")
        after = self.find(job)
        assert after is not None
        return after, False

    def add_event(self, job: str, kind: str, text: str = "", level: str = "info", hint: str = "") -> None:
        """Append a numbered event to the job's history."""
        with self._transaction():
            self._add_event(job, kind, text, level, hint)

    def start(self, job: str) -> None:
        """The job now runs."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (job,))
            self._add_event(job, "started")

    def end(self, job: str, state: str, text: str = "", hint: str = "", files: list[dict] | None = None) -> None:
        """The job is done, failed or cancelled, with its last event in the same transaction."""
        with self._transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, ended = ?, files = ? WHERE id = ?",
                (state, time.time(), json.dumps(files or []), job),
            )
            self._add_event(job, state, text, "error" if state == "failed" else "info", hint)

    def requeue(self, reason: str) -> None:
        """Jobs that ran when the server ended are queued again, before all others."""
        for row in self._db.execute("SELECT id FROM jobs WHERE state = 'running'").fetchall():
            with self._transaction():
                self._db.execute("UPDATE jobs SET state = 'queued', attempt = attempt + 1 WHERE id = ?", (row["id"],))
                self._add_event(row["id"], "queued", reason, "warning")

    def next_queued(self) -> Job | None:
        """The job that has waited longest."""
        row = self._db.execute("SELECT * FROM jobs WHERE state = 'queued' ORDER BY queued, id LIMIT 1").fetchone()
        return Job.of(row) if row is not None else None

    def position(self, job: Job) -> int:
        """How many jobs come before this one: the queued ones and the running one; 0 when it does not wait."""
        if job.state != "queued":
            return 0
        query = "SELECT COUNT(*) FROM jobs WHERE state = 'running' OR state = 'queued' AND (queued, id) < (?, ?)"
        return self._db.execute(query, (job.queued, job.id)).fetchone()[0]

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        counted = self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {**dict.fromkeys(messages.STATES, 0), **{row[0]: row[1] for row in counted}}

    def ended_before(self, when: float) -> list[str]:
        """Ids of the jobs that ended before this time (Unix seconds)."""
        query = "SELECT id FROM jobs WHERE state NOT IN ('queued', 'running') AND ended < ?"
        return [row["id"] for row in self._db.execute(query, (when,))]

    def queued_by(self, owner: str) -> int:
        """How many jobs of the owner wait."""
        query = "SELECT COUNT(*) FROM jobs WHERE state = 'queued' AND owner = ?"
        return self._db.execute(query, (owner,)).fetchone()[0]

    def events(self, job: str, since: int, most: int = 200) -> list[dict[str, Any]]:
        """The job's events after number `since`, oldest first."""
        query = "SELECT n, at, kind, level, text, hint FROM events WHERE job = ? AND n > ? ORDER BY n LIMIT ?"
        return [dict(row) for row in self._db.execute(query, (job, since, most))]

    def of_owner(self, owner: str, first: int, most: int = 100) -> tuple[list[Job], int]:
        """The owner's jobs from the newest on, and how many there are."""
        query = "SELECT * FROM jobs WHERE owner = ? ORDER BY created DESC LIMIT ? OFFSET ?"
        total = self._db.execute("SELECT COUNT(*) FROM jobs WHERE owner = ?", (owner,)).fetchone()[0]
        return [Job.of(row) for row in self._db.execute(query, (owner, most, first))], total

    def delete(self, job: str) -> None:
        """Forget the job and its events."""
        with self._transaction():
            self._db.execute("DELETE FROM events WHERE job = ?", (job,))
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job,))

    def _add_event(self, job: str, kind: str, text: str = "", level: str = "info", hint: str = "") -> None:
        self._db.execute("UPDATE jobs SET last = last + 1 WHERE id = ?", (job,))
        self._db.execute(
            "INSERT INTO events SELECT id, last, ?, ?, ?, ?, ? FROM jobs WHERE id = ?",
            (time.time(), kind, level, _cut(text, 4000), _cut(hint, 2000), job),
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite may have rolled back by itself, on a full disk
                self._db.execute("ROLLBACK")
            raise


def _cut(text: str, most: int) -> str:
    """Text that fits the protocol's field and that SQLite takes."""
    text = text.encode("utf-8", "replace").decode().replace("\0", " ")
    return text if len(text) <= most else text[: most - 1] + "…"
