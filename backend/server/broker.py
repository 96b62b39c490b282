"""The broker: the server's loop. It takes requests, answers them, runs the queue and pushes progress."""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq

from .. import __version__
from ..wire import Connection, ProtocolError, UserError, framing, messages, paths
from .answering import Session
from .endpoint import Endpoint, Received
from .executor import Executor
from .heap import Heap
from .jobs import JobStore
from .keys import load_keys
from .local_executor import LocalExecutor
from .metrics import Metrics, Sample
from .private import make_safe
from .process import REPO, WORKER_COMMAND
from .refusal import Refusal
from .requests import Requests
from .retention import Keeping, Retention
from .scheduler import Scheduler
from .trash import Trash

log = logging.getLogger(__name__)

TICK_S = 0.2  # progress is pushed at most this often
SILENT_S = 60.0  # a session that sent nothing for so long is forgotten
SESSIONS_MAX = 1024
PARK_S = 10.0  # for the running jobs to stop by themselves
FAULT_S = 1.0  # the loop rests after a mistake of ours
STOPS = ("", "drain", "park", "now")  # the later ones overrule


class Broker:
    """A server on `host`:`port` (0: a free one) with its data in `home`; `run` serves until it is stopped.

    Jobs run in `executor`, by default in `worker_command` on this machine; `beat` is called while the loop turns;
    `keeping` says for how long and how much is kept (14 days, no limit).
    Raises UserError when one runs already or the address cannot be used.
    """

    def __init__(
        self,
        home: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        worker_command: Sequence[str] = WORKER_COMMAND,
        executor: Executor | None = None,
        gpu: str = "",
        beat: Callable[[], None] = lambda: None,
        keeping: Keeping | None = None,
    ) -> None:
        self._home, self._beat = make_safe(home), beat
        self._store = JobStore(paths.jobs_database(home))
        keys = load_keys(home)
        self._local_key = keys.client_public
        try:
            self._endpoint = Endpoint(host, port, keys, home)
        except zmq.ZMQError as error:
            self._store.close()
            raise UserError(f"Port {port} of {host} cannot be used ({error})", "choose another port") from error
        self.port = self._endpoint.port
        instance = secrets.token_hex(16)
        reach = "127.0.0.1" if host in ("0.0.0.0", "*") else host
        self.connection = Connection(
            f"tcp://{reach}:{self.port}",
            keys.server_public,
            keys.client_public,
            keys.client_secret,
            instance,
            os.getpid(),
        )
        self._metrics, self._trash, keeping = Metrics(), Trash(paths.trash_folder(home)), keeping or Keeping()
        paths.jobs_folder(home).mkdir(exist_ok=True)
        self._scheduler = Scheduler(
            self._store,
            paths.jobs_folder(home),
            executor or LocalExecutor(worker_command),
            self._trash,
            self._endpoint.wake,
            paths.cache_folder(home),
            metrics=self._metrics,
            keep_free=keeping.free_bytes,
        )
        self._requests = Requests(
            home,
            self._store,
            self._scheduler,
            server=f"Kinora {__version__}",
            gpu=gpu,
            instance=instance,
            code_version=code_version(),
            stop=self.stop,
            samples=self._samples,
            trash=self._trash,
            keeping=keeping,
        )
        self._heap = Heap()
        self._retention = Retention(self._requests.outdated, self._requests.forget)
        self._sessions: dict[bytes, Session] = {}
        self._watchers: dict[str, dict[bytes, float]] = {}  # job -> connections that follow it
        self._pushed = 0.0
        self._stopping = ""
        self._parked_at: float | None = None
        self._rests_until = 0.0

    def run(self) -> None:
        """Serve; clients find the connection file for as long as this lasts."""
        file = paths.connection_file(self._home)
        self._scheduler.begin()
        self._retention.sweep()
        self.connection.write(file)
        log.info("listening on %s", self.connection.address)
        try:
            while not self._over():
                for received in self._endpoint.receive(TICK_S):
                    self._handle(received)
                self._tick()
        finally:
            self._scheduler.stop()
            self._requests.close()
            self._trash.close()
            for session in self._sessions.values():
                session.forget_proof()
            time.sleep(0.1)  # the answer to a `shutdown` is on its way: LINGER is 0
            self._endpoint.close()
            file.unlink(missing_ok=True)  # while the jobs are still ours: the next server writes its own
            self._store.close()
            log.info("stopped")

    def stop(self, how: str = "now") -> None:
        """End `run`; from any thread. 'drain': once the running jobs are done; 'park': once they have stopped at their
        next step, or after PARK_S; 'now': they are killed. What was stopped is queued again and goes on with the next
        server from its last finished stage.
        """
        self._stopping = max(self._stopping, how, key=STOPS.index)
        self._scheduler.accepting = False
        self._endpoint.wake()

    def _over(self) -> bool:
        if self._stopping == "park" and self._parked_at is None:
            self._parked_at = time.monotonic()
            self._scheduler.park()
        late = self._parked_at is not None and time.monotonic() - self._parked_at > PARK_S
        return self._stopping == "now" or late or (self._stopping != "" and not self._scheduler.busy)

    def _handle(self, received: Received) -> None:
        session = self._sessions.setdefault(received.route, Session(received.owner, received.owner == self._local_key))
        session.heard = time.monotonic()
        header: dict[str, Any] = {}
        try:
            header, frames = framing.decode(received.parts)
            kind = messages.check_request(header, frames)
            self._endpoint.limits.check(received.owner, kind)
            fields, binary = self._requests.answer(kind, session, header, frames)
            if kind in ("submit", "events"):
                job = fields.get("job") or header["job"]
                self._watchers.setdefault(job, {})[received.route] = session.heard
            self._metrics.request(kind, sum(map(len, frames)), sum(map(len, binary)))
            reply = {"t": kind, "id": header["id"], **fields}
        except (ProtocolError, Refusal, UserError, sqlite3.Error, OSError) as error:
            reply, binary = {"t": "error", "id": _id(header), **_explain(error)}, []
        except Exception as error:  # our own mistake must not take the server, and every job with it
            log.exception("request %s failed", header.get("t"))
            message = f"The backend failed on a request ({type(error).__name__}: {error})"[:1000]
            reply, binary = {"t": "error", "id": _id(header), "code": "bug", "message": message, "hint": ""}, []
        if reply["t"] == "error":
            self._metrics.refused(reply["code"])
        self._endpoint.send(received.route, framing.encode(reply, binary))

    def _tick(self) -> None:
        """What is to be done between requests; no mistake in it takes the server, and every job with it."""
        now = time.monotonic()
        if now < self._rests_until:
            return
        try:
            self._scheduler.tick()
            self._retention.tick()
            if now - self._pushed >= TICK_S:
                self._pushed = now
                self._beat()
                self._push(now)
                self._forget_silent(now)
                self._heap.tick()
        except Exception:
            log.exception("the loop failed; it goes on")
            self._rests_until = now + FAULT_S

    def _samples(self) -> list[Sample]:
        now = {
            "kinora_sessions": len(self._sessions),
            "kinora_disk_free_bytes": shutil.disk_usage(self._home).free,
            "kinora_keys_refused_total": self._endpoint.allowed.refused,
        }
        return self._metrics.samples(self._store.counts(), now)

    def _forget_silent(self, now: float) -> None:
        silent = [route for route, s in self._sessions.items() if now - s.heard > SILENT_S]
        by_age = sorted(self._sessions, key=lambda route: self._sessions[route].heard)
        for route in {*silent, *by_age[: max(0, len(by_age) - SESSIONS_MAX)]}:
            self._sessions.pop(route).forget_proof()

    def _push(self, now: float) -> None:
        """Tell the newest state of each job that moved to those who follow it."""
        for job_id in list(self._scheduler.changed):
            self._scheduler.changed.discard(job_id)
            watchers = {r: at for r, at in self._watchers.pop(job_id, {}).items() if now - at < SILENT_S}
            job = self._store.find(job_id) if watchers else None
            if job is None:
                continue
            if job.state not in messages.ENDED:
                self._watchers[job_id] = watchers
            message = framing.encode({"t": "progress", **self._scheduler.status(job)})
            for route in watchers:
                self._endpoint.send(route, message)


def code_version() -> str:
    """A hash of the code that computes results: an update makes jobs new, so that no stale result is handed out."""
    digest = hashlib.sha256()
    for path in sorted([*REPO.glob("backend/**/*.py"), *REPO.glob("third_party/checkpoints.toml")]):
        digest.update(path.relative_to(REPO).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _id(header: dict[str, Any]) -> int:
    """The id to answer a faulty request with: its own when it has a usable one."""
    value = header.get("id")
    return value if type(value) is int and 0 <= value <= 2**53 else 0


def _explain(error: Exception) -> dict[str, str]:
    """The fields of an `error` reply."""
    if isinstance(error, ProtocolError):
        return {"code": error.code, "message": str(error)[:4000], "hint": "update the add-on and the backend"}
    if isinstance(error, Refusal):
        return {"code": error.code, "message": error.message[:4000], "hint": error.hint[:2000]}
    if isinstance(error, UserError):
        return {"code": "bad_settings", "message": error.message[:4000], "hint": error.hint[:2000]}
    log.error("the disk of the server: %s", error)
    return {
        "code": "disk",
        "message": f"The backend cannot use its disk ({error})"[:4000],
        "hint": "free some space on it",
    }
