"""Uploads: footage that clients send in chunks, kept by its SHA-256 and only under that name when whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .refusal import Refusal

KEEP_FREE = 1024**3  # bytes that an upload leaves on the disk


class Uploads:
    """The store. A part that the server did not receive itself since it started is begun again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[str, _Part] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob("*.part"):
            part.unlink()

    def path(self, sha256: str) -> Path | None:
        """The whole upload, when it is there."""
        path = self._folder / sha256
        return path if path.is_file() else None

    def forget_before(self, when: float) -> None:
        """Remove the uploads that nobody has asked for since this time (Unix seconds)."""
        for path in self._folder.iterdir():
            if path.stat().st_mtime < when:
                path.unlink()

    def open(self, sha256: str, size: int) -> int:
        """How many bytes of the upload are here already."""
        whole = self.path(sha256)
        if whole is not None and whole.stat().st_size == size:
            os.utime(whole)
            return size
        if sha256 not in self._parts:
            if shutil.disk_usage(self._folder).free < size + KEEP_FREE:
                raise Refusal("disk_full", "The backend has no room for this clip", "free some space on its disk")
            path = self._folder / f"{sha256}.part"
            path.write_bytes(b"")
            self._parts[sha256] = _Part(path, size)
        return self._parts[sha256].have

    def add(self, sha256: str, offset: int, data: bytes) -> int:
        """Append a chunk; how many bytes are here now. One that is here already is only acknowledged."""
        whole = self.path(sha256)
        if whole is not None:
            return whole.stat().st_size
        part = self._parts.get(sha256)
        if part is None:
            raise Refusal("not_open", "This upload is not open")
        if offset > part.have:
            raise Refusal("bad_offset", f"The upload continues at byte {part.have}, not at {offset}")
        if offset < part.have:
            return part.have
        part.append(data)
        if part.have >= part.size:
            del self._parts[sha256]
            if part.hash.hexdigest() != sha256 or part.have > part.size:
                part.path.unlink()
                raise Refusal("bad_hash", "The clip changed while it was sent", "send it again")
            os.replace(part.path, self._folder / sha256)
        return part.have


@dataclass
class _Part:
    """An upload under way: its first `have` bytes are in the file and in the hash."""

    path: Path
    size: int
    have: int = 0
    hash: Any = field(default_factory=hashlib.sha256)

    def append(self, data: bytes) -> None:
        try:
            with open(self.path, "ab") as file:
                file.write(data)
        except OSError:  # a full disk: the file must not run ahead of what was counted
            os.truncate(self.path, self.have)
            raise
        self.hash.update(data)
        self.have += len(data)
