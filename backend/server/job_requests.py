"""Requests about jobs: submit, look, cancel, forget."""

from __future__ import annotations

import shutil
import zlib

from ..wire import JobSettings, messages
from .answering import Fields, Reply, Server, Session, page
from .jobs import job_id
from .live import read_live
from .refusal import Refusal
from .scheduler import LIVE
from .transfer_requests import TransferRequests

QUEUED_MAX = 64


class JobRequests:
    """One method for each request, named as it."""

    def __init__(self, server: Server, transfers: TransferRequests) -> None:
        self._server, self._transfers = server, transfers

    def submit(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        if not self._server.scheduler.accepting:
            raise Refusal("stopping", "The backend is shutting down", "start it again")
        settings = JobSettings.from_json(header["settings"])
        masks_sha256 = header.get("masks_sha256", "")
        job = job_id(session.owner, header["sha256"], masks_sha256, settings.canonical(), self._server.code_version)
        known = self._server.store.find(job)
        if known is not None and known.state == "done" and not self._server.scheduler.has_capture(job):
            self._server.store.end(job, "failed", "The result is gone from the backend's disk", "send the clip again")
            known = self._server.store.find(job)
        if known is None or known.state in ("failed", "cancelled"):
            if self._server.store.queued_by(session.owner) >= QUEUED_MAX:
                raise Refusal("queue_full", f"{QUEUED_MAX} of your jobs wait already", "cancel some, or wait")
            clip = self._transfers.footage(session, header, "", header["kind"], header["name"])
            masks = self._transfers.footage(session, header, "masks_", "folder", "masks") if masks_sha256 else None
            spec = {"clip": clip, "masks": masks, "settings": settings.to_json()}
        else:
            spec = {}
        row, existed = self._server.store.submit(job, session.owner, spec, header["name"], settings.engine)
        position = self._server.store.position(row)
        return {"job": job, "existed": existed, "state": row.state, "position": position, "since": row.since}

    def status(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        return self._server.scheduler.status(self._server.job(session, header))

    def events(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        events = page(self._server.store.events(job.id, header["since"]))
        return {"events": events, "last": job.last, "state": job.state, "position": self._server.store.position(job)}

    def list(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        jobs, total = self._server.store.of_owner(session.owner, header["first"])
        rows = [{"job": j.id, "state": j.state, "created": j.created, "name": j.name, "engine": j.engine} for j in jobs]
        return {"jobs": page(rows), "total": total}

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

    def cancel(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        if job.state not in messages.ENDED:
            self._server.scheduler.cancel(job)
        return {"state": self._server.job(session, header).state}

    def delete(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        job = self._server.job(session, header)
        if job.state not in messages.ENDED:
            raise Refusal("busy", "The job is not over", "cancel it first")
        self.forget(job.id)
        return {}

    def forget(self, job: str) -> None:
        """Remove a job and its files."""
        self._server.store.delete(job)
        shutil.rmtree(self._server.scheduler.folder(job), ignore_errors=True)
