"""An import as it stands in a file: its root object, what belongs to it, and the capture it was made from.

Every datablock of an import carries `kinora_role` and, but for the root, a pointer `kinora_root`, so that it is found
again whatever the artist renames, moves to another collection or parents elsewhere. The root carries the report
(`ImportReport`) and the capture's folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import bpy

from ..wire.capture import Capture, read_capture
from ..wire.errors import UserError

ROLE, ROOT_POINTER = "kinora_role", "kinora_root"

#: What an object of an import is. There is one root and at most one camera; of the others any number, or none.
ROOT, CAMERA, PLAYER, STATIC = "root", "camera", "player", "static"
LINKED, PROJECTED = "linked", "projected"
#: A camera of another plate under the root; its pictures and points are marked as parts of it instead of the root.
PLATE = "plate"


def mark(datablock: bpy.types.ID, role: str, root: bpy.types.Object) -> None:
    """Make a datablock known as a part of the import of `root`."""
    datablock[ROLE] = role
    if datablock is not root:
        datablock[ROOT_POINTER] = root


@dataclass(frozen=True)
class Imported:
    """One import. It holds on to datablocks, so make one when it is needed and let it go: undo invalidates it."""

    root: bpy.types.Object

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def folder(self) -> Path:
        """Where the capture was read from, or was last found."""
        return Path(os.path.abspath(bpy.path.abspath(self.root["kinora_folder"])))  # without the .. that Path keeps

    @property
    def collection(self) -> bpy.types.Collection | None:
        """The collection that the import was put in; the root's first one when that is gone."""
        marked = [c for c in bpy.data.collections if c.get(ROOT_POINTER) == self.root and c.get(ROLE) == "collection"]
        return next(iter([*marked, *self.root.users_collection]), None)

    def objects(self, role: str) -> list[bpy.types.Object]:
        """The objects of a role that are still in some scene, in order of their names."""
        found = [ob for ob in bpy.data.objects if ob.get(ROLE) == role and ob.get(ROOT_POINTER) == self.root]
        return [ob for ob in found if ob.users_scene]

    @property
    def camera(self) -> bpy.types.Object | None:
        """The camera; None when the artist deleted it."""
        return next(iter(self.objects(CAMERA)), None)

    def capture(self) -> Capture:
        """The capture, its arrays memory-mapped. Raises UserError when it is not where it was, or damaged."""
        if not (self.folder / "capture.json").is_file():
            raise UserError(f"The capture of {self.name} is not at {self.folder}", "use Relink Capture to find it")
        return read_capture(self.folder)


def imported_in(scene: bpy.types.Scene) -> list[Imported]:
    """The imports of a scene, in order of their names."""
    return [Imported(ob) for ob in sorted(scene.objects, key=lambda ob: ob.name) if ob.get(ROLE) == ROOT]


def import_of(collection: bpy.types.Collection, scene: bpy.types.Scene) -> Imported:
    """The import that is in a collection, its own or the artist's. Raises LookupError when there is none."""
    for imported in imported_in(scene):
        if imported.collection == collection:
            return imported
    raise LookupError(f"There is no import in {collection.name}")


def find_imported(context: bpy.types.Context) -> Imported | None:
    """The import that the artist means: that of the active object or its parents, else the scene's only one."""
    ob = context.view_layer.objects.active if context.view_layer else None
    while ob is not None:
        root = ob if ob.get(ROLE) == ROOT else ob.get(ROOT_POINTER)
        if root is not None and root.get(ROLE) == ROOT and root.name in context.scene.objects:
            return Imported(root)
        ob = ob.parent
    imports = imported_in(context.scene)
    return imports[0] if len(imports) == 1 else None
