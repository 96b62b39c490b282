"""NodeJob: one job's place on a node of the cluster, an ordinary worker process and the files that it needs and makes.

The driver makes an actor of it, and asks one method after the other; each may be asked again when an answer got lost.
It does not know Ray. Its process dies with the driver, with the node's own daemon, and by the driver's word; the worker
then ends as it always does when its parent is gone.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..server.live import read_live
from ..server.process import Outcome, WorkerProcess
from ..wire import paths
from . import carry

log = logging.getLogger(__name__)

#: Events that wait until the driver has seen them; more than this are not asked for at once.
EVENTS_AT_ONCE = 200


class NodeJob:
    """A job on this node. `arguments` are those of the worker's interpreter."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._command = (sys.executable, *arguments)
        places = paths.make_private(paths.home() / "node")
        _sweep(places)
        self._folder = places / f"{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
        self._folder.mkdir()
        self._worker: WorkerProcess | None = None
        self._waiting: list[tuple[int, dict[str, Any]]] = []
        self._number = 0
        self._lock = threading.Lock()

    def hello(self) -> dict[str, Any]:
        """Who this is: `where` in words, and the version of Kinora on this node."""
        card = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        where = f"{socket.gethostname()}, GPU {card}" if card not in ("", "-1") else socket.gethostname()
        return {"where": where, "version": __version__}

    def answer(self, proof: str) -> list[str] | None:
        """This side of `carry.Proof`."""
        return carry.answer_proof(Path(proof))

    def fingerprint(self, path: str) -> str:
        """`carry.fingerprint` of a path as this node sees it."""
        return carry.fingerprint(Path(path))

    def take(self, name: str, offset: int, piece: bytes) -> str:
        """A piece of a file that is sent here, perhaps into a folder; the path that it has on this node."""
        folder, _, name = name.rpartition("/")
        file = self._folder / "sent" / Path(folder).name / Path(name).name
        carry.take(file, offset, piece)
        return str(file)

    def begin(self, spec: dict[str, Any]) -> str:
        """Start the worker; where its log is. Files and folders that `spec` leaves None lie on this node."""
        if self._worker is not None:
            return self._spec["log"]
        own = {"out": "capture", "live": "live", "log": "log.txt", "scratch": "scratch"}
        spec = {**spec, **{key: str(self._folder / name) for key, name in own.items() if spec[key] is None}}
        if spec.get("cache") == "":
            spec["cache"] = str(paths.make_private(paths.cache_folder()))
        self._spec = spec
        self._worker = WorkerProcess(spec, Path(spec["log"]), command=self._command)
        return spec["log"]

    def events(self, seen: int, wait_s: float) -> list[tuple[int, dict[str, Any]]]:
        """What the worker said after number `seen`, numbered; waits for the first a little. "outcome" is the last."""
        assert self._worker is not None
        with self._lock:
            self._waiting = [(n, event) for n, event in self._waiting if n > seen]
            while len(self._waiting) < EVENTS_AT_ONCE:
                try:
                    said = self._worker.events.get(timeout=0 if self._waiting else wait_s)
                except queue.Empty:
                    break
                self._number += 1
                event = {"t": "outcome", **vars(said)} if isinstance(said, Outcome) else said
                self._waiting.append((self._number, event))
            return list(self._waiting)

    def cancel(self) -> None:
        """Ask the worker to stop; it is killed when it does not."""
        if self._worker is not None:
            self._worker.cancel()

    def kill(self) -> None:
        """Kill the worker with all that it started."""
        if self._worker is not None:
            self._worker.kill()

    def capture(self) -> list[dict[str, Any]]:
        """The files of the capture."""
        return carry.listing(Path(self._spec["out"]))

    def read(self, name: str, offset: int) -> bytes:
        """A piece of a file of the capture."""
        return carry.read_piece(Path(self._spec["out"]) / Path(name).name, offset)

    def live(self, frame: int) -> bytes | None:
        """The newest version of a frame that the job shows."""
        return read_live(Path(self._spec["live"]), frame)

    def log_text(self, most: int) -> bytes:
        """The end of the worker's log."""
        file = Path(self._spec["log"])
        size = file.stat().st_size if file.is_file() else 0
        return carry.read_piece(file, max(0, size - most)) if size else b""

    def close(self) -> None:
        """Leave nothing of the job on this node."""
        self.kill()
        if self._worker is not None:
            self._worker.join(timeout_s=5)
        shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(places: Path) -> None:
    """Remove what jobs left here whose process is gone."""
    for folder in places.glob(f"{socket.gethostname()}.*"):
        pid = folder.name.rsplit(".", 2)[1]
        try:
            os.kill(int(pid), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # somebody else's
            continue
