"""One job on the cluster, from a place on a node to its outcome: its files there, its events back, its capture home.

What a node is and how it is reached is behind `Nodes` and `Node`; this file does not know Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from .. import __version__
from ..server.process import Outcome
from ..wire import UserError, bundle
from . import carry

log = logging.getLogger(__name__)

POLL_S, RETRY_S = 1.0, 0.2
#: A node that answers nothing for so long is given up; one whose daemon is gone Ray reports after about 13 s.
SILENT_S = 60.0
#: A job waits no longer than this in a cluster without a single slot.
NO_SLOT_S = 60.0
#: What a worker has to stop by itself, before its actor is ended.
CANCEL_S, KILL_S = 10.0, 5.0
#: So often a job is given a place, as long as nothing has begun there: a node that died is still offered for a while.
PLACES = 3
LOG_BYTES = 256 * 1024
KILLED = Outcome("failed", "The job was ended with the backend", "submit it again", bug=True, cause="lost")


class Gone(Exception):
    """The node, or the process there, has ended."""


class Unreachable(Exception):
    """No answer in time; the node may be there all the same."""


class Node(Protocol):
    """A `NodeJob` somewhere. `ask` and `ready` raise Gone, `ask` also Unreachable and what the method raises."""

    def ready(self, timeout_s: float) -> bool:
        """Whether a node had room for it, and it runs there now."""

    def ask(self, method: str, *arguments: Any, timeout_s: float) -> Any:
        """A method's answer."""

    def urge(self, method: str) -> None:
        """Have a method called, without waiting for it."""

    def end(self) -> None:
        """End its process."""


class Nodes(Protocol):
    """The cluster. `slots` is how many jobs its living nodes may run at once, as it was seen last."""

    slots: int

    def look(self) -> int:
        """Count the slots."""

    def place(self, worker: list[str]) -> Node:
        """A `NodeJob` with these arguments, on whichever node has a slot, now or later."""


class Lost(Exception):
    """The node is given up; the text says why."""


class Stopped(Exception):
    """The job was cancelled or killed before it had a worker."""


