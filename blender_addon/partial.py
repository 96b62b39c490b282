"""Partial: a result that arrives, in a folder beside its final one that outlives whoever fetches it.

Its name follows from job, encoding and place, so that whoever fetches the same again goes on from the bytes that are
there. A small file beside it says what it is a part of, and is locked as long as somebody fills it.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from .wire.errors import Cancelled, KinoraError, UserError
from .wire.folders import FLUSH_EVERY, flush

BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One file of a result; `sha256` is empty where the server does not tell it."""

    name: str
    size: int
    sha256: str = ""


class Damaged(KinoraError):
    """A file that is not what the server says it is; it has been removed."""


class Partial:
    """The files of `rows` as they arrive for the folder `out`. Raises UserError when somebody else fetches them there.

    Everything but `place` touches files and may take long: call it in a thread.
    """

    def __init__(self, out: Path, key: str, rows: list[Row]) -> None:
        name = f".{out.name}.fetch-"
        self.place = out.with_name(name + hashlib.sha256(key.encode()).hexdigest()[:16])
        self._about = self.place.with_name(self.place.name + ".json")
        self.rows = rows
        self._hashes: dict[str, Any] = {}
        self._have: dict[str, int] = {}
        self._unflushed: Counter[str] = Counter()
        self.place.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._about, "a+", encoding="utf-8")  # noqa: SIM115 - it is held until `close`
        if not _try_lock(self._lock):
            self._lock.close()
            raise UserError(f"Another Blender fetches the same result to {out}", "choose another folder, or wait")
        _remove_others(out.parent, name, self.place)

    @property
    def have(self) -> int:
        """Bytes that are there."""
        return sum(self._have.values())

    def missing(self, most: Callable[[], int]) -> Iterator[tuple[Row, int, int]]:
        """(file, first byte, length) of what is still to come, in pieces of at most `most()` bytes."""
        for row in self.rows:
            first = self._have[row.name]
            while first < row.size:
                length = min(most(), row.size - first)
                yield row, first, length
                first += length

    def take_up(self, abandoned: Callable[[], bool]) -> None:
        """Keep what is there of these very files, and remove what is not of them."""
        stamp = json.dumps([asdict(row) for row in self.rows])
        self._lock.seek(0)
        if self._lock.read() != stamp:
            shutil.rmtree(self.place)
            self.place.mkdir()
            self._lock.truncate(0)
            self._lock.write(stamp)
            self._lock.flush()
        for row in self.rows:
            path = self.place / row.name
            path.touch()
            if path.stat().st_size > row.size:
                os.truncate(path, 0)
            digest, have = hashlib.sha256(), 0
            with open(path, "rb") as file:
                for block in iter(lambda file=file: file.read(BLOCK), b""):
                    if abandoned():
                        raise Cancelled("Cancelled")
                    digest.update(block)
                    have += len(block)
            self._hashes[row.name], self._have[row.name] = digest, have
            if have == row.size:
                self._check(row)

    def append(self, row: Row, data: bytes) -> None:
        """The next bytes of a file. Raises Damaged when it is complete and not what it should be."""
        with open(self.place / row.name, "ab", buffering=0) as file:
            written = file.write(data)
        self._have[row.name] += written
        if written != len(data):
            raise OSError("the disk is full")
        self._hashes[row.name].update(data)
        self._unflushed[row.name] += written
        if self._unflushed[row.name] >= FLUSH_EVERY:
            flush(self.place / row.name)
            del self._unflushed[row.name]
        if self._have[row.name] == row.size:
            self._check(row)

    def close(self, keep: bool) -> None:
        """Let go of it; unless it is to be kept for another time, it vanishes."""
        if not keep:
            shutil.rmtree(self.place, ignore_errors=True)
            if sys.platform != "win32":
                self._about.unlink(missing_ok=True)
        self._lock.close()
        if not keep:
            self._about.unlink(missing_ok=True)

    def _check(self, row: Row) -> None:
        if row.sha256 and self._hashes[row.name].hexdigest() != row.sha256:
            (self.place / row.name).unlink()
            raise Damaged(f"{row.name} arrived damaged")


def _try_lock(file: IO[str]) -> bool:
    """Whether the file is ours alone from now on, until it is closed or this process ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**30)  # beyond what is read: Windows keeps others out of what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_others(folder: Path, name: str, mine: Path) -> None:
    """Remove what is left of other results for the same place, which nobody fetches any more."""
    for about in folder.glob(f"{glob.escape(name)}*.json"):
        place = about.with_name(about.name.removesuffix(".json"))
        if place == mine:
            continue
        with contextlib.suppress(OSError), open(about, "a+", encoding="utf-8") as file:
            if _try_lock(file):
                shutil.rmtree(place, ignore_errors=True)
                about.unlink(missing_ok=True)
