"""The folder in which a running job's live frames wait to be fetched: written by the worker, read by the server."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ..wire import LiveFrame, framing, live
from .private import open_plain

log = logging.getLogger(__name__)


class LiveFolder:
    """One file for each frame, its newest version, whole or not at all.

    `told(n, frame)` is called once a frame can be read, with numbers that rise. What would not fit into JOB_BYTES is
    dropped.
    """

    def __init__(self, folder: Path, told: Callable[[int, int], None]) -> None:
        self._folder, self._told = folder, told
        self._sizes: dict[int, int] = {}
        self._number = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def show(self, shown: LiveFrame) -> None:
        """Take a frame; any thread. Raises OSError when the disk is full."""
        data = shown.encode()
        with self._lock:
            if sum(self._sizes.values()) - self._sizes.get(shown.frame, 0) + len(data) > live.JOB_BYTES:
                log.debug("live frame %d is dropped: the job shows %d bytes already", shown.frame, live.JOB_BYTES)
                return
            path = _file(self._folder, shown.frame)
            staging = path.with_suffix(".partial")
            staging.write_bytes(data)
            os.replace(staging, path)
            self._sizes[shown.frame] = len(data)
            self._number += 1
            self._told(self._number, shown.frame)


def read_live(folder: Path, frame: int) -> bytes | None:
    """The newest version of a frame; None when there is none, or no longer."""
    try:
        with open_plain(_file(folder, frame)) as file:
            return file.read(framing.CHUNK)
    except FileNotFoundError:
        return None


def _file(folder: Path, frame: int) -> Path:
    return folder / f"{frame:06d}.live"
