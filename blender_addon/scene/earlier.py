"""Which import a capture updates, and what an import leaves with itself so that it can be updated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import bpy

from ..wire.capture import Capture
from ..wire.errors import UserError
from . import nodes
from .baseline import camera_values, family, modifier_values, remember, write_options
from .belongings import ELEMENTS, FRAMES, belongings, mark_picture
from .identity import CLIP, IDENTITY, identity
from .imported import ROLE, Imported, imported_in, mark
from .options import ImportOptions

if TYPE_CHECKING:
    from .build import Built

#: Roles of the objects that the last import made: one of them that is missing was deleted by the artist.
MADE = "kinora_made"
#: The name that parts of an import begin with when they are made.
NAME = "kinora_name"
#: On the root of an import of a partial capture: how many frames the whole one was to have; 0 of a whole one.
PARTIAL_OF = "kinora_partial_of"
#: What the collection of such an import has at the end of its name.
PARTIAL_MARK = " Partial"


def make_updatable(built: Built, scene_setup: dict[str, Any], options: ImportOptions) -> None:
    """Mark every part of a new import and remember what it sets, so that it can be updated."""
    root = built.root
    root[CLIP], root[IDENTITY], root[NAME] = built.capture.clip.source, identity(built.capture), built.collection.name
    root[MADE] = ",".join(dict.fromkeys(built.roles.values()))
    root[PARTIAL_OF] = built.capture.partial_of or 0
    write_options(root, options)
    remember(root, scene_setup if options.set_scene else {})
    remember(built.camera, camera_values(built.camera.data))
    for ob in built.roles:
        if ob.modifiers:
            remember(ob, modifier_values(ob))
        for value in (nodes.get_input(modifier, name) for modifier, name in inputs_of(ob)):
            if isinstance(value, bpy.types.Collection):
                mark(value, FRAMES, root)
            if isinstance(value, bpy.types.Material):
                value[ROLE] = "material"
    for label, sequence in built.pictures.sequences.items():
        mark_picture(sequence.image, label, root)
    if built.pictures.plate is not None:
        mark_picture(built.pictures.plate, "Plate", root)
    mark(built.elements, ELEMENTS, root)


def find_earlier(scene: bpy.types.Scene, capture: Capture, onto: int | None = None) -> Imported | None:
    """The import of the same clip in a scene, whatever engine made it; or that whose root has the session_uid `onto`.

    A partial capture never updates a whole one; a whole one takes the place of a partial one where there is no other.
    Raises UserError when several could be meant, or it cannot be changed.
    """
    if onto is not None:
        same = [one for one in imported_in(scene) if one.root.session_uid == onto]
        if not same:
            raise UserError("The import that was to be updated is gone", "import the capture as a new one")
    else:
        same = [one for one in imported_in(scene) if one.root.get(CLIP) == capture.clip.source]
        whole = [one for one in same if not one.root.get(PARTIAL_OF)]
        same = [one for one in same if one not in whole] if capture.partial_of else whole or same
    for narrower in (
        [one for one in same if one.folder == capture.folder],
        [one for one in same if one.root.get("kinora_engine") == capture.engine.name],
    ):
        if len(same) > 1 and narrower:
            same = narrower
    if len(same) > 1:
        raise UserError(
            f"This clip was imported {len(same)} times into {scene.name}",
            "select the one that is meant and use Update, or import it as a new one",
        )
    if not same:
        return None
    if not all(d.is_editable for part in belongings(same[0].root) for d in (part, getattr(part, "data", None) or part)):
        raise UserError(f"{same[0].name} is linked from another file", "update it in that file")
    return same[0]


def inputs_of(ob: bpy.types.Object) -> list[tuple[bpy.types.Modifier, str]]:
    """Every input of an object's Geometry Nodes."""
    return [(modifier, name) for modifier in ob.modifiers if family(modifier) for name in nodes.input_names(modifier)]
