"""The storages that an import has: which there are, what they take, what is wrong with their files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from ..wire.capture import Capture
from ..wire.errors import UserError
from .imported import LINKED, PLAYER, PROJECTED, ROLE, STATIC, Imported
from .keys import keyed
from .nodes import find_modifier, get_input, input_names
from .storage_files import MANIFEST, size_of

EMBEDDED = "embedded"

#: Storage -> the roles of its objects; the first is that of what the artist adjusts.
ROLES = {EMBEDDED: (PLAYER, STATIC), LINKED: (LINKED,), PROJECTED: (PROJECTED,)}
LABELS = {EMBEDDED: "Embedded", LINKED: "Linked", PROJECTED: "Depth-Projected"}


@dataclass(frozen=True)
class Stored:
    """One storage of an import, as it stands in the file. It holds on to objects: make it when it is needed."""

    kind: str
    objects: tuple[bpy.types.Object, ...]

    @property
    def players(self) -> list[bpy.types.Object]:
        """The objects that the artist adjusts: one, or one for each set of filters."""
        return [ob for ob in self.objects if ob[ROLE] == ROLES[self.kind][0]]

    @property
    def files(self) -> Path | None:
        """The folder that its nodes read; None when its points are in the .blend."""
        return next((Path(bpy.path.abspath(path)) for ob in self.objects if (path := files_of(ob))), None)

    @property
    def bytes(self) -> int:
        """Bytes of its files on the disk, else of its points in memory and in the .blend."""
        return size_of(self.files) if self.files else sum(map(_bytes, self._clouds()))

    def _clouds(self) -> set[bpy.types.PointCloud]:
        frames = {ob.data for collection in frames_of(self.objects) for ob in collection.objects}
        return frames | {ob.data for ob in self.objects if ob[ROLE] == STATIC}


def storages(imported: Imported) -> list[Stored]:
    """The storages that an import has now."""
    found = ((kind, [ob for role in roles for ob in imported.objects(role)]) for kind, roles in ROLES.items())
    return [Stored(kind, tuple(objects)) for kind, objects in found if objects]


def find_storage(imported: Imported, kind: str) -> Stored:
    """The storage of that kind. Raises UserError when the import does not have it."""
    for stored in storages(imported):
        if stored.kind == kind:
            return stored
    raise UserError(f"{imported.name} has no {LABELS[kind]} points")


def files_of(ob: bpy.types.Object) -> str:
    """The folder that the nodes of an object read, as Blender keeps the path; empty when they read none."""
    inputs = inputs_of(ob)
    picture = inputs.get("Depth")
    return inputs.get("Folder") or (picture.filepath.replace("\\", "/").rpartition("/")[0] if picture else "")


def problems(stored: Stored) -> list[str]:
    """What is wrong with the files of a storage, as sentences: gone, or unreadable at the frame that is shown."""
    if stored.files is None:
        return []
    if not (stored.files / MANIFEST).is_file():
        return [f"Its files are not at {stored.files}: frames are empty"]
    modifiers = [modifier for ob in stored.players if (modifier := find_modifier(ob))]
    errors = {w.message for modifier in modifiers for w in modifier.node_warnings if w.type == "ERROR"}
    return [f"This frame is empty, its file cannot be read ({message})" for message in sorted(errors)]


def start_frame(imported: Imported, capture: Capture) -> int:
    """The scene frame of the first frame of the capture: as its players say, else the camera's keys, else 1."""
    players = (ob for stored in storages(imported) for ob in stored.players)
    said = next((frame for ob in players if (frame := inputs_of(ob).get("Start Frame")) is not None), None)
    if said is not None:
        return round(said)
    curves = keyed(imported.camera, "location") if imported.camera else []
    return round(curves[0].range()[0]) - int(capture.clip.clip_frames[capture.has_camera][0]) if curves else 1


def inputs_of(ob: bpy.types.Object) -> dict[str, Any]:
    """The inputs of the nodes of an object, by name; none when the artist took them off."""
    modifier = find_modifier(ob)
    return {name: get_input(modifier, name) for name in input_names(modifier)} if modifier else {}


def frames_of(objects: Iterable[bpy.types.Object]) -> set[bpy.types.Collection]:
    """The collections of clouds that players show."""
    return {frames for ob in objects if (frames := inputs_of(ob).get("Frames")) is not None}


def _bytes(cloud: bpy.types.PointCloud) -> int:
    return len(cloud.points) * sum(_SIZES.get(attribute.data_type, 4) for attribute in cloud.attributes)


_SIZES = {"FLOAT_VECTOR": 12, "BOOLEAN": 1, "INT8": 1}
