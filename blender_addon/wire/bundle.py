"""Footage as the wire sees it: one stream of bytes with a SHA-256; image folders become a deterministic tar."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .errors import Cancelled, UserError

#: Files of an image folder that travel; everything else in it is left alone. Some of these the backend cannot read
#: yet: it then says so, rather than that there are no images.
IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".exr", ".dpx", ".cin", ".hdr"),
        *(".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".psd"),
    )
)
MOST_IMAGES = 20_000
BLOCK = 1024 * 1024
TAR_BLOCK = 512
LONG_NAME_MAX = 4096  # bytes of a header that holds a name
SAMPLE = 16 * 1024


@dataclass(frozen=True)
class Bundle:
    """A clip or a folder of masks by content: `kind` is 'file', 'folder' or 'sequence' (one image stands for all)."""

    path: Path
    kind: str
    sha256: str
    size: int


def identify(path: Path, abandoned: Callable[[], bool] = lambda: False, *, alone: bool = False) -> Bundle:
    """What is at `path`, hashed; `alone`: an image is no part of a sequence.

    Raises UserError when nothing usable is there, Cancelled when `abandoned` says so.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise UserError(f"There is no file {path}", "check the path of the clip")
    image = path.suffix.lower() in IMAGE_SUFFIXES and not alone
    kind = "folder" if path.is_dir() else "sequence" if image else "file"
    sink = _Hash(abandoned)
    try:
        if kind == "file":
            with open(path, "rb") as file:
                for block in iter(lambda: file.read(BLOCK), b""):
                    sink.write(block)
        else:
            pack(path, sink)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})", "check the file") from error
    if sink.size == 0:
        raise UserError(f"{path.name} is empty", "copy the clip again")
    return Bundle(path, kind, sink.hash.hexdigest(), sink.size)


def sample(path: Path) -> str:
    """A SHA-256 of little of a clip or folder, quick to make, that hardly two different ones share.

    Names and number of its files, and of the first, the middle and the last one size and some blocks. By it both sides
    see whether a path leads them to the same. Raises UserError and OSError as `identify`.
    """
    digest = hashlib.sha256()
    files = [path] if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES else images_of(path)
    digest.update(json.dumps([file.name for file in files]).encode())
    for file in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        with open(file, "rb") as content:
            size = content.seek(0, io.SEEK_END)
            digest.update(str(size).encode())
            for place in (0, size // 3, 2 * size // 3, size - SAMPLE):
                content.seek(max(0, place))
                digest.update(content.read(SAMPLE))
    return digest.hexdigest()


def images_of(path: Path) -> list[Path]:
    """The images of a folder, or of the numbered sequence that the image `path` is part of, by name."""
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    else:
        mine = _numbered(path)
        if mine is None:
            return [path]
        found = [p for p in path.parent.iterdir() if _numbered(p) == mine]
    found = sorted(p for p in found if p.is_file())
    if not found:
        raise UserError(f"There are no images in {path}", "choose a folder of images, or a video")
    if len(found) > MOST_IMAGES:
        raise UserError(f"{path} holds more than {MOST_IMAGES} images", "choose a folder with one shot")
    return found


def _numbered(path: Path) -> tuple[str, str] | None:
    """What stands before and after the last number of an image's name: the same for all of a sequence."""
    match = re.fullmatch(r"(.*?)\d+(\D*?\.[^.]+)", path.name)
    return None if match is None else (match[1], match[2])


def pack(path: Path, file: IO[bytes]) -> None:
    """Write the images at `path` to `file` as a tar that depends on their names and contents alone."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for image in images_of(path):
            entry = tarfile.TarInfo(image.name)
            entry.size = image.stat().st_size
            with open(image, "rb") as content:
                tar.addfile(entry, content)


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Extract what `pack` made into `folder`; its files by name. Raises UserError on any other content."""
    try:
        with open(archive, "rb") as file:
            _check_blocks(file)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = list(_plain_members(tar))
                folder.mkdir(parents=True, exist_ok=True)
                tar.extractall(folder, members, filter="data")
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise UserError(f"The uploaded images cannot be unpacked ({error})", "send them again") from error
    return sorted(folder / m.name for m in members)


def _check_blocks(file: IO[bytes]) -> None:
    """Raise TarError unless an archive is files and their long names alone, before tarfile reads headers into memory.

    tarfile takes headers of any length and in any number one for another, and files that are larger than the archive.
    """
    end, place, headers = file.seek(0, io.SEEK_END), 0, 0
    while True:
        file.seek(place)
        block = file.read(TAR_BLOCK)
        if len(block) < TAR_BLOCK or block.count(0) == TAR_BLOCK:
            return
        size, kind = tarfile.nti(block[124:136]), block[156:157]
        headers = headers + 1 if kind == tarfile.XHDTYPE else 0
        if kind not in (tarfile.REGTYPE, tarfile.XHDTYPE) or headers > 1:
            raise tarfile.TarError(f"an entry of type {kind!r}")
        place += TAR_BLOCK + -(-size // TAR_BLOCK) * TAR_BLOCK
        if size < 0 or place > end or (headers and size > LONG_NAME_MAX):
            raise tarfile.TarError(f"an entry of {size} bytes")


def _plain_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    names: set[str] = set()
    for member in tar:
        name = member.name
        plain = member.type == tarfile.REGTYPE and not member.issparse() and member.pax_headers.keys() <= {"path"}
        if not plain or "/" in name or "\\" in name or "\0" in name or name.startswith(".") or name in names:
            raise tarfile.TarError(f"{name[:80]!r} is not a plain image of a folder")
        names.add(name)
        if len(names) > MOST_IMAGES:
            raise tarfile.TarError(f"more than {MOST_IMAGES} files")
        yield member


class _Hash(io.RawIOBase):
    """A file that keeps only the hash and the length of what is written to it."""

    def __init__(self, abandoned: Callable[[], bool]) -> None:
        self.hash = hashlib.sha256()
        self.size = 0
        self._abandoned = abandoned

    def write(self, block: bytes) -> int:  # type: ignore[override]
        if self._abandoned():
            raise Cancelled("Cancelled")
        self.hash.update(block)
        self.size += len(block)
        return len(block)
