"""Files carried from machine to machine in bounded pieces, and how two machines prove that they see the same file.

Both ends are plain functions: whoever calls brings the way to the other machine, as a function that reads or writes a
piece there.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ..wire import messages

#: Bytes in one message; so much of a file is in memory at either end.
PIECE = 4 * 2**20
#: Bytes of the beginning and the end of a file that tell it from others of the same length.
SAMPLE = 2**20


def send(file: Path, write: Callable[[int, bytes], None], check: Callable[[], None]) -> None:
    """Write a file's content by `write(offset, piece)`, in order; an empty file is one empty piece."""
    with open(file, "rb") as source:
        offset = 0
        while (piece := source.read(PIECE)) or not offset:
            check()
            write(offset, piece)
            offset += len(piece)
            if not piece:
                return


def take(file: Path, offset: int, piece: bytes) -> None:
    """Write a piece that `send` sent; the same piece may come twice."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "r+b" if offset else "wb") as target:
        target.seek(offset)
        target.write(piece)


def listing(folder: Path) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each file of a flat folder."""
    return [
        {"name": path.name, "size": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file()
    ]


def read_piece(file: Path, offset: int) -> bytes:
    """At most PIECE bytes of a file."""
    with open(file, "rb") as source:
        source.seek(offset)
        return source.read(PIECE)


def fetch(
    files: list[dict[str, Any]], read: Callable[[str, int], bytes], folder: Path, check: Callable[[], None]
) -> None:
    """Bring files that the other machine's `listing` names to a new `folder`, piece by piece through `read`.

    Raises OSError when a file does not arrive as it was told, or has a name that no capture's file has.
    """
    folder.mkdir(parents=True)
    for file in files:
        name, size = str(file["name"]), int(file["size"])
        if not messages.NAME.fullmatch(name):
            raise OSError(f"a node tells of a file that no capture holds: {name[:80]!r}")
        total = hashlib.sha256()
        with open(folder / name, "wb") as target:
            while target.tell() < size:
                check()
                piece = read(name, target.tell())
                if not piece or target.tell() + len(piece) > size:
                    break
                target.write(piece)
                total.update(piece)
        if total.hexdigest() != file["sha256"]:
            raise OSError(f"{name} did not arrive as it was on the node")


class Proof:
    """A file with a secret in a folder of ours: who answers it writes beside it what we can read back."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16)
        self.file = folder / f".proof-{secrets.token_hex(8)}"
        self.file.write_text(self.secret, encoding="utf-8")

    def holds(self, answer: list[str] | None) -> bool:
        """Whether what `answer_proof` gave on the other machine shows that it reads and writes in this folder."""
        try:
            return answer is not None and answer[0] == self.secret and _beside(self.file).read_text() == answer[1]
        except OSError:
            return False

    def remove(self) -> None:
        """Leave nothing of it."""
        for file in (self.file, _beside(self.file)):
            file.unlink(missing_ok=True)


def answer_proof(file: Path) -> list[str] | None:
    """The other machine's part: the secret, and one of its own that it wrote beside; None when it sees no such file."""
    try:
        secret, own = file.read_text(encoding="utf-8"), secrets.token_hex(16)
        _beside(file).write_text(own, encoding="utf-8")
    except OSError:
        return None
    return [secret, own]


def fingerprint(path: Path) -> str:
    """What tells the file or folder of images at `path` from others, quickly; empty when there is none.

    Of a file its length and its beginning and end, of a folder the same of all of its files.
    """
    try:
        total = hashlib.sha256()
        path.stat()
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                total.update(file.name.encode() + b"\0")
                for part in _ends(file, SAMPLE if file == path else 4096):
                    total.update(part)
        return total.hexdigest()
    except OSError:
        return ""


def _ends(file: Path, sample: int) -> Iterator[bytes]:
    with open(file, "rb") as source:
        size = source.seek(0, os.SEEK_END)
        yield str(size).encode()
        for at in (0, max(0, size - sample)):
            source.seek(at)
            yield source.read(sample)


def _beside(file: Path) -> Path:
    return file.with_name(f"{file.name}-answer")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
