"""The players of an import: finding them, adding one that shows a part of the same frames."""

from __future__ import annotations

import bpy
import numpy as np

from ..wire.errors import UserError
from . import nodes
from .attributes import OBJECT
from .graph import VERSION, VERSION_KEY
from .imported import PLAYER, STATIC, Imported
from .nodes import find_modifier, get_input, set_input
from .repair import Disorder, find_disorder

#: What an added player shows.
SHOWS = ("static", "dynamic", "object")


def players_of(imported: Imported) -> list[bpy.types.Object]:
    """The objects of an import that show embedded points and still have the nodes for it; players first."""
    return [ob for role in (PLAYER, STATIC) for ob in imported.objects(role) if find_modifier(ob) is not None]


def plays_frames(player: bpy.types.Object) -> bool:
    """Whether a player shows a collection of frames, else its own points: the static set that is kept apart."""
    return "Frames" in nodes.input_names(find_modifier(player))


def frames_of(player: bpy.types.Object) -> bpy.types.Collection | None:
    """The collection whose clouds a player shows; None for one that shows its own points, or none any more."""
    return get_input(find_modifier(player), "Frames") if plays_frames(player) else None


def frames_in(imported: Imported) -> dict[bpy.types.Collection, int]:
    """The collections of frames that the players of an import show, with how many frames each ought to hold."""
    found = ((frames_of(ob), len(ob.data.points)) for ob in players_of(imported) if ob.type == "POINTCLOUD")
    return {frames: count for frames, count in found if frames is not None}


def disorders(imported: Imported) -> dict[bpy.types.Collection, Disorder]:
    """The collections of frames of an import that are out of order, and how."""
    found = {frames: find_disorder(frames, count) for frames, count in frames_in(imported).items()}
    return {frames: disorder for frames, disorder in found.items() if disorder}


def point_count(player: bpy.types.Object) -> int:
    """Number of points that a player has to show, over all of its frames."""
    if not plays_frames(player):
        return len(player.data.points) if player.type == "POINTCLOUD" else 0
    frames = frames_of(player)
    return 0 if frames is None else sum(len(ob.data.points) for ob in frames.objects if ob.type == "POINTCLOUD")


def mover_numbers(frames: bpy.types.Collection) -> list[int]:
    """The numbers of the movers in a collection of frames; none when the capture does not tell them apart."""
    numbers: set[int] = set()
    for cloud in (ob.data for ob in frames.objects if ob.type == "POINTCLOUD"):
        if OBJECT in cloud.attributes:
            values = np.empty(len(cloud.points), np.int32)
            cloud.attributes[OBJECT].data.foreach_get("value", values)
            numbers.update(np.unique(values).tolist())
    return sorted(numbers - {0})


def add_player(imported: Imported, show: str, object_id: int = 0) -> bpy.types.Object:
    """Add a player that shows a part of the import's points, otherwise as its first player does; no data is copied.

    `show` is one of SHOWS; `object_id` is the mover that 'object' shows, 0 the first one without a player of its own.
    Raises UserError when the import has no such points.
    """
    players = players_of(imported)
    moving = [ob for ob in players if frames_of(ob) is not None]
    apart = [ob for ob in players if not plays_frames(ob)]
    source = next(iter(apart if show == "static" and apart else moving), None)
    if source is None:
        raise UserError(f"The points of {imported.name} are not in this file any more", "import the capture again")
    if show == "object":
        object_id = _mover(imported, mover_numbers(frames_of(source)), moving, object_id)
    name = {"static": "Static", "dynamic": "Moving", "object": f"Object {object_id}"}[show]
    player = source.copy()
    player.name = f"{imported.name} {name}"
    modifier = _renewed(player)
    set_input(modifier, "Show Static", show == "static")
    set_input(modifier, "Show Dynamic", show != "static")
    set_input(modifier, "Object", object_id if show == "object" else 0)
    imported.collection.objects.link(player)
    return player


def _mover(imported: Imported, numbers: list[int], players: list[bpy.types.Object], object_id: int) -> int:
    """The mover that is meant, of those there are."""
    if not numbers:
        raise UserError(f"The capture of {imported.name} does not tell its movers apart")
    if object_id == 0:
        modifiers = [find_modifier(ob) for ob in players]
        shown = {get_input(m, "Object") for m in modifiers if "Object" in nodes.input_names(m)}
        object_id = next((number for number in numbers if number not in shown), 0)
        if object_id == 0:
            raise UserError(f"Every mover of {imported.name} has a player already", "choose one by its number")
    if object_id not in numbers:
        there = ", ".join(map(str, numbers))
        raise UserError(f"{imported.name} has no mover {object_id}", f"choose one of these: {there}")
    return object_id


def _renewed(player: bpy.types.Object) -> bpy.types.Modifier:
    """The modifier of a player; one of an earlier version is replaced by today's, with the same values."""
    modifier = find_modifier(player)
    if modifier.node_group[VERSION_KEY] == VERSION:
        return modifier
    values = {name: get_input(modifier, name) for name in nodes.input_names(modifier)}
    group = nodes.PLAYER if "Frames" in values else nodes.STATIC
    player.modifiers.remove(modifier)
    player.animation_data_clear()  # keys of the old inputs
    return nodes.add_modifier(player, group, values)
