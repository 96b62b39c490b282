"""Points that are read from files, linked or depth-projected, when their import gets another capture."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import bpy

from ..wire.capture import Capture
from ..wire.errors import UserError
from .imported import LINKED, PROJECTED, Imported
from .linked import write_frames
from .nodes import find_modifier, get_input, input_names, set_input
from .projected import write_sequences
from .steps import Steps, finish, in_thread
from .storage import convert_storage
from .storage_files import storage_folder
from .stored import LABELS, Stored, storages

log = logging.getLogger(__name__)


def write_files(earlier: Imported, capture: Capture) -> Steps[None]:
    """Write what the file storages of an import need of a new capture, beside what they have; nothing else changes."""
    for stored in _with_files(earlier):
        folder = storage_folder(capture, stored.kind, _directory(stored))
        if folder.exists():
            continue
        if stored.kind == LINKED:
            work = partial(write_frames, capture, folder)
            yield from in_thread("Writing points", (0.99, 0.99), work)
        else:
            yield from write_sequences(capture, folder, (0.99, 0.99))


def renew_files(earlier: Imported, capture: Capture, start_frames: tuple[int, int], length: float) -> tuple[str, ...]:
    """Let the file storages of an updated import show its new capture; returns what could not be, as notes.

    `start_frames` are the import's first frame before and now: a player that was moved in time stays where it is.
    """
    notes = []
    for stored in _with_files(earlier):
        kind = stored.kind
        try:
            new = finish(convert_storage(earlier, kind, kind, directory=_directory(stored)))
        except Exception as error:  # the import itself is updated: that must not be taken for a failure
            if not isinstance(error, UserError):
                log.exception("renewing the %s points failed", kind)
            notes.append(f"The {LABELS[kind].lower()} points are still those of the earlier capture: {error}")
            continue
        for ob in new.players:
            _retime(ob, capture, start_frames, length)
    if notes:
        earlier.root["kinora_notes"] = "\n".join(filter(None, [earlier.root["kinora_notes"], *notes]))
    return tuple(notes)


def _with_files(imported: Imported) -> list[Stored]:
    return [stored for stored in storages(imported) if stored.kind in (LINKED, PROJECTED)]


def _directory(stored: Stored) -> str:
    """The folder in which the files of a storage stand; empty when it is not there, for the usual place."""
    files: Path | None = stored.files
    return str(files.parent) if files is not None and files.parent.is_dir() else ""


def _retime(ob: bpy.types.Object, capture: Capture, start_frames: tuple[int, int], length: float) -> None:
    modifier = find_modifier(ob)
    values = {"Length": length, "Clip Rate": float(capture.clip.fps)}
    if modifier is not None and get_input(modifier, "Start Frame") == start_frames[0]:
        values["Start Frame"] = float(start_frames[1])
    for name in input_names(modifier) if modifier is not None else ():
        if name in values:
            set_input(modifier, name, values[name])
