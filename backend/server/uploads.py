"""Uploads: clips that clients send in pieces, kept for their owner by SHA-256, under that name only once whole.

The pieces are written by the server's thread; one thread of this module's own reads behind and hashes, so that a part
of an earlier server or of a client that was away is taken up where it ends, and nothing waits for its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..wire import FLUSH_EVERY, flush
from .refusal import Refusal

log = logging.getLogger(__name__)

GIB = 1024**3
KEEP_FREE = GIB  # bytes that an upload leaves on the disk
OWNER_MAX = 64 * GIB  # of one owner's clips, parts by the size they will have
PARTS_MAX = 16  # of one owner
ACTIVE_S = 60.0  # a part that was written in this time is not given up for another
PART_KEEP_S = 2 * 24 * 3600.0
BLOCK = 1024 * 1024
PART = ".part"


class Uploads:
    """The store. What one owner sent is not there for another, who may know its hash but not have it.

    `in_use` tells the paths of whole uploads that jobs still need. Everything but the reading behind is for one thread.
    """

    def __init__(self, folder: Path, in_use: Callable[[], set[str]] = set) -> None:
        self._folder, self._in_use = folder, in_use
        self._parts: dict[Path, _Part] = {}
        self._to_read: queue.SimpleQueue[_Part | None] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, owner: str, sha256: str) -> Path | None:
        """The owner's whole upload, when it is there."""
        path = self._of(owner) / sha256
        return path if path.is_file() else None

    def open(self, owner: str, sha256: str, size: int) -> tuple[int, bool]:
        """How many bytes of the upload are here already, and whether it is whole and is what it should be.

        With all bytes here and not whole it is still being read through: ask again. Raises Refusal.
        """
        path = self._of(owner) / sha256
        if path.is_file() and path.stat().st_size == size:
            self._parts.pop(path, None)
            os.utime(path)
            return size, True
        part = self._parts.get(path)
        if part is None or part.size != size:
            part = self._begin(owner, path, size)
        if part.wrong:
            self._drop(part)
            raise Refusal("bad_hash", "The clip changed while it was sent", "send it again")
        if part.trouble:
            trouble, part.trouble = part.trouble, ""
            self._read_behind(part)
            raise Refusal("disk", f"The backend cannot use its disk ({trouble})", "free some space on it")
        return part.have, False

    def add(self, owner: str, sha256: str, offset: int, frames: Sequence[bytes]) -> int:
        """Take a piece; how many bytes are here now. What is here already is only acknowledged. Raises Refusal."""
        path = self._of(owner) / sha256
        part = self._parts.get(path)
        if part is None:
            if path.is_file():
                return path.stat().st_size
            raise Refusal("not_open", "This upload is not open")
        if offset > part.have:
            raise Refusal("bad_offset", f"The upload continues at byte {part.have}, not at {offset}")
        end = offset + sum(map(len, frames))
        if end > part.size:
            raise Refusal("bad_hash", "The clip changed while it was sent", "send it again")
        if end > part.have:
            self._check_room(0)
            try:
                part.append(_after(part.have - offset, frames))
            except OSError as error:
                log.error("the disk of the server: %s", error)
                raise _no_room() from error
            self._read_behind(part)
        return part.have

    def forget_before(self, when: float) -> None:
        """Remove what nobody has asked for since this time (Unix seconds), and parts that nobody goes on with."""
        in_use = self._in_use()
        for path in [p for p in self._folder.rglob("*") if p.is_file()]:
            oldest = max(when, time.time() - PART_KEEP_S) if path.suffix == PART else when
            if path.stat().st_mtime < oldest and str(path) not in in_use:
                part = self._parts.pop(path.with_suffix(""), None)
                if part is not None:
                    part.abandoned = True
                path.unlink(missing_ok=True)
        for folder in [p for p in self._folder.iterdir() if p.is_dir()]:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def close(self) -> None:
        """Stop reading; the next server goes on from the parts."""
        for part in self._parts.values():
            part.abandoned = True
        self._to_read.put(None)

    def _of(self, owner: str) -> Path:
        return self._folder / hashlib.sha256(owner.encode()).hexdigest()[:32]

    def _begin(self, owner: str, path: Path, size: int) -> _Part:
        """A part, from what an earlier server has of it."""
        earlier = self._parts.pop(path, None)
        if earlier is not None:
            self._drop(earlier)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(path, size)
        if part.have > size:
            os.truncate(part.file, 0)
            part.have = 0
        self._make_way(owner, part)
        self._check_room(size - part.have)
        part.file.touch()
        self._parts[path] = part
        self._read_behind(part)
        return part

    def _make_way(self, owner: str, part: _Part) -> None:
        """Hold the owner to what one may keep here: what was used longest ago, and no job needs, goes first."""
        others = {p: p.stat() for p in self._of(owner).iterdir() if p != part.file}
        parts = sorted((p for p in others if p.suffix == PART), key=lambda p: others[p].st_mtime)
        for path in parts[: max(0, len(parts) - PARTS_MAX + 1)]:
            if others[path].st_mtime > time.time() - ACTIVE_S:
                raise Refusal("busy", f"{PARTS_MAX} of your uploads are under way", "wait until one of them is done")
            self._drop(self._parts.get(path.with_suffix("")) or _Part(path.with_suffix(""), 0))
            del others[path]
        sizes = {
            p: self._parts[p.with_suffix("")].size if p.with_suffix("") in self._parts else about.st_size
            for p, about in others.items()
        }
        excess = sum(sizes.values()) + part.size - OWNER_MAX
        in_use = self._in_use() if excess > 0 else set()
        for path in sorted(others, key=lambda p: others[p].st_mtime):
            if excess > 0 and path.suffix != PART and str(path) not in in_use:
                excess -= sizes[path]
                path.unlink(missing_ok=True)
        if excess > 0:
            raise Refusal("quota", "Your clips take up all the room you have on the backend", "wait for your jobs")

    def _check_room(self, more: int) -> None:
        if shutil.disk_usage(self._folder).free < more + KEEP_FREE:
            raise _no_room()

    def _drop(self, part: _Part) -> None:
        part.abandoned = True
        self._parts.pop(part.path, None)
        part.file.unlink(missing_ok=True)

    def _read_behind(self, part: _Part) -> None:
        if not part.waits:
            part.waits = True
            if self._reader is None:
                self._reader = threading.Thread(target=self._read, name="kinora-uploads", daemon=True)
                self._reader.start()
            self._to_read.put(part)

    def _read(self) -> None:
        room = memoryview(bytearray(BLOCK))
        while (part := self._to_read.get()) is not None:
            part.waits = False
            try:
                if part.read(room):
                    self._keep(part)
            except OSError as error:
                if not part.abandoned and not part.path.exists():  # else the last look made it whole already
                    log.error("upload %s: %s", part.path.name, error)
                    part.trouble = str(error)

    def _keep(self, part: _Part) -> None:
        """Give a part whose bytes are right its name; on the disk it shares them with others who sent the same."""
        flush(part.file)
        with contextlib.suppress(OSError):  # a file system without links
            twin = next(self._twins(part))
            beside = part.path.with_suffix(".twin" + PART)
            beside.unlink(missing_ok=True)
            os.link(twin, beside)
            os.replace(beside, part.file)
        os.replace(part.file, part.path)
        flush(part.path.parent)

    def _twins(self, part: _Part) -> Iterator[Path]:
        for twin in self._folder.glob(f"*/{part.path.name}"):
            if twin.stat().st_size == part.size:
                yield twin
        raise OSError("nobody else has sent it")


