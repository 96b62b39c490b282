"""The storages of one import, added, converted and removed: points in the .blend, in linked files, or in pictures.

All of them hang on the same root and are made from the same capture, so any of them can be made from any other. What
the artist chose (material, filters, retiming, place, what hangs on the object) goes over to what replaces it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy

from ..wire.capture import Capture
from ..wire.errors import UserError
from .belongings import FRAMES, remove_unused
from .build import make_points
from .images import Timing
from .imported import LINKED, PLAYER, PROJECTED, ROLE, STATIC, Imported, mark
from .keys import keyed
from .linked import make_linked, write_frames
from .materials import point_material
from .nodes import find_modifier, get_input, input_names, set_input
from .options import ImportOptions
from .projected import make_projected, write_sequences
from .projection import LOOK, inherit_use
from .steps import Step, Steps, all_or_nothing, in_thread
from .storage_files import MANIFEST, size_of, storage_folder
from .succession import succeed

EMBEDDED = "embedded"

#: Storage -> the roles of its objects; the first is that of what the artist adjusts.
ROLES = {EMBEDDED: (PLAYER, STATIC), LINKED: (LINKED,), PROJECTED: (PROJECTED,)}
LABELS = {EMBEDDED: "Embedded", LINKED: "Linked", PROJECTED: "Depth-Projected"}

#: Inputs of a player that say where its points are, and so are not carried to another storage.
_SOURCES = {"Frames", "Folder", "Depth", "Plate", "Width", "Height", "Root", "Facing"}


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
        frames = {ob.data for collection in _frames(self.objects) for ob in collection.objects}
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
    inputs = _inputs(ob)
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


def add_storage(imported: Imported, kind: str, split: bool = True, directory: str = "") -> Steps[Stored]:
    """Make one more storage of an import, with the settings of one that it has; steps, all or nothing.

    `split` keeps what stands still of an embedded one apart. Files go to `directory`, else beside the .blend, or
    beside the capture while that is not saved. Raises UserError when the import has this storage, the capture is gone,
    the camera that a depth-projected one needs was deleted, or files cannot be written.
    """
    _check_free(imported, kind)
    return all_or_nothing(_make(imported, None, kind, split, directory))


def convert_storage(
    imported: Imported, source: str, kind: str, split: bool = True, directory: str = ""
) -> Steps[Stored]:
    """Replace a storage by another one, or make it again from the capture as it is now; see `add_storage`.

    Each player of the source becomes one with the same material, filters and times, at the same place, with what the
    artist hung on it and what else points to it. Files of the source stay on the disk.
    """
    if kind != source:
        _check_free(imported, kind)
    return all_or_nothing(_make(imported, find_storage(imported, source), kind, split, directory))


def _check_free(imported: Imported, kind: str) -> None:
    if any(stored.kind == kind for stored in storages(imported)):
        raise UserError(f"{imported.name} has {LABELS[kind]} points already", "remove those first")


def remove_storage(imported: Imported, kind: str, delete_files: bool = False) -> None:
    """Take a storage out of the file, and nothing else; what hangs on its objects hangs on the root from now on.

    `delete_files` deletes its folder too. Raises UserError when there is no such storage.
    """
    old = find_storage(imported, kind)
    files = old.files
    for child in _children(old):
        _hang(child, imported.root)
    _remove(old)
    if delete_files and files is not None and (files / MANIFEST).is_file():
        shutil.rmtree(files, ignore_errors=True)


def _make(imported: Imported, old: Stored | None, kind: str, split: bool, directory: str) -> Steps[Stored]:
    """Build everything, then link it and let the old storage go."""
    yield Step("Reading", 0.0)
    capture = imported.capture()
    if kind == PROJECTED and imported.camera is None:
        raise UserError(f"{imported.name} has no camera", "depth-projected points need the one of the import")
    likeness = old or next(iter(storages(imported)), None)
    likes = likeness.players if likeness else []
    likes = likes if old else likes[:1]
    settings = [_defaults(imported, capture) | _settings(ob) for ob in likes] or [_defaults(imported, capture)]
    if kind == EMBEDDED:
        made = yield from _embed(imported, capture, split, settings)
    else:
        made = yield from _with_files(imported, capture, kind, settings, directory)
    yield Step("Linking", 0.99)
    for i, (ob, role) in enumerate(made.items()):
        mark(ob, role, imported.root)
        _place(imported, ob, likes[min(i, len(likes) - 1)] if likes else None)
    new = Stored(kind, tuple(made))
    if old is not None:
        _take_over(imported, old, new)
    return new


def _embed(
    imported: Imported, capture: Capture, split: bool, settings: list[dict[str, Any]]
) -> Steps[dict[bpy.types.Object, str]]:
    """Clouds in the .blend, and a player of them for each of the settings."""
    options = ImportOptions(storage="split" if split else "frames")
    timing = Timing(options.start_frame, capture.clip.clip_frames)
    made, _ = yield from make_points(capture, imported.name, timing, options)
    player = next(ob for ob, role in made.items() if role == PLAYER)
    material = _inputs(player)["Material"]
    material[ROLE] = "material"
    for collection in _frames([player]):
        mark(collection, FRAMES, imported.root)
    others = {player.copy(): PLAYER for _ in settings[1:]}
    players = [player, *others]
    for ob, values in zip(players, settings):
        _set(ob, values)
    for ob in made.keys() - {player}:
        _set(ob, settings[0])
    remove_unused([material])
    return {player: PLAYER, **others, **made}


def _with_files(
    imported: Imported, capture: Capture, kind: str, settings: list[dict[str, Any]], directory: str
) -> Steps[dict[bpy.types.Object, str]]:
    """Files that are not there yet, and a player of them for each of the settings."""
    folder = storage_folder(capture, kind, directory)
    if not folder.exists():
        if kind == LINKED:
            yield from in_thread("Writing points", (0.0, 0.9), lambda p: write_frames(capture, folder, p))
        else:
            yield from write_sequences(capture, folder, (0.0, 0.9))
    made = {}
    for values in settings:
        if values.get("Material") is None:
            values["Material"] = point_material(f"{imported.name} Points")
            values["Material"][ROLE] = "material"
        name = f"{imported.name} {LABELS[kind]}"
        if kind == LINKED:
            ob = make_linked(capture, name, folder, {})
        else:
            ob = make_projected(capture, name, folder, imported.camera, imported.root, {})
        _set(ob, values)
        made[ob] = kind
    return made


def _defaults(imported: Imported, capture: Capture) -> dict[str, Any]:
    """What a player of this import is set to where no other one says otherwise."""
    timing = Timing(_start_frame(imported, capture), capture.clip.clip_frames)
    return {
        "Start Frame": float(timing.start_frame),
        "Length": float(timing.length),
        "Clip Rate": float(capture.clip.fps),
        "Min Confidence": capture.confidence_default,
    }


def _start_frame(imported: Imported, capture: Capture) -> int:
    """The scene frame of the first frame of the capture, as the camera's keys have it; 1 when it has none."""
    curves = keyed(imported.camera, "location") if imported.camera else []
    if not curves:
        return 1
    return round(curves[0].range()[0]) - int(capture.clip.clip_frames[capture.has_camera][0])


