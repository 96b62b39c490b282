"""What every request is answered from: the session that asks, and the parts of the server that know."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .asides import Asides
from .job import Job
from .job_folder import folder_bytes
from .jobs import JobStore
from .refusal import Refusal
from .retention import Keeping
from .scheduler import Scheduler
from .trash import Trash
from .uploads import Uploads

log = logging.getLogger(__name__)

PAGE_BYTES = 48 * 1024  # of a list in one reply: leaves room in the header
TOUCH_S = 60.0  # a result that is being fetched is marked as used this often
Fields = dict[str, Any]
Reply = tuple[Fields, list[bytes]]


@dataclass
class Session:
    """One client connection, from its hello until it falls silent. `owner` is its public key."""

    owner: str
    local: bool  # it has the key of this machine's connection file
    version: int = 0  # 0: no hello yet
    same_host: bool = False
    nonce: str = ""
    proof: Path | None = None
    heard: float = field(default_factory=time.monotonic)

    def forget_proof(self) -> None:
        """Remove the nonce file; it proves once or not at all."""
        if self.proof is not None:
            self.proof.unlink(missing_ok=True)
        self.proof, self.nonce = None, ""


@dataclass
class Server:
    """The parts that answers are made from."""

    store: JobStore
    scheduler: Scheduler
    uploads: Uploads
    asides: Asides
    jobs_folder: Path
    code_version: str
    trash: Trash
    keeping: Keeping = field(default_factory=Keeping)
    touched: dict[str, float] = field(default_factory=dict)  # job -> when its use was written down

    def job(self, session: Session, header: Fields) -> Job:
        """The job that the request names, when it is the client's own. Raises Refusal otherwise."""
        job = self.store.find(header["job"], session.owner)
        if job is None:
            raise Refusal("no_such_job", "The backend does not know this job", "send it again")
        return job

    def done(self, session: Session, header: Fields) -> Job:
        """The same, once it has a result, which is now being used."""
        job = self.job(session, header)
        if job.state != "done":
            raise Refusal("not_done", "The job has no result")
        now = time.monotonic()
        if now - self.touched.get(job.id, -TOUCH_S) >= TOUCH_S:
            self.touched = {j: at for j, at in self.touched.items() if now - at < TOUCH_S} | {job.id: now}
            try:
                self.store.touch(job.id, folder_bytes(self.scheduler.folder(job.id)))
            except (sqlite3.Error, OSError) as error:  # a full disk does not stand in the way of fetching
                log.warning("the use of job %s is not written down: %s", job.id, error)
        return job

    def forget(self, job: Job) -> None:
        """Remove a job that has ended: its files first, so that a full disk does not keep itself full.

        Raises OSError when they are in use (on Windows).
        """
        self.trash.take(self.scheduler.folder(job.id))
        self.scheduler.record(lambda: self.store.delete(job.id, job.attempt))

    def free_bytes(self) -> int:
        """How much of the disk that holds the jobs is free."""
        return shutil.disk_usage(self.jobs_folder).free


def page(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many rows as fit in one reply."""
    kept, size = [], 0
    for row in rows[:1000]:
        size += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")) + 1
        if size > PAGE_BYTES and kept:
            break
        kept.append(row)
    return kept
