"""Everything in a file that one import brought, and taking it away without touching what is the artist's."""

from __future__ import annotations

from collections.abc import Iterator

import bpy

from .changes import Changes
from .imported import PLATE, ROLE, ROOT_POINTER, mark
from .nodes import get_input, input_names

#: Roles of what is not an object.
COLLECTION, FRAMES, PICTURE, ELEMENTS = "collection", "frames", "picture", "elements"
LABEL = "kinora_label"


def mark_picture(picture: bpy.types.ID, label: str, root: bpy.types.Object) -> None:
    """Make an image or movie clip known as what an import shows as `label`."""
    mark(picture, PICTURE, root)
    picture[LABEL] = label


def marked(root: bpy.types.Object, role: str) -> list[bpy.types.ID]:
    """Every datablock of an import with that role, objects in no scene too, in order of their names."""
    found = [d for d in _markable() if d.get(ROOT_POINTER) == root and d.get(ROLE) == role]
    return sorted(found, key=lambda d: d.name)


def pictures(root: bpy.types.Object) -> dict[str, bpy.types.ID]:
    """The images and movie clips of an import by what they show."""
    return {picture[LABEL]: picture for picture in marked(root, PICTURE) if LABEL in picture}


def belongings(root: bpy.types.Object) -> list[bpy.types.ID]:
    """The root and every datablock that is marked as a part of its import, with those of its plate cameras."""
    parts = [d for d in _markable() if d.get(ROOT_POINTER) == root]
    return [root, *parts, *(d for part in parts if part.get(ROLE) == PLATE for d in belongings(part)[1:])]


def remove_import(root: bpy.types.Object) -> None:
    """Take an import out of the file: its objects and collections, and what nothing else uses of the rest.

    Objects of the artist stay where they are in the world: in the import's collection they move to the collection
    above it, under one of its objects they lose that parent. What the artist uses elsewhere, a mask in a compositor
    or the material on an object, stays too.
    """
    parts = belongings(root)
    objects = [d for d in parts if isinstance(d, bpy.types.Object)]
    collections = [d for d in parts if isinstance(d, bpy.types.Collection)]
    frames = [ob for c in collections if c.get(ROLE) == FRAMES for ob in c.objects if "kinora_frame" in ob]
    ours = {*objects, *frames}
    with Changes() as changes:
        for ob in [ob for ob in bpy.data.objects if ob not in ours and ob.parent in ours]:
            free(ob, changes)
        for collection in collections:
            _hand_over(collection, ours)
    rest = [d for d in parts if d not in ours and d not in collections]
    rest += [d for ob in ours for d in _needs(ob)]
    bpy.data.batch_remove([*ours, *collections])
    remove_unused(rest)


def free(ob: bpy.types.Object, changes: Changes) -> None:
    """Take the parent of an object away and leave it where it is."""
    world, basis = ob.matrix_world.copy(), ob.matrix_basis.copy()
    changes.set(ob, "parent", None)
    changes.do(lambda: setattr(ob, "matrix_world", world), lambda: setattr(ob, "matrix_basis", basis))


def remove_unused(datablocks: list[bpy.types.ID]) -> None:
    """Remove those that nothing uses any more, and then those that only they used. Dead ones may be among them."""
    left = [d for d in dict.fromkeys(datablocks) if d is not None and _lives(d)]
    # Not by their count of users: Blender 5.2 counts an input of a modifier once more each time the file is saved.
    while left and (unused := [d for d, users in bpy.data.user_map(subset=left).items() if not users]):
        left = [d for d in left if d not in unused]
        bpy.data.batch_remove(unused)


def _lives(datablock: bpy.types.ID) -> bool:
    try:
        return bool(datablock.name_full)
    except ReferenceError:
        return False


def _needs(ob: bpy.types.Object) -> Iterator[bpy.types.ID]:
    """What an object of an import came with: its data, animation, node groups and materials."""
    for owner in filter(None, (ob, ob.data)):
        yield owner
        if owner.animation_data is not None and owner.animation_data.action is not None:
            yield owner.animation_data.action
    for modifier in ob.modifiers:
        group = getattr(modifier, "node_group", None)
        if group is None or "kinora_version" not in group:
            continue
        yield from (value for name in input_names(modifier) if _ours(value := get_input(modifier, name)))
        yield from _with_nested(group)


def _ours(value: object) -> bool:
    """A material that an import made."""
    return isinstance(value, bpy.types.Material) and ROLE in value


def _with_nested(group: bpy.types.NodeTree) -> Iterator[bpy.types.ID]:
    """A group of ours, the groups and the objects in it."""
    yield group
    for node in group.nodes:
        for socket in node.inputs:
            if socket.type == "OBJECT" and socket.default_value is not None:
                yield from (socket.default_value, socket.default_value.data)
        nested = getattr(node, "node_tree", None)
        if nested is not None and "kinora_version" in nested:
            yield from _with_nested(nested)


def _hand_over(collection: bpy.types.Collection, ours: set[bpy.types.Object]) -> None:
    """Give what the artist put into a collection of ours to the collections above it."""
    above = [c for c in bpy.data.collections if collection.name in c.children]
    above += [scene.collection for scene in bpy.data.scenes if collection.name in scene.collection.children]
    for parent in above:
        for ob in collection.objects:
            if ob not in ours and ob.name not in parent.objects:
                parent.objects.link(ob)
        for child in collection.children:
            if child.get(ROOT_POINTER) is None and child.name not in parent.children:
                parent.children.link(child)


def _markable() -> Iterator[bpy.types.ID]:
    """Every datablock that may be marked as a part of an import."""
    data = bpy.data
    kinds = (data.objects, data.collections, data.images, data.movieclips, data.node_groups, data.materials, data.masks)
    for kind in kinds:
        yield from kind