class Job(threading.Thread):
    """One job of the server's, from its place to its outcome; `tell(kind, **fields)` is the way to the server.

    `help_wanted` is called when the job has work for others. Set `sharing` (fields of backend.sharing.Sharing) before
    the start to let it share its stages, or to make it the helper of another job, which has no capture of its own.
    """

    def __init__(
        self,
        nodes: Nodes,
        spec: dict[str, Any],
        worker: list[str],
        share: bool,
        tell: Callable[..., None],
        help_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(daemon=True)
        self._nodes, self._spec, self._worker, self._share, self._tell = nodes, spec, worker, share, tell
        self._help_wanted = help_wanted
        self.sharing: dict[str, Any] = {}
        self._cancelled = self._killed = False
        self._begun = False
        self._folder = Path(spec["out"]).parent
        self._node: Node | None = None

    def run(self) -> None:
        """Do it, and tell the outcome whatever happens."""
        try:
            outcome = self._work()
        except Stopped:
            outcome = KILLED
        except (Lost, Gone) as error:
            hint = "submit it again; another node takes it"
            lost = Outcome("failed", f"The node that ran the job was lost ({error})", hint, cause="lost")
            outcome = KILLED if self._killed else lost
        except UserError as error:
            outcome = Outcome("failed", error.message, error.hint)
        except OSError as error:
            log.exception("a job's files were not carried")
            outcome = Outcome(
                "failed", f"Files of the job could not be carried ({error})", "see that both disks have room"
            )
        except Exception as error:
            log.exception("a job failed in the driver")
            outcome = Outcome("failed", f"The cluster's driver stopped on an error ({error})"[:1000], bug=True)
        if self._cancelled and outcome.state != "done":
            outcome = Outcome("cancelled")
        self._dismiss()
        self._tell("outcome", **vars(outcome))

    def cancel(self) -> None:
        """Ask the worker to stop, and see to it that it does."""
        self._cancelled = True
        self._urge("cancel", CANCEL_S, self.kill)

    def kill(self) -> None:
        """Kill the worker with all that it started; the whole actor when it does not answer."""
        self._killed = True
        self._urge("kill", KILL_S, self._dismiss)

    def _urge(self, method: str, patience_s: float, then: Callable[[], None]) -> None:
        if self._node is not None:
            with contextlib.suppress(Gone):  # the job's own thread hears of it too
                self._node.urge(method)
        timer = threading.Timer(patience_s, lambda: then() if self.is_alive() else None)
        timer.daemon = True
        timer.start()

    def _dismiss(self) -> None:
        """End the actor, and the worker with it."""
        if self._node is not None:
            self._node.end()

    def _work(self) -> Outcome:
        told = self._placed()
        self._tell("where", where=told["where"])
        if told["version"] != __version__:
            raise UserError(
                f"{told['where']} has Kinora {told['version']}, this server {__version__}", "update the older one"
            )
        shared = self._share and self._is_shared()
        helps = "helper" in self.sharing
        if helps and not (shared and self._spec["cache"]):
            return Outcome("done")  # pieces that it made would lie where nobody finds them
        with tempfile.TemporaryDirectory(prefix="carry-", dir=self._folder) as scratch:
            spec = self._moved(Path(scratch), shared)
        fenced = self._folder / f"capture.{secrets.token_hex(4)}"  # a node that was given up may still be writing
        spec |= {"scratch": None, "replace": True, "out": str(fenced) if shared else None}
        if not shared:
            spec |= {"cache": "" if spec["cache"] else None}
        elif spec["cache"]:
            spec["sharing"] = self.sharing
        if helps or not shared:
            spec |= {"live": None, "log": None}
        log_there = self._ask("begin", spec)
        self._begun = True
        try:
            outcome = self._relay(shared)
            if not shared:
                self._bring_log()
                outcome = replace(outcome, hint=outcome.hint.replace(log_there, self._spec["log"]))
            if outcome.state == "done" and not helps:
                if not shared:
                    carry.fetch(self._ask("capture"), lambda *at: self._ask("read", *at), fenced, self._check)
                os.replace(fenced, self._spec["out"])
        finally:
            shutil.rmtree(fenced, ignore_errors=True)
        with contextlib.suppress(Lost, Gone):  # the capture is here
            self._ask("close")
        return outcome

    def _placed(self) -> dict[str, Any]:
        """The hello of the node where the job got a place; another one when it is gone before anything began."""
        for attempts_left in reversed(range(PLACES)):
            self._node = self._nodes.place(self._worker)
            try:
                return self._greeted()
            except Gone:
                if not attempts_left:
                    raise
        raise AssertionError

    def _greeted(self) -> dict[str, Any]:
        """The node's hello, once there was room for the job; it never waits for nodes that there are not."""
        since = time.monotonic()
        while not self._node.ready(POLL_S):
            self._check()
            if self._nodes.slots:
                since = time.monotonic()
            elif time.monotonic() - since > NO_SLOT_S:
                raise Lost("no node of the cluster has a slot")
        return self._ask("hello")

    def _is_shared(self) -> bool:
        """Whether the node sees the folder of the job, by a secret that is read and one that is written there."""
        proof = carry.Proof(self._folder)
        try:
            return proof.holds(self._ask("answer", str(proof.file)))
        finally:
            proof.remove()

    def _moved(self, scratch: Path, shared: bool) -> dict[str, Any]:
        """The job with the footage where the node can read it: the same files if it sees them, else sent to it."""
        spec = dict(self._spec)
        for key in ("clip", "masks"):
            footage = spec[key]
            if footage is None:
                continue
            path = Path(footage.get("path") or footage["upload"])
            if shared and self._sees(path):
                continue
            if "path" in footage:
                found = bundle.identify(path)
                footage = {"kind": found.kind, "name": path.name}
                if found.kind != "file":
                    path = scratch / key
                    with open(path, "wb") as file:
                        bundle.pack(found.path, file)
            spec[key] = {**footage, "upload": self._sent(key, path)}
        for key in ("poses", "intrinsics"):
            if spec.get(key):
                spec[key] = self._sent(key, Path(spec[key]))
        if spec.get("reference") and not (shared and self._sees(Path(spec["reference"]))):
            reference = Path(spec["reference"])
            files = sorted(reference.iterdir()) if reference.is_dir() else []
            places = [self._sent(f"reference/{file.name}", file) for file in files]
            spec["reference"] = os.path.dirname(places[0]) if places else str(reference)
        return spec

    def _sees(self, path: Path) -> bool:
        """Whether the node has the same at that path."""
        seen = self._ask("fingerprint", str(path))
        return bool(seen) and seen == carry.fingerprint(path)

    def _sent(self, name: str, file: Path) -> str:
        """The path on the node of a file that was sent to it."""
        place = ""

        def write(offset: int, piece: bytes) -> None:
            nonlocal place
            place = self._ask("take", name, offset, piece)

        carry.send(file, write, self._check)
        return place

    def _relay(self, shared: bool) -> Outcome:
        """Pass on what the worker says until its last word."""
        seen = 0
        while True:
            for number, event in self._ask("events", seen, POLL_S):
                seen = number
                if event["t"] == "outcome":
                    return Outcome(**{k: v for k, v in event.items() if k != "t"})
                if event["t"] == "help":
                    self._help_wanted()
                    continue
                if event["t"] == "live" and not shared and not self._brought(int(event["frame"])):
                    continue
                self._tell("event", event=event)

    def _brought(self, frame: int) -> bool:
        """Whether a live frame of the node lies in the job's own folder now."""
        content = self._ask("live", frame)
        if content is None:
            return False
        folder = Path(self._spec["live"])
        folder.mkdir(parents=True, exist_ok=True)
        staging = folder / f"{frame:06d}.partial"
        staging.write_bytes(content)
        os.replace(staging, folder / f"{frame:06d}.live")
        return True

    def _bring_log(self) -> None:
        with open(self._spec["log"], "ab") as file:
            file.write(self._ask("log_text", LOG_BYTES))

    def _check(self) -> None:
        """Raise Stopped when the job need not begin or go on carrying files."""
        if self._cancelled or self._killed:
            raise Stopped

    def _ask(self, method: str, *arguments: Any) -> Any:
        """A method's answer. Raises Gone, and Lost when the node answers nothing for SILENT_S."""
        deadline = time.monotonic() + SILENT_S
        while True:
            if not self._begun:
                self._check()
            try:
                return self._node.ask(method, *arguments, timeout_s=max(0.1, deadline - time.monotonic()))
            except Unreachable as error:
                if time.monotonic() > deadline:
                    raise Lost(f"it answered nothing for {SILENT_S:.0f} s") from error
                time.sleep(RETRY_S)
