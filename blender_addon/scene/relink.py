"""Relinking: an import whose capture was moved finds it again, in a folder that holds the same capture and no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import bpy

from ..wire.capture import Capture, read_capture
from ..wire.errors import UserError
from .changes import Changes
from .identity import IDENTITY, identity
from .imported import Imported
from .paths import kept, paths_of


def relink(imported: Imported, folder: Path | str) -> int:
    """Let every path of an import lead to the capture in `folder`; returns how many did not before.

    What stood in the old folder is looked for in the new one, what stood beside it (the footage, linked points) beside
    the new one, unless it is still where it was. Raises UserError, with nothing changed, when the folder holds no
    capture or another one.
    """
    capture = read_capture(folder)
    check_same(imported, capture)
    old, new = imported.folder, capture.folder
    moved = 0
    with Changes() as changes:
        for path in paths_of(imported.root):
            target = _moved(path.absolute, old, new)
            if target != path.absolute:
                path.write(kept(target, path.read()), changes)
                moved += 1
    return moved


def check_same(imported: Imported, capture: Capture) -> None:
    """Raise UserError when an import was made from another capture."""
    if imported.root.get(IDENTITY, identity(capture)) != identity(capture):
        raise UserError(
            f"{capture.folder.name} holds another capture than the one {imported.name} was made from",
            "use Update to take it over",
        )


def _moved(path: Path, old: Path, new: Path) -> Path:
    """Where a path leads when the capture has moved from `old` to `new`."""
    if path.is_relative_to(old):
        return new / path.relative_to(old)
    if path.is_relative_to(old.parent) and not path.exists():
        beside = new.parent / path.relative_to(old.parent)
        return beside if beside.exists() else path
    return path


def find_nearby(imported: Imported) -> Path | None:
    """The capture of an import whose folder is gone, where it should stand beside the .blend; None when it is not."""
    for folder in dict.fromkeys(_candidates(imported)):
        if (folder / "capture.json").is_file():
            try:
                check_same(imported, read_capture(folder))
            except UserError:
                continue
            return folder.absolute()
    return None


def _candidates(imported: Imported) -> Iterator[Path]:
    """Where its pictures were found, and folders beside the .blend that are called as its folder was."""
    for path in paths_of(imported.root):
        yield path.absolute.parent
    if bpy.data.filepath:
        beside = Path(bpy.data.filepath).parent
        for depth in range(1, min(4, len(imported.folder.parts))):
            yield beside.joinpath(*imported.folder.parts[-depth:])
            yield beside.parent.joinpath(*imported.folder.parts[-depth:])
