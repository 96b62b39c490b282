"""The tables of the job store, and how a file of an older Kinora becomes one of today."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ..wire import UserError

FIRST = """
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
"""

# Times of the wall clock are for display from here on: `number` and `place` order the jobs, `used` ages them.
SECOND = """
ALTER TABLE jobs ADD COLUMN number INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN started INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN used REAL NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN faults TEXT NOT NULL DEFAULT '{}';
UPDATE jobs SET number = row.n FROM (
    SELECT id, ROW_NUMBER() OVER (ORDER BY created, id) AS n FROM jobs) AS row WHERE row.id = jobs.id;
UPDATE jobs SET place = row.n FROM (
    SELECT id, ROW_NUMBER() OVER (ORDER BY queued, id) AS n FROM jobs) AS row WHERE row.id = jobs.id;
UPDATE jobs SET bytes = (SELECT COALESCE(SUM(json_extract(value, '$.size')), 0) FROM json_each(jobs.files));
DROP INDEX jobs_by_state;
ALTER TABLE jobs DROP COLUMN queued;
CREATE INDEX jobs_by_state ON jobs (state, place, owner, priority, resumed, id);
CREATE INDEX jobs_by_owner ON jobs (owner, number);
CREATE INDEX jobs_by_start ON jobs (owner, started);
CREATE TABLE tickets (
    owner TEXT NOT NULL, ticket TEXT NOT NULL, job TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (owner, ticket)
) WITHOUT ROWID;
CREATE INDEX tickets_by_job ON tickets (job, number);
CREATE TABLE clock (believed REAL NOT NULL, wall REAL NOT NULL);
"""

STEPS = (FIRST, SECOND)  # each brings a file one version further
VERSION = len(STEPS)


def open_store(path: Path) -> sqlite3.Connection:
    """The file, ours alone, its tables of today's version. Raises UserError when it cannot be had."""
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    try:
        # Exclusive for as long as the server lives, and freed by the system however it dies: this is the lock
        # that keeps a second server out.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN EXCLUSIVE")
        db.execute("COMMIT")
        current = _bring_up_to_date(db)
    except sqlite3.DatabaseError as error:
        db.close()
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise UserError("A Kinora server runs already on this machine", "use it, or stop it first") from error
        if error.sqlite_errorcode in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            hint = "move it away; results that are done stay in the folder jobs"
            raise UserError(f"The list of jobs {path} is damaged ({error})", hint) from error
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise UserError(f"The disk of {path} is full", "free some space on it") from error
        raise
    if not current:
        db.close()
        raise UserError(f"{path} was written by a newer Kinora", "update the backend")
    return db


def _bring_up_to_date(db: sqlite3.Connection) -> bool:
    """Make the tables what VERSION says, each step whole or not at all; False for a file that is newer than that."""
    version = db.execute("PRAGMA user_version").fetchone()[0]
    for number, step in enumerate(STEPS[version:], version + 1):
        try:
            db.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    return version <= VERSION
