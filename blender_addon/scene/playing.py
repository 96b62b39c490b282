"""What the players of files share: putting a node group on an object, and the size of a point."""

from __future__ import annotations

from typing import Any

import bpy

from .attributes import PIXEL_ANGLE
from .graph import Graph
from .nodes import set_input


def add_player(ob: bpy.types.Object, tree: bpy.types.NodeTree, inputs: dict[str, Any]) -> bpy.types.Modifier:
    """Put a group on an object, as a modifier of the group's name, and set its inputs by name."""
    modifier = ob.modifiers.new(tree.name.split(".")[0], "NODES")
    modifier.node_group = tree
    for name, value in inputs.items():
        set_input(modifier, name, value)
    return modifier


def pixel_radius(graph: Graph, eye: Any, index: Any) -> Any:
    """Half the width of `Point Size` pixels of the camera at `eye`; the object's own points are the T cameras."""
    angle = graph.sample(graph.input("Geometry"), graph.attribute(PIXEL_ANGLE, "FLOAT"), index)
    half_width = graph.math("MULTIPLY", graph.math("MULTIPLY", angle, graph.input("Point Size")), 0.5)
    return graph.math("MULTIPLY", graph.vector("DISTANCE", graph.node("GeometryNodeInputPosition"), eye), half_width)
