"""Every path by which an import finds its files: pictures, clips, folders that nodes read, and the capture itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bpy

from . import nodes
from .baseline import family
from .belongings import belongings
from .changes import Changes
from .imported import ROOT_POINTER

FOLDER = "kinora_folder"


@dataclass(frozen=True)
class FilePath:
    """One path of an import, as Blender keeps it. `modifier` and its input, or a property of `owner`."""

    owner: bpy.types.ID | bpy.types.Modifier | bpy.types.Strip
    name: str

    def read(self) -> str:
        """The path as it stands: `//...` is beside the .blend."""
        if isinstance(self.owner, bpy.types.Modifier):
            return nodes.get_input(self.owner, self.name)
        return self.owner[FOLDER] if self.name == FOLDER else getattr(self.owner, self.name)

    @property
    def absolute(self) -> Path:
        """Where it leads now."""
        return Path(os.path.abspath(bpy.path.abspath(self.read())))  # without the .. that Path keeps

    def write(self, path: str, changes: Changes) -> None:
        """Change the path."""
        if isinstance(self.owner, bpy.types.Modifier):
            modifier, name, old = self.owner, self.name, self.read()
            changes.do(lambda: nodes.set_input(modifier, name, path), lambda: nodes.set_input(modifier, name, old))
        elif self.name == FOLDER:
            changes.item(self.owner, FOLDER, path)
        else:
            changes.set(self.owner, self.name, path)


def paths_of(root: bpy.types.Object) -> list[FilePath]:
    """All paths of an import."""
    found: dict[FilePath, None] = {}
    for part in belongings(root):
        for path in _paths(part):
            found[path] = None
    for scene in bpy.data.scenes:
        for strip in scene.sequence_editor.strips if scene.sequence_editor else ():
            if strip.get(ROOT_POINTER) == root:
                found[FilePath(strip, "directory" if strip.type == "IMAGE" else "filepath")] = None
    return [path for path in found if path.read()]


def _paths(part: bpy.types.ID) -> Iterator[FilePath]:
    if FOLDER in part:
        yield FilePath(part, FOLDER)
    if isinstance(part, bpy.types.Image | bpy.types.MovieClip):
        yield FilePath(part, "filepath")
    for modifier in getattr(part, "modifiers", ()):
        for name in nodes.input_names(modifier) if family(modifier) else ():
            value = nodes.get_input(modifier, name)
            if isinstance(value, str) and ("/" in value or "\\" in value):
                yield FilePath(modifier, name)
            if isinstance(value, bpy.types.Image):
                yield from _paths(value)
    for node in part.nodes if isinstance(part, bpy.types.NodeTree) else ():
        picture = getattr(node, "image", None) or getattr(node, "clip", None)
        if picture is not None and FOLDER in picture:
            yield from _paths(picture)


def kept(path: Path, like: str) -> str:
    """A path in the way that `like` is kept: relative to the .blend or absolute."""
    return relative(path) if like.startswith("//") else str(path)


def relative(path: Path | str) -> str:
    """A path relative to the .blend; absolute where there is none, or it is on another drive."""
    try:
        return bpy.path.relpath(str(path)).replace("\\", "/") if bpy.data.filepath else str(path)
    except ValueError:
        return str(path)


def wants_relative() -> bool:
    """Whether paths are to be kept relative to the .blend: it is saved, and the preferences ask for it."""
    return bool(bpy.data.filepath) and bpy.context.preferences.filepaths.use_relative_paths


def as_wanted(path: Path) -> str:
    """A path as it is to be kept. Blender reads a picture anew when its path is changed: load it by this one."""
    return relative(path) if wants_relative() else str(path)


def make_relative(root: bpy.types.Object) -> int:
    """Keep every path of an import relative to the .blend, so that both can be moved together; how many changed."""
    changed = 0
    with Changes() as changes:
        for path in paths_of(root):
            now, better = path.read(), relative(path.absolute)
            if not now.startswith("//") and better != now:
                path.write(better, changes)
                changed += 1
    return changed
