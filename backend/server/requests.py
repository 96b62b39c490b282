"""Requests: each goes to the one that answers it; what concerns the connection and the server is answered here."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..wire import messages, paths, versions
from .answering import Fields, Reply, Server, Session, page
from .aside_requests import AsideRequests
from .asides import Asides
from .job_requests import QUEUED_MAX, JobRequests
from .jobs import JobStore
from .metrics import Sample
from .refusal import Refusal
from .retention import DAY_S, RECENT_S, Keeping, to_forget
from .scheduler import Scheduler
from .transfer_requests import TransferRequests, caps
from .trash import Trash
from .uploads import Uploads

#: Answered to a client of any version: one that is newer must be able to end an older server that still runs.
BEFORE_HELLO = ("hello", "ping", "shutdown")


class Requests:
    """Finds the one that answers: a method named as the request, which returns its fields, or fields and frames."""

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
        samples: Callable[[], list[Sample]],
        trash: Trash,
        keeping: Keeping,
    ) -> None:
        self._stop, self._samples = stop, samples
        self._proofs = paths.proofs_folder(home)
        shutil.rmtree(self._proofs, ignore_errors=True)
        paths.make_private(self._proofs)
        self._about = {"server": server, "gpu": gpu, "instance": instance}
        uploads = Uploads(paths.uploads_folder(home), store.uploads_in_use)
        jobs = paths.jobs_folder(home)
        self._server = Server(store, scheduler, uploads, Asides(), jobs, code_version, trash, keeping)
        transfers = TransferRequests(self._server)
        parts = (self, JobRequests(self._server, transfers), transfers, AsideRequests(self._server))
        self._answers = {kind: next(getattr(p, kind) for p in parts if hasattr(p, kind)) for kind in messages.REQUESTS}

    def outdated(self) -> list[str]:
        """Ids of the jobs to forget; uploads that nobody uses any more are forgotten on the way."""
        store, keeping = self._server.store, self._server.keeping
        self._server.uploads.forget_before(time.time() - keeping.keep_days * DAY_S)
        self._server.scheduler.record(store.keep_clock)
        referred = store.referred()
        return to_forget([job for job in store.kept() if job.id not in referred], store.now(), keeping)

    def forget(self, job_id: str) -> None:
        """Forget a job, unless something happened to it since it was outdated."""
        store = self._server.store
        job = store.find(job_id)
        if job is None or job.state not in messages.ENDED or job.pinned or job_id in store.referred():
            return
        if store.now() - job.used > RECENT_S:
            self._server.forget(job)

    def close(self) -> None:
        """End what was begun for clients."""
        self._server.asides.close()
        self._server.uploads.close()

    def answer(self, kind: str, session: Session, header: Fields, frames: list[bytes]) -> Reply:
        """The reply to a checked request. Raises Refusal or UserError when it is not fulfilled."""
        if session.version == 0 and kind not in BEFORE_HELLO:
            raise Refusal("no_hello", "Say hello first")
        reply = self._answers[kind](session, header, frames)
        return reply if isinstance(reply, tuple) else (reply, [])

    def hello(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        said = {name: header[name] for name in ("client", "ver_min", "ver_max", "caps")}
        apart = versions.disagreement(self._about["server"], **said)
        if apart:
            raise Refusal("version", *apart)
        version = min(header["ver_max"], messages.PROTOCOL_VERSION)
        session.forget_proof()
        session.version, session.same_host, session.nonce = version, False, secrets.token_hex(32)
        session.proof = self._proofs / f"nonce-{secrets.token_hex(16)}"
        session.proof.touch(mode=0o600)
        session.proof.write_text(session.nonce, encoding="ascii")
        limits = {"upload": messages.UPLOAD_MAX, "queued": QUEUED_MAX}
        return {"ver": version, **self._about, "limits": limits, "proof": str(session.proof), "caps": list(caps())}

    def prove(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        session.same_host = bool(session.nonce) and secrets.compare_digest(header["nonce"], session.nonce)
        session.forget_proof()
        return {"same_host": session.same_host}

    def ping(self, *_: object) -> Fields:
        return {}

    def shutdown(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        if not session.local:
            raise Refusal("forbidden", "Only a client on the backend's machine may stop it")
        self._stop(header["how"])
        return {}

    def metrics(self, session: Session, header: Fields, _: list[bytes]) -> Fields:
        if not session.local:
            raise Refusal("forbidden", "Only a client on the backend's machine may see what the server counts")
        rows = [sample.to_json() for sample in self._samples()]
        return {"samples": page(rows[header["first"] :]), "total": len(rows)}
