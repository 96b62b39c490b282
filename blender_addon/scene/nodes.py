"""Geometry Nodes modifiers of an import: putting them on, and their inputs by name in every Blender from 4.5 on."""

from __future__ import annotations

from typing import Any

import bpy

from . import appearance, graph, player
from .appearance import FILTER, SQUARES
from .attributes import CLIP_FRAME, PIXEL_ANGLE
from .graph import VERSION, VERSION_KEY, Graph
from .player import GHOSTS, OUTSIDE, PLAYER, RETIME, STATIC, TIME
from .steps import Steps

__all__ = ["CLIP_FRAME", "FILTER", "OUTSIDE", "PIXEL_ANGLE", "PLAYER", "STATIC", "VERSION", "Graph"]  # and what follows

_MAKERS = {
    PLAYER: player.make_player,
    STATIC: player.make_static,
    FILTER: appearance.make_filter,
    TIME: player.make_time,
    GHOSTS: player.make_ghosts,
    RETIME: player.make_retime,
    SQUARES: appearance.make_squares,
}


def shared_group(name: str) -> bpy.types.NodeTree:
    """The node group `name` of this file, made when it is not there or of another version."""
    return graph.shared_group(name, _MAKERS[name])


def player_steps() -> Steps[None]:
    """Steps that make the player's group and those that it is made of: all at once they take too long."""
    for name in (TIME, GHOSTS, FILTER, RETIME, SQUARES, PLAYER):
        yield from graph.group_steps(name, _MAKERS[name])


def add_modifier(ob: bpy.types.Object, group: str, inputs: dict[str, Any]) -> bpy.types.Modifier:
    """Put a group on an object and set its inputs by name."""
    modifier = ob.modifiers.new(group, "NODES")
    modifier.node_group = shared_group(group)
    for name, value in inputs.items():
        set_input(modifier, name, value)
    return modifier


def find_modifier(ob: bpy.types.Object) -> bpy.types.Modifier | None:
    """The modifier of an object that a group of ours is on, of whatever version; None when it was taken off."""
    for modifier in ob.modifiers:
        if modifier.type == "NODES" and modifier.node_group is not None and VERSION_KEY in modifier.node_group:
            return modifier
    return None


def input_names(modifier: bpy.types.Modifier) -> list[str]:
    """The inputs of a Geometry Nodes modifier in their order; an earlier version of a group has fewer."""
    return [item.name for item in _inputs(modifier)]


def sections(modifier: bpy.types.Modifier) -> list[tuple[str, str]]:
    """The inputs of a Geometry Nodes modifier in their order, each with the name of the panel that it stands in."""
    return [(item.name, item.parent.name if item.parent else "") for item in _inputs(modifier)]


def _inputs(modifier: bpy.types.Modifier) -> list[Any]:
    items = modifier.node_group.interface.items_tree
    return [
        i for i in items if i.item_type == "SOCKET" and i.in_out == "INPUT" and i.socket_type != "NodeSocketGeometry"
    ]


def _identifier(modifier: bpy.types.Modifier, name: str) -> str:
    return next(item.identifier for item in _inputs(modifier) if item.name == name)


def set_input(modifier: bpy.types.Modifier, name: str, value: Any) -> None:
    """Set an input of a Geometry Nodes modifier by its name, in every Blender from 4.5 on; menus take their text.

    Raises ReferenceError for a datablock that somebody has removed: Blender 4.5 itself crashes on those.
    """
    identifier = _identifier(modifier, name)
    if isinstance(value, bpy.types.ID):
        _ = value.name
    if hasattr(modifier, "properties"):  # 5.2
        getattr(modifier.properties.inputs, identifier).value = value
    else:
        modifier[identifier] = OUTSIDE.index(value) if name == "Outside" else value
    modifier.id_data.update_tag()


def get_input(modifier: bpy.types.Modifier, name: str) -> Any:
    """The value of an input of a Geometry Nodes modifier, menus as their text."""
    identifier = _identifier(modifier, name)
    if hasattr(modifier, "properties"):
        return getattr(modifier.properties.inputs, identifier).value
    return OUTSIDE[modifier[identifier]] if name == "Outside" else modifier[identifier]


def input_path(modifier: bpy.types.Modifier, name: str) -> str:
    """The data path of an input, for drawing it in a panel or keying it; the property is the last part of it."""
    identifier = _identifier(modifier, name)
    if hasattr(modifier, "properties"):
        return f'modifiers["{modifier.name}"].properties.inputs.{identifier}.value'
    return f'modifiers["{modifier.name}"]["{identifier}"]'
