"""Requests about jobs: submit, find, look, order, keep, cancel, forget."""

from __future__ import annotations

import zlib

from ..wire import JobSettings, messages
from .answering import Fields, Reply, Server, Session, page
from .job import Job, job_id
from .job_folder import LIVE
from .live import read_live
from .references import referred
from .refusal import Refusal
from .transfer_requests import TransferRequests

QUEUED_MAX = 64
JOBS_MAX = 2000  # of one client, ended ones included


class JobRequests:
    """One method for each request, named as it."""

    def __init__(self, server: Server, transfers: TransferRequests) -> None:
        self._server, self._transfers = server, transfers

    def submit(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        if not self._server.scheduler.accepting:
            raise Refusal("stopping", "The backend is shutting down", "start it again")
        settings, store, ticket = (
            JobSettings.from_json(header["settings"]),
            self._server.store,
            header.get("ticket", ""),
        )
        masks_sha256 = header.get("masks_sha256", "")
        job = job_id(session.owner, header["sha256"], masks_sha256, settings.canonical(), self._server.code_version)
        asked_before = store.find_ticket(ticket, session.owner) if ticket else None
        row = asked_before or store.find(job)
        if row is not None and row.state == "done" and not self._server.scheduler.has_capture(row):
            store.end(row.id, "failed", "The result is gone from the backend's disk, or damaged", "send the clip again")
            row, asked_before = store.find(row.id), None
        if asked_before is not None or (row is not None and row.id != job):
            existed = True
        elif row is not None and row.state not in ("failed", "cancelled"):
            row, existed = store.submit(job, session.owner, {}, header["name"], settings.engine, ticket=ticket)
        else:
            self._check_limits(session.owner, new=row is None)
            reference = referred(self._server, session, settings)
            clip = self._transfers.footage(session, header, "", header["kind"], header["name"])
            masks = self._transfers.footage(session, header, "masks_", "folder", "masks") if masks_sha256 else None
            size = header["size"] + header.get("masks_size", 0)
            spec = {"clip": clip, "masks": masks, "settings": settings.to_json(), "footage_bytes": size}
            spec |= {"refers_to": reference} if reference else {}
            priority = header.get("priority", 0)
            row, existed = store.submit(job, session.owner, spec, header["name"], settings.engine, priority, ticket)
        fields = {"job": row.id, "existed": existed, "state": row.state, "since": row.since}
        return {**fields, "position": store.position(row)}

    def find(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.store.find_ticket(header["ticket"], session.owner)
        if job is None:
            raise Refusal("no_such_job", "The backend does not know this ticket", "send the clip again")
        return {"job": job.id, "state": job.state, "since": job.since, "last": job.last}

    def status(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        return self._server.scheduler.status(self._server.job(session, header))

    def events(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        events = page(self._server.store.events(job.id, header["since"]))
        return {"events": events, "last": job.last, "state": job.state, "position": self._server.store.position(job)}

    def list(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        jobs, total = self._server.store.of_owner(session.owner, header["first"])
        return {"jobs": page([self._row(job) for job in jobs]), "total": total}

    def live(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        shown = self._server.scheduler.live(job)
        new = [{"n": n, "frame": frame} for n, frame in shown if n > header["since"]]
        return {"attempt": job.attempt, "last": shown[-1][0] if shown else 0, "frames": page(new)}

    def live_get(self, session: Session, header: Fields, _: list[bytes]) -> Reply:
        data = read_live(self._server.scheduler.folder(self._server.job(session, header).id) / LIVE, header["frame"])
        if data is None:
            raise Refusal("no_such_file", f"The job shows no frame {header['frame']}")
        return {"crc": zlib.crc32(data)}, [data]

    def prioritise(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        if job.state in messages.ENDED:
            raise Refusal("not_queued", "The job is over")
        self._server.store.prioritise(job.id, header["priority"])
        return {"priority": header["priority"], "position": self._moved(session, header)}

    def reorder(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job, before = self._server.job(session, header), header.get("before")
        other = job if before is None else self._server.job(session, {"job": before})
        if {job.state, other.state} != {"queued"}:
            raise Refusal("not_queued", "Only jobs that wait can be put in another order")
        self._server.store.reorder(job.id, before)
        return {"position": self._moved(session, header)}

    def pin(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job, quota = self._server.job(session, header), self._server.keeping.quota_bytes
        held = self._server.store.pinned_bytes(session.owner) + (0 if job.pinned else job.bytes)
        if header["pinned"] and quota is not None and held > quota:
            raise Refusal("quota", "Your pinned jobs would take more room than you have", "unpin or delete others")
        self._server.store.pin(job.id, header["pinned"])
        return {"pinned": header["pinned"]}

    def usage(self, session: Session, _: Fields, __: list[bytes]) -> Fields:
        jobs, size = self._server.store.usage(session.owner)
        quota = self._server.keeping.quota_bytes
        limit = {} if quota is None else {"quota": quota}
        return {"jobs": jobs, "bytes": size, "free": self._server.free_bytes(), **limit}

    def cancel(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        if job.state not in messages.ENDED:
            self._server.scheduler.cancel(job)
        return {"state": self._server.job(session, header).state}

    def delete(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        if job.state not in messages.ENDED:
            raise Refusal("busy", "The job is not over", "cancel it first")
        if job.id in self._server.store.referred():
            raise Refusal("busy", "A job that is not over needs this capture", "wait for that job, or cancel it")
        try:
            self._server.forget(job)
        except OSError as error:
            raise Refusal("busy", f"The job's files cannot be removed now ({error})", "try again") from error
        return {}

    def _check_limits(self, owner: str, new: bool) -> None:
        if self._server.store.queued_by(owner) >= QUEUED_MAX:
            raise Refusal("queue_full", f"{QUEUED_MAX} of your jobs wait already", "cancel some, or wait")
        if new and self._server.store.usage(owner)[0] >= JOBS_MAX:
            raise Refusal("queue_full", f"The backend keeps {JOBS_MAX} of your jobs already", "delete some")

    def _moved(self, session: Session, header: Fields) -> int:
        """Tell those who follow jobs that wait; the new position of this one."""
        self._server.scheduler.changed.update(self._server.store.order())
        return self._server.store.position(self._server.job(session, header))

    def _row(self, job: Job) -> Fields:
        """What `list` tells of a job."""
        names = ("state", "created", "name", "engine", "priority", "pinned", "attempt", "bytes")
        ended = {} if job.ended is None else {"ended": job.ended}
        ticket = self._server.store.ticket(job.id)
        return {
            "job": job.id,
            **{name: getattr(job, name) for name in names},
            "position": self._server.store.position(job),
            **ended,
            **({"ticket": ticket} if ticket else {}),
        }
