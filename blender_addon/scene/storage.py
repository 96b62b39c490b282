"""The storages of one import, added, converted and removed: points in the .blend, in linked files, or in pictures.

All of them hang on the same root and are made from the same capture, so any of them can be made from any other. What
the artist chose (material, filters, retiming, place, what hangs on the object) goes over to what replaces it.
"""

from __future__ import annotations

import shutil
from typing import Any

import bpy

from ..wire.capture import Capture
from ..wire.errors import UserError
from .belongings import FRAMES, remove_unused
from .build import make_points
from .images import Timing
from .imported import LINKED, PLAYER, PROJECTED, ROLE, Imported, mark
from .linked import make_linked, write_frames
from .materials import point_material
from .nodes import find_modifier, input_names, set_input
from .options import ImportOptions
from .projected import make_projected, write_sequences
from .projection import LOOK, inherit_use
from .steps import Step, Steps, all_or_nothing, in_thread
from .storage_files import MANIFEST, storage_folder
from .stored import EMBEDDED, LABELS, Stored, find_storage, frames_of, inputs_of, start_frame, storages
from .succession import succeed

#: Inputs of a player that say where its points are, and so are not carried to another storage.
_SOURCES = {"Frames", "Folder", "Depth", "Plate", "Width", "Height", "Root", "Facing"}


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
    material = inputs_of(player)["Material"]
    material[ROLE] = "material"
    for collection in frames_of([player]):
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
    timing = Timing(start_frame(imported, capture), capture.clip.clip_frames)
    return {
        "Start Frame": float(timing.start_frame),
        "Length": float(timing.length),
        "Clip Rate": float(capture.clip.fps),
        "Min Confidence": capture.confidence_default,
    }


def _settings(ob: bpy.types.Object) -> dict[str, Any]:
    """What the artist chose on a player."""
    return {name: value for name, value in inputs_of(ob).items() if name not in _SOURCES}


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
            inputs_of(old.players[0])[name].user_remap(inputs_of(new.players[0])[name])
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


def _remove(stored: Stored) -> None:
    """Remove the objects of a storage, and of what it needed that which nothing else uses."""
    needed: list[bpy.types.ID] = []
    for ob in stored.objects:
        needed += [ob.data, *(value for value in inputs_of(ob).values() if _made_by_import(value))]
        modifier = find_modifier(ob)
        needed += [modifier.node_group] if modifier else []
        needed += [ob[LOOK]] if _made_by_import(ob.get(LOOK)) else []
        if ob.animation_data is not None and ob.animation_data.action is not None:
            needed.append(ob.animation_data.action)
    clouds = [ob for collection in frames_of(stored.objects) for ob in collection.objects]
    needed += [*clouds, *(ob.data for ob in clouds)]
    bpy.data.batch_remove(stored.objects)
    remove_unused(needed)


def _made_by_import(value: Any) -> bool:
    """A collection of clouds, a picture, or a material of ours."""
    if isinstance(value, bpy.types.Material):
        return ROLE in value
    return isinstance(value, bpy.types.Collection | bpy.types.Image)
