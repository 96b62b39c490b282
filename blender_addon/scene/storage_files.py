"""The folder that a storage keeps its files in: where it stands, whether it is whole, and of which capture it was made.

A folder is never changed once it is there: the same capture finds its folder again, another one takes the next name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import bpy

from ..wire.capture import Capture
from ..wire.folders import check_writable, staged_folder
from .identity import identity

#: The list of a folder's files, written last.
MANIFEST = "storage.json"


def storage_folder(capture: Capture, kind: str, directory: str = "") -> Path:
    """Where the files of a capture stand, or can be written: in `directory`, else beside the .blend or the capture.

    `kind` ends the folder's name. What stands there already is found again if it is whole and of this capture; any
    other folder is left alone. Raises UserError when nothing may be written there.
    """
    if directory:
        place = Path(bpy.path.abspath(directory))
    else:
        place = Path(bpy.data.filepath).parent if bpy.data.filepath else capture.folder.parent
    name = re.sub(r"[^\w.-]", "_", capture.folder.name) + f"_{kind}"
    folder = next(
        folder
        for number in count(1)
        if not (folder := place / (name if number == 1 else f"{name}_{number}")).exists() or holds(folder, capture)
    )
    if not folder.exists():
        check_writable(folder)
    return folder.absolute()


@contextmanager
def new_storage(folder: Path, capture: Capture, what: str) -> Iterator[Path]:
    """A scratch folder to write files to, which becomes `folder` with its list of files, whole or not at all.

    Raises UserError, in which `what` names the files, when the system refuses to write.
    """
    with staged_folder(folder, what) as staging:
        yield staging
        files = {path.name: path.stat().st_size for path in sorted(staging.iterdir())}
        text = json.dumps({"format": "kinora-storage", "capture": identity(capture), "files": files}, indent=1)
        (staging / MANIFEST).write_text(text, encoding="utf-8")


def holds(folder: Path, capture: Capture) -> bool:
    """Whether a folder holds all files of a storage that was made of this capture."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        with os.scandir(folder) as entries:
            there = {entry.name: entry.stat().st_size for entry in entries}
        return manifest["capture"] == identity(capture) and manifest["files"].items() <= there.items()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def size_of(folder: Path) -> int:
    """Bytes of the files of a storage, by its list; 0 when that is not there."""
    try:
        return sum(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return 0


def blender_path(folder: Path, blend_file: str = "") -> str:
    """A path as Blender keeps it: relative to `blend_file` or the open one, if that is saved and on its drive."""
    start = Path(blend_file or bpy.data.filepath).parent if blend_file or bpy.data.filepath else None
    if start is None:
        return str(folder)
    try:
        return bpy.path.relpath(str(folder), start=str(start)).replace("\\", "/")
    except ValueError:  # Windows: another drive
        return str(folder)
