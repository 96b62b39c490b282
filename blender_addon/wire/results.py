"""Results as a server lists them: what a client takes of its word before it writes anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from .errors import UserError

FILES_MAX = 200_000  # ten for each frame of the longest shot
BYTES_MAX = 1024**4
KEEP_FREE = 512 * 1024**2  # bytes that a result leaves on the client's disk

#: Names that Windows gives to devices, whatever their suffix.
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
HINT = "do not use this backend: it may mean harm"


def check_files(files: Iterable[tuple[str, int]], total: int) -> None:
    """Raise UserError unless (name, size) rows, of `total` that are announced, can be the files of a capture.

    Names have no folders already (messages.py); here they must differ on every file system and be no devices.
    """
    names: set[str] = set()
    size = 0
    for name, length in files:
        size += length
        if name.casefold() in names or DEVICES.fullmatch(name) or name.endswith("."):
            raise UserError(f"The backend lists a result with a file {name}, which cannot be written here", HINT)
        names.add(name.casefold())
    if max(total, len(names)) > FILES_MAX or size > BYTES_MAX or len(names) > total:
        raise UserError(f"The backend lists a result of {total} files and {size} bytes, which no capture has", HINT)


def check_room(folder: Path, size: int) -> None:
    """Raise UserError unless `size` more bytes fit on the disk of an existing folder."""
    free = shutil.disk_usage(folder).free
    if free < size + KEEP_FREE:
        raise UserError(
            f"The result needs {size / 1e9:.1f} GB and the disk of {folder} has {free / 1e9:.1f} GB left",
            "free some space, or choose a folder on another disk",
        )
