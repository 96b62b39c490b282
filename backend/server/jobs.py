"""Jobs: what was asked for and what became of it, in one SQLite file that only the server opens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..wire import messages
from .clock import AgeClock
from .job import Job, Kept
from .schema import open_store
from .turns import Waiting, in_order

TICKETS_MOST = 16  # of one job; the newest are kept


class JobStore:
    """The jobs and their numbered events. Raises sqlite3.Error when the disk is full."""

    def __init__(self, path: Path) -> None:
        self._db = open_store(path)
        clock = self._db.execute("SELECT believed, wall FROM clock").fetchone()
        self._clock = AgeClock(*clock) if clock is not None else AgeClock()
        newest = "SELECT MAX(MAX(number), MAX(place), MAX(started)) FROM jobs"
        self._sequence: int = self._db.execute(newest).fetchone()[0] or 0
        self._order: dict[str, int] | None = None  # what is queued, in order; None: to be found out

    def close(self) -> None:
        self._db.close()

    def now(self) -> float:
        """Time of the store's own clock, in seconds; see clock.py."""
        return self._clock.now()

    def find(self, job: str, owner: str | None = None) -> Job | None:
        """The job, when it is there and is the owner's (None: anybody's)."""
        row = self._db.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        return Job.of(row) if row is not None and owner in (None, row["owner"]) else None

    def find_ticket(self, ticket: str, owner: str) -> Job | None:
        """The job that the owner submitted with this ticket."""
        query = "SELECT job FROM tickets WHERE owner = ? AND ticket = ?"
        row = self._db.execute(query, (owner, ticket)).fetchone()
        return self.find(row["job"], owner) if row is not None else None

    def ticket(self, job: str) -> str:
        """The newest ticket that the job was submitted with, or an empty text."""
        query = "SELECT ticket FROM tickets WHERE job = ? ORDER BY number DESC LIMIT 1"
        row = self._db.execute(query, (job,)).fetchone()
        return row["ticket"] if row is not None else ""

    def submit(
        self, job: str, owner: str, spec: dict[str, Any], name: str, engine: str, priority: int = 0, ticket: str = ""
    ) -> tuple[Job, bool]:
        """The job, queued unless it is under way or done already; and whether it was."""
        before = self.find(job)
        existed = before is not None and before.state in ("queued", "running", "done")
        if existed and not ticket:
            assert before is not None
            return before, True
        with self._queue_transaction():
            if before is None:
                self._db.execute(
                    "INSERT INTO jobs (id, owner, state, spec, name, engine, priority, created, number, place)"
                    " VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?)",
                    (job, owner, json.dumps(spec), name, engine, priority, _wall(), self._next(), self._next()),
                )
            elif not existed:
                # Of what was tried before only the latest is kept: who submits for ever does not fill the disk.
                self._db.execute("DELETE FROM events WHERE job = ? AND n <= ?", (job, before.since))
                self._db.execute(
                    "UPDATE jobs SET state = 'queued', spec = ?, priority = ?, place = ?, ended = NULL, resumed = 0,"
                    " attempt = attempt + 1, since = last, files = '[]', bytes = 0, faults = '{}' WHERE id = ?",
                    (json.dumps(spec), priority, self._next(), job),
                )
            if not existed:
                self._add_event(job, "queued")
            if ticket:
                self._give_ticket(job, owner, ticket)
        after = self.find(job)
        assert after is not None
        return after, existed

    def add_event(self, job: str, kind: str, text: str = "", level: str = "info", hint: str = "") -> None:
        """Append a numbered event to the job's history."""
        with self._transaction():
            self._add_event(job, kind, text, level, hint)

    def start(self, job: str) -> None:
        """The job now runs."""
        with self._queue_transaction():
            query = "UPDATE jobs SET state = 'running', resumed = 0, started = ? WHERE id = ?"
            self._db.execute(query, (self._next(), job))
            self._add_event(job, "started")

    def end(
        self, job: str, state: str, text: str = "", hint: str = "", files: list[dict] | None = None, size: int = 0
    ) -> None:
        """The job is done, failed or cancelled, with its last event in the same transaction.

        `size` is what its folder takes on the disk, in bytes.
        """
        with self._queue_transaction():
            self._db.execute(
                "UPDATE jobs SET state = ?, ended = ?, used = ?, files = ?, bytes = ?, resumed = 0 WHERE id = ?",
                (state, _wall(), self.now(), json.dumps(files or []), size, job),
            )
            self._keep_clock()
            self._add_event(job, state, text, "error" if state == "failed" else "info", hint)

    def requeue(self, job: str, kind: str, text: str, hint: str = "", faults: Mapping[str, int] | None = None) -> None:
        """A job that was interrupted waits again, before all others, with an event of this kind; `faults` if it has."""
        with self._queue_transaction():
            self._db.execute(
                "UPDATE jobs SET state = 'queued', resumed = 1, attempt = attempt + 1, faults = COALESCE(?, faults)"
                " WHERE id = ?",
                (None if faults is None else json.dumps(faults), job),
            )
            self._add_event(job, kind, text, "warning", hint)

    def running(self) -> list[str]:
        """Ids of the jobs that run, by this table."""
        rows = self._db.execute("SELECT id FROM jobs WHERE state = 'running' ORDER BY started")
        return [row["id"] for row in rows]

    def order(self) -> list[str]:
        """Ids of the queued jobs in the order in which they will be started."""
        return list(self._places())

    def position(self, job: Job) -> int:
        """How many jobs come before this one: the queued ones and the running ones; 0 when it does not wait."""
        if job.state != "queued":
            return 0
        running = self._db.execute("SELECT COUNT(*) FROM jobs WHERE state = 'running'").fetchone()[0]
        return running + self._places()[job.id]

    def prioritise(self, job: str, priority: int) -> None:
        """Let the job wait with another priority."""
        with self._queue_transaction():
            self._db.execute("UPDATE jobs SET priority = ?, resumed = 0 WHERE id = ?", (priority, job))

    def reorder(self, job: str, before: str | None) -> None:
        """Put a queued job directly before another of its owner, or behind all of them; the others keep their order.

        It takes the priority of where it goes: order among clients is by that first.
        """
        waiting = {w.id: w for w in self._waiting()}
        mine = [i for i in self.order() if waiting[i].owner == waiting[job].owner and i != job]
        if not mine or before == job:
            return
        at = mine.index(before) if before is not None else len(mine)
        target = waiting[mine[min(at, len(mine) - 1)]]
        mine.insert(at, job)
        tier = [i for i in mine if i == job or _tier(waiting[i]) == _tier(target)]
        places = sorted(waiting[i].place for i in tier)
        with self._queue_transaction():
            query = "UPDATE jobs SET priority = ?, resumed = ?, place = ? WHERE id = ?"
            rows = [(target.priority, target.resumed, place, i) for i, place in zip(tier, places, strict=True)]
            self._db.executemany(query, rows)

    def pin(self, job: str, pinned: bool) -> None:
        """Whether the job is kept for as long as nobody deletes it."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET pinned = ?, used = ? WHERE id = ?", (pinned, self.now(), job))

    def touch(self, job: str, size: int) -> None:
        """The job's result is being used now; its folder takes `size` bytes."""
        with self._transaction():
            self._db.execute("UPDATE jobs SET used = ?, bytes = ? WHERE id = ?", (self.now(), size, job))
            self._keep_clock()

    def kept(self) -> list[Kept]:
        """The jobs that have ended, what was used longest ago first."""
        query = (
            "SELECT id, owner, bytes, used, pinned FROM jobs WHERE state NOT IN ('queued', 'running')"
            " ORDER BY used, number"
        )
        return [Kept(r["id"], r["owner"], r["bytes"], r["used"], bool(r["pinned"])) for r in self._db.execute(query)]

    def usage(self, owner: str) -> tuple[int, int]:
        """How many jobs the owner has, and their bytes on the disk."""
        query = "SELECT COUNT(*), COALESCE(SUM(bytes), 0) FROM jobs WHERE owner = ?"
        count, size = self._db.execute(query, (owner,)).fetchone()
        return count, size

    def pinned_bytes(self, owner: str) -> int:
        """Bytes of the owner's pinned jobs."""
        query = "SELECT COALESCE(SUM(bytes), 0) FROM jobs WHERE owner = ? AND pinned"
        return self._db.execute(query, (owner,)).fetchone()[0]

    def counts(self) -> dict[str, int]:
        """How many jobs there are in each state."""
        counted = self._db.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state")
        return {**dict.fromkeys(messages.STATES, 0), **{row[0]: row[1] for row in counted}}

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
        query = "SELECT * FROM jobs WHERE owner = ? ORDER BY number DESC LIMIT ? OFFSET ?"
        total = self._db.execute("SELECT COUNT(*) FROM jobs WHERE owner = ?", (owner,)).fetchone()[0]
        return [Job.of(row) for row in self._db.execute(query, (owner, most, first))], total

    def delete(self, job: str, attempt: int) -> None:
        """Forget a job that has ended, its events and tickets; not one that was submitted again since `attempt`."""
        known = self.find(job)
        if known is None or known.state not in messages.ENDED or known.attempt != attempt:
            return
        with self._queue_transaction():
            for query in (
                "DELETE FROM events WHERE job = ?",
                "DELETE FROM tickets WHERE job = ?",
                "DELETE FROM jobs WHERE id = ?",
            ):
                self._db.execute(query, (job,))

    def uploads_in_use(self) -> set[str]:
        """Paths of the uploads that the jobs which are not over read."""
        parts = [part for spec in self._specs() for part in (spec.get("clip"), spec.get("masks")) if part]
        return {part["upload"] for part in parts if "upload" in part}

    def referred(self) -> set[str]:
        """Ids of the jobs whose captures the jobs which are not over work on."""
        return {spec["refers_to"] for spec in self._specs() if "refers_to" in spec}

    def keep_clock(self) -> None:
        """Write down what time the store's own clock says, for the next start."""
        with self._transaction():
            self._keep_clock()

    def _specs(self) -> list[dict[str, Any]]:
        """What the jobs which are not over are made of."""
        rows = self._db.execute("SELECT spec FROM jobs WHERE state IN ('queued', 'running')")
        return [json.loads(row["spec"]) for row in rows]

    def _places(self) -> dict[str, int]:
        if self._order is None:
            served = dict(self._db.execute("SELECT owner, MAX(started) FROM jobs GROUP BY owner").fetchall())
            self._order = {job: at for at, job in enumerate(in_order(self._waiting(), served))}
        return self._order

    def _waiting(self) -> list[Waiting]:
        query = "SELECT id, owner, priority, place, resumed FROM jobs WHERE state = 'queued'"
        return [Waiting(*row[:4], bool(row["resumed"])) for row in self._db.execute(query)]

    def _next(self) -> int:
        """A number that is larger than all before it."""
        self._sequence += 1
        return self._sequence

    def _give_ticket(self, job: str, owner: str, ticket: str) -> None:
        query = "INSERT OR IGNORE INTO tickets (owner, ticket, job, number) VALUES (?, ?, ?, ?)"
        self._db.execute(query, (owner, ticket, job, self._next()))
        self._db.execute(
            "DELETE FROM tickets WHERE job = ?1 AND number <="
            " (SELECT number FROM tickets WHERE job = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (job, TICKETS_MOST),
        )

    def _keep_clock(self) -> None:
        self._db.execute("DELETE FROM clock")
        self._db.execute("INSERT INTO clock VALUES (?, ?)", (self.now(), time.time()))

    def _add_event(self, job: str, kind: str, text: str = "", level: str = "info", hint: str = "") -> None:
        self._db.execute("UPDATE jobs SET last = last + 1 WHERE id = ?", (job,))
        self._db.execute(
            "INSERT INTO events SELECT id, last, ?, ?, ?, ?, ? FROM jobs WHERE id = ?",
            (_wall(), kind, level, _cut(text, 4000), _cut(hint, 2000), job),
        )

    @contextmanager
    def _queue_transaction(self) -> Iterator[None]:
        """A transaction after which the order of the queue is to be found out anew."""
        with self._transaction():
            yield
        self._order = None

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


def _wall() -> float:
    """Time of day in Unix seconds, as the protocol can say it: a clock may be set to anything."""
    return min(max(time.time(), 0.0), 1e10)


def _tier(waiting: Waiting) -> tuple[bool, int]:
    return waiting.resumed, waiting.priority


def _cut(text: str, most: int) -> str:
    """Text that fits the protocol's field and that SQLite takes."""
    text = text.encode("utf-8", "replace").decode().replace("\0", " ")
    return text if len(text) <= most else text[: most - 1] + "…"
