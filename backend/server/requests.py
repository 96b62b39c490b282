"""Requests: what the server answers to each, with the sessions, the jobs and the files it needs for it."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..wire import JobSettings, framing, messages, paths
from .asides import Asides
from .jobs import Job, JobStore, job_id
from .live import read_live
from .refusal import Refusal
from .scheduler import CAPTURE, LIVE, Scheduler
from .uploads import Uploads

log = logging.getLogger(__name__)

QUEUED_MAX = 64
KEEP_S = 14 * 24 * 3600.0
PAGE_BYTES = 48 * 1024  # of a list in one reply: leaves room in the header
Reply = tuple[dict[str, Any], list[bytes]]


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


class Requests:
    """One method for each request, named as it; each returns the reply's fields and binary frames."""

    def __init__(
        self,
        home: Path,
        store: JobStore,
        scheduler: Scheduler,
        *,
        server: str,
        gpu: str,
        instance: str,
        code_version: str,
        stop: Callable[[str], None],
    ) -> None:
        self._store, self._scheduler, self._stop = store, scheduler, stop
        self._uploads = Uploads(paths.uploads_folder(home))
        self._asides, self._jobs_folder = Asides(), paths.jobs_folder(home)
        self._proofs = paths.proofs_folder(home)
        shutil.rmtree(self._proofs, ignore_errors=True)
        paths.make_private(self._proofs)
        self._about = {"server": server, "gpu": gpu, "instance": instance}
        self._code_version = code_version

    def sweep(self) -> None:
        """Forget what is older than KEEP_S: jobs that have ended, with their files, and uploads."""
        oldest = time.time() - KEEP_S
        self._uploads.forget_before(oldest)
        for job in self._store.ended_before(oldest):
            self._forget(job)

    def close(self) -> None:
        """End what was begun for clients."""
        self._asides.close()

    def answer(self, kind: str, session: Session, header: dict[str, Any], frames: list[bytes]) -> Reply:
        """The reply to a checked request. Raises Refusal or UserError when it is not fulfilled."""
        if session.version == 0 and kind not in ("hello", "ping"):
            raise Refusal("no_hello", "Say hello first")
        reply = getattr(self, f"_{kind}")(session, header, frames)
        return reply if isinstance(reply, tuple) else (reply, [])

    def _hello(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        version = min(header["ver_max"], messages.PROTOCOL_VERSION)
        if version < max(header["ver_min"], messages.PROTOCOL_OLDEST):
            raise Refusal(
                "version",
                f"The backend speaks protocol {messages.PROTOCOL_OLDEST} to {messages.PROTOCOL_VERSION}, "
                f"the add-on {header['ver_min']} to {header['ver_max']}",
                "update the older of the two",
            )
        session.forget_proof()
        session.version, session.same_host, session.nonce = version, False, secrets.token_hex(32)
        session.proof = self._proofs / f"nonce-{secrets.token_hex(16)}"
        session.proof.touch(mode=0o600)
        session.proof.write_text(session.nonce, encoding="ascii")
        limits = {"upload": messages.UPLOAD_MAX, "queued": QUEUED_MAX}
        return {"ver": version, **self._about, "limits": limits, "proof": str(session.proof)}

    def _prove(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        session.same_host = bool(session.nonce) and secrets.compare_digest(header["nonce"], session.nonce)
        session.forget_proof()
        return {"same_host": session.same_host}

    def _ping(self, *_: Any) -> dict[str, Any]:
        return {}

    def _upload_open(self, _: Session, header: dict[str, Any], __: list[bytes]) -> dict[str, Any]:
        return {"have": self._uploads.open(header["sha256"], header["size"])}

    def _upload_chunk(self, _: Session, header: dict[str, Any], frames: list[bytes]) -> dict[str, Any]:
        if len(frames[0]) > framing.CHUNK or zlib.crc32(frames[0]) != header["crc"]:
            raise Refusal("bad_chunk", "A chunk of the upload is damaged")
        return {"have": self._uploads.add(header["sha256"], header["off"], frames[0])}

    def _submit(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        if not self._scheduler.accepting:
            raise Refusal("stopping", "The backend is shutting down", "start it again")
        settings = JobSettings.from_json(header["settings"])
        masks_sha256 = header.get("masks_sha256", "")
        job = job_id(session.owner, header["sha256"], masks_sha256, settings.canonical(), self._code_version)
        known = self._store.find(job)
        if known is not None and known.state == "done" and not self._scheduler.has_capture(job):
            self._store.end(job, "failed", "The result is gone from the backend's disk", "send the clip again")
            known = self._store.find(job)
        if known is None or known.state in ("failed", "cancelled"):
            if self._store.queued_by(session.owner) >= QUEUED_MAX:
                raise Refusal("queue_full", f"{QUEUED_MAX} of your jobs wait already", "cancel some, or wait")
            clip = self._footage(session, header, "", header["kind"], header["name"])
            masks = self._footage(session, header, "masks_", "folder", "masks") if masks_sha256 else None
            spec = {"clip": clip, "masks": masks, "settings": settings.to_json()}
        else:
            spec = {}
        row, existed = self._store.submit(job, session.owner, spec, header["name"], settings.engine)
        position = self._store.position(row)
        return {"job": job, "existed": existed, "state": row.state, "position": position, "since": row.since}

    def _footage(self, session: Session, header: dict, prefix: str, kind: str, name: str) -> dict[str, Any]:
        """Where the worker finds the footage: its path on the same host, or the upload."""
        path, size = header.get(f"{prefix}path"), header.get(f"{prefix}size", 0)
        if path is None:
            upload = self._uploads.path(header[f"{prefix}sha256"])
            if upload is None:
                raise Refusal("no_upload", "The clip has not been uploaded", "send it again")
            return {"upload": str(upload), "kind": kind, "name": name}
        if not session.same_host:
            raise Refusal("not_same_host", "Paths are only taken from a client on the same machine")
        place = Path(path)
        if (
            not place.is_absolute()
            or not place.exists()
            or (place.is_file() and kind == "file" and place.stat().st_size != size)
        ):
            raise Refusal(
                "no_such_file", f"The backend does not find {path} as described", "check the path of the clip"
            )
        return {"path": path}

    def _probe(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        if not session.same_host:
            raise Refusal("not_same_host", "Only a client on the same machine can ask about a file")
        path = Path(header["path"])
        if not path.is_absolute() or not path.exists():
            raise Refusal("no_such_file", f"{path} is not there", "choose the clip again")
        about = path.stat()
        facts = self._aside("probe", {"path": str(path), "size": about.st_size, "changed": about.st_mtime_ns})
        return {"ready": False} if facts is None else {"ready": True, "facts": facts}

    def _estimate(self, _: Session, header: dict[str, Any], __: list[bytes]) -> dict[str, Any]:
        settings = JobSettings.from_json(header["settings"]).to_json()
        size = {name: header[name] for name in ("width", "height", "frames", "fps")}
        found = self._aside("estimate", {**size, "settings": settings, "jobs": str(self._jobs_folder)})
        return {"ready": False} if found is None else {"ready": True, "estimate": found}

    def _aside(self, kind: str, question: dict[str, Any]) -> dict[str, Any] | None:
        """The answer of a child, None while it is at it. Raises Refusal when it has none."""
        told = self._asides.ask(kind, question)
        if told is not None and "answer" not in told:
            raise Refusal("no_answer", told["message"], told["hint"])
        return None if told is None else told["answer"]

    def _status(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        return self._scheduler.status(self._job(session, header))

    def _events(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        job = self._job(session, header)
        events = _page(self._store.events(job.id, header["since"]))
        return {"events": events, "last": job.last, "state": job.state, "position": self._store.position(job)}

    def _list(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        jobs, total = self._store.of_owner(session.owner, header["first"])
        rows = [{"job": j.id, "state": j.state, "created": j.created, "name": j.name, "engine": j.engine} for j in jobs]
        return {"jobs": _page(rows), "total": total}

    def _result_index(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        job = self._done(session, header)
        path = {"path": str(self._scheduler.folder(job.id) / CAPTURE)} if session.same_host else {}
        return {"files": _page(job.files[header["first"] :]), "total": len(job.files), **path}

    def _get(self, session: Session, header: dict[str, Any], _: list[bytes]) -> Reply:
        job, name, offset = self._done(session, header), header["name"], header["off"]
        size = next((f["size"] for f in job.files if f["name"] == name), None)
        if size is None or not messages.NAME.fullmatch(name):
            raise Refusal("no_such_file", f"The result has no file {name}")
        if offset > size:
            raise Refusal("bad_offset", f"{name} has {size} bytes")
        with open(self._scheduler.folder(job.id) / CAPTURE / name, "rb") as file:
            file.seek(offset)
            data = file.read(min(header["n"], framing.CHUNK))
        return {"off": offset, "size": size, "crc": zlib.crc32(data)}, [data]

    def _live(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        job = self._job(session, header)
        shown = self._scheduler.live(job)
        new = [{"n": n, "frame": frame} for n, frame in shown if n > header["since"]]
        return {"attempt": job.attempt, "last": shown[-1][0] if shown else 0, "frames": _page(new)}

    def _live_get(self, session: Session, header: dict[str, Any], _: list[bytes]) -> Reply:
        data = read_live(self._scheduler.folder(self._job(session, header).id) / LIVE, header["frame"])
        if data is None:
            raise Refusal("no_such_file", f"The job shows no frame {header['frame']}")
        return {"crc": zlib.crc32(data)}, [data]

    def _cancel(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        job = self._job(session, header)
        if job.state not in messages.ENDED:
            self._scheduler.cancel(job)
        return {"state": self._job(session, header).state}

    def _delete(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        job = self._job(session, header)
        if job.state not in messages.ENDED:
            raise Refusal("busy", "The job is not over", "cancel it first")
        self._forget(job.id)
        return {}

    def _shutdown(self, session: Session, header: dict[str, Any], _: list[bytes]) -> dict[str, Any]:
        if not session.local:
            raise Refusal("forbidden", "Only a client on the backend's machine may stop it")
        self._stop(header["how"])
        return {}

    def _forget(self, job: str) -> None:
        self._store.delete(job)
        shutil.rmtree(self._scheduler.folder(job), ignore_errors=True)

    def _job(self, session: Session, header: dict[str, Any]) -> Job:
        job = self._store.find(header["job"], session.owner)
        if job is None:
            raise Refusal("no_such_job", "The backend does not know this job", "send it again")
        return job

    def _done(self, session: Session, header: dict[str, Any]) -> Job:
        job = self._job(session, header)
        if job.state != "done":
            raise Refusal("not_done", "The job has no result")
        return job


def _page(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many rows as fit in one reply."""
    kept, size = [], 0
    for row in rows[:1000]:
        size += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace")) + 1
        if size > PAGE_BYTES and kept:
            break
        kept.append(row)
    return kept