def _inputs(ob: bpy.types.Object) -> dict[str, Any]:
    """The inputs of the nodes of an object, by name; none when the artist took them off."""
    modifier = find_modifier(ob)
    return {name: get_input(modifier, name) for name in input_names(modifier)} if modifier else {}


def _settings(ob: bpy.types.Object) -> dict[str, Any]:
    """What the artist chose on a player."""
    return {name: value for name, value in _inputs(ob).items() if name not in _SOURCES}


def _set(ob: bpy.types.Object, values: dict[str, Any]) -> None:
    modifier = find_modifier(ob)
    for name in input_names(modifier):
        if name in values:
            set_input(modifier, name, values[name])


def _place(imported: Imported, ob: bpy.types.Object, like: bpy.types.Object | None) -> None:
    """Put a new object where another one is; one of the two that hangs on the camera has a place of its own."""
    hangs = PROJECTED in (ob[ROLE], like[ROLE] if like else "")
    if like is None:
        imported.collection.objects.link(ob)
    else:
        succeed(ob, like, same_place=not hangs)
        inherit_use(imported, ob, like)
    if like is None or hangs:
        ob.parent = imported.camera if ob[ROLE] == PROJECTED else imported.root


def _take_over(imported: Imported, old: Stored, new: Stored) -> None:
    """Give what points to the old objects the new ones, and remove the old."""
    for child in _children(old) if PROJECTED in (old.kind, new.kind) else []:
        _hang(child, imported.root)
    if old.kind == new.kind == PROJECTED:  # a material may show them
        for name in ("Depth", "Plate"):
            _inputs(old.players[0])[name].user_remap(_inputs(new.players[0])[name])
    heirs = [*new.players[: len(old.players)], *[new.players[0]] * len(old.objects)]
    for ob, heir in zip([*old.players, *(ob for ob in old.objects if ob not in old.players)], heirs):
        for collection in ob.users_collection:
            collection.objects.unlink(ob)
        ob.user_remap(heir)
    _remove(old)


def _children(stored: Stored) -> list[bpy.types.Object]:
    return [child for ob in stored.objects for child in ob.children if child not in stored.objects]


def _hang(ob: bpy.types.Object, parent: bpy.types.Object) -> None:
    """Give an object another parent and leave it where it is."""
    world = ob.matrix_world.copy()
    ob.parent, ob.parent_type = parent, "OBJECT"
    ob.matrix_world = world


def _frames(objects: Iterable[bpy.types.Object]) -> set[bpy.types.Collection]:
    """The collections of clouds that players show."""
    return {frames for ob in objects if (frames := _inputs(ob).get("Frames")) is not None}


def _bytes(cloud: bpy.types.PointCloud) -> int:
    return len(cloud.points) * sum(_SIZES.get(attribute.data_type, 4) for attribute in cloud.attributes)


_SIZES = {"FLOAT_VECTOR": 12, "BOOLEAN": 1, "INT8": 1}


def _remove(stored: Stored) -> None:
    """Remove the objects of a storage, and of what it needed that which nothing else uses."""
    needed: list[bpy.types.ID] = []
    for ob in stored.objects:
        needed += [ob.data, *(value for value in _inputs(ob).values() if _made_by_import(value))]
        modifier = find_modifier(ob)
        needed += [modifier.node_group] if modifier else []
        needed += [ob[LOOK]] if _made_by_import(ob.get(LOOK)) else []
        if ob.animation_data is not None and ob.animation_data.action is not None:
            needed.append(ob.animation_data.action)
    clouds = [ob for collection in _frames(stored.objects) for ob in collection.objects]
    needed += [*clouds, *(ob.data for ob in clouds)]
    bpy.data.batch_remove(stored.objects)
    remove_unused(needed)


def _made_by_import(value: Any) -> bool:
    """A collection of clouds, a picture, or a material of ours."""
    if isinstance(value, bpy.types.Material):
        return ROLE in value
    return isinstance(value, bpy.types.Collection | bpy.types.Image)