class _Part:
    """An upload under way: its first `have` bytes are in `file`, the first `read_to` of them in `hash`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.file = path.with_suffix(PART)
        self.have = self.file.stat().st_size if self.file.exists() else 0
        self.waits = False  # for the reading thread
        self.abandoned = False
        self.wrong = False
        self.trouble = ""
        self._read_to = self._flushed = 0
        self._hash: Any = hashlib.sha256()

    def append(self, frames: Iterable[memoryview]) -> None:
        """Write; the file never runs ahead of what is counted."""
        size = 0
        try:
            with open(self.file, "ab", buffering=0) as file:
                for frame in frames:
                    if file.write(frame) != len(frame):
                        raise OSError("the disk is full")
                    size += len(frame)
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(self.file, self.have)
            raise
        self.have += size

    def read(self, room: memoryview) -> bool:
        """Hash what has come since the last time, read into `room`; whether all of it is there and right."""
        with open(self.file, "rb", buffering=0) as file:
            file.seek(self._read_to)
            while self._read_to < self.have and not self.abandoned:
                length = file.readinto(room[: self.have - self._read_to])
                if not length:
                    raise OSError("a part of an upload became shorter")
                self._hash.update(room[:length])
                self._read_to += length
                if self._read_to - self._flushed >= FLUSH_EVERY:
                    flush(self.file)
                    self._flushed = self._read_to
        if self._read_to < self.size or self.abandoned:
            return False
        self.wrong = self._hash.hexdigest() != self.path.name
        return not self.wrong


def _after(skip: int, frames: Iterable[bytes]) -> Iterator[memoryview]:
    """What is left of the frames without their first `skip` bytes."""
    for frame in frames:
        yield memoryview(frame)[skip:]
        skip = max(0, skip - len(frame))


def _no_room() -> Refusal:
    return Refusal("disk_full", "The backend has no room for this clip", "free some space on its disk")
