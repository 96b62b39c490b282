"""Folders that appear under their name whole or not at all: written beside it, flushed to the disk, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError

#: A file that arrives is flushed every so many bytes: the disk works meanwhile, and the flush at its end is short.
FLUSH_EVERY = 16 * 1024 * 1024


@contextmanager
def staged_folder(folder: Path, what: str, mark: str = "") -> Iterator[Path]:
    """A scratch folder that takes the name `folder` when the block ends well, and vanishes when it does not.

    `what` names the product in messages ("The capture"); a `mark` tells writers apart that may have the same process
    number, on several machines. What stands at `folder` is replaced last of all. Raises UserError when the system
    refuses to write.
    """
    folder = Path(folder).absolute()
    staging = folder.with_name(f".{folder.name}.partial-{os.getpid()}{mark}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        for path in [*staging.rglob("*"), staging]:
            flush(path)
        publish_folder(staging, folder)
    except OSError as error:
        # NumPy's own OSError, of an array that did not go out whole, has no strerror.
        raise UserError(
            f"{what} could not be written to {folder} ({error.strerror or 'the disk is full'})",
            "choose another folder or free some space",
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Raise UserError unless something may appear at `folder`, whose parents need not exist yet."""
    folder = Path(folder).absolute()
    # os.path answers False where pathlib raises PermissionError.
    parent = next((p for p in folder.parents if os.path.exists(p)), None)
    for place in (parent, folder if os.path.exists(folder) else parent):
        if place is not None and not os.path.isdir(place):
            raise UserError(f"{place} is a file", "choose another output folder")
        if place is None or not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f"The output folder {folder} cannot be written", "choose another output folder")


def names_in(folder: Path) -> list[str]:
    """What stands in an output folder, nothing when it does not exist; UserError when one may not look."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"The output folder {folder} cannot be written", "choose another output folder") from error


def publish_folder(staging: Path, folder: Path) -> None:
    """Move a whole folder to its final name on the same disk, replacing an earlier one last of all."""
    retired = folder.with_name(f".{folder.name}.retired-{os.getpid()}")
    if folder.exists():
        os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        if retired.exists():
            os.replace(retired, folder)
        raise
    flush(folder.parent)
    shutil.rmtree(retired, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows has no such call for folders
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
