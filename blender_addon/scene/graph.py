"""Geometry node groups, written as code: nodes by their kind, sockets by their name.

Sockets are found by name among the enabled ones, as their positions differ between Blender 4.5 and 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy

from .steps import Step, Steps, finish

#: Written on every group. A group never changes once it is in somebody's file: a new version is a new group.
VERSION = 2
VERSION_KEY = "kinora_version"

LINKED_AT_ONCE = 30  # links that one step makes


def shared_group(name: str, make: Callable[[], Graph]) -> bpy.types.NodeTree:
    """The node group `name` of this file in this version, made when it is not there."""
    return finish(group_steps(name, make))


def group_steps(name: str, make: Callable[[], Graph]) -> Steps[bpy.types.NodeTree]:
    """`shared_group` in steps: with every node and link, Blender looks through the whole group."""
    for tree in bpy.data.node_groups:
        if tree.library is None and tree.name.split(".")[0] == name and tree.get(VERSION_KEY) == VERSION:
            return tree
    graph = make()
    tree = graph.tree
    for number, (start, end) in enumerate(graph.links):
        if number % LINKED_AT_ONCE == 0:
            yield Step("Points", 0.0)
        tree.links.new(start, end)
    arrange(tree)
    tree[VERSION_KEY] = VERSION
    yield Step("Points", 0.0)
    return tree


class Graph:
    """A node group under construction: `graph.math('ADD', a, b)` adds a node and returns its output socket.

    `links` are those between its sockets, still to be made.
    """

    def __init__(self, name: str, **outputs: str) -> None:
        """`outputs` are the kinds of what the group gives back, by name; a Geometry when none is named."""
        self.tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
        self.links: list[tuple[Any, Any]] = []
        self.panel = None
        self.socket("Geometry", "Geometry")
        for output, kind in (outputs or {"Geometry": "Geometry"}).items():
            self.tree.interface.new_socket(output, in_out="OUTPUT", socket_type=f"NodeSocket{kind}")
        self.inputs = self.tree.nodes.new("NodeGroupInput")

    def section(self, name: str, *, closed: bool = False) -> None:
        """Inputs made from here on stand in the panel `name` of the modifier."""
        self.panel = self.tree.interface.new_panel(name, default_closed=closed)

    def socket(self, name: str, kind: str, default: Any = None, help: str = "", **limits: Any) -> Any:
        """Declare an input of the group."""
        item = self.tree.interface.new_socket(
            name, in_out="INPUT", socket_type=f"NodeSocket{kind}", description=help, parent=self.panel
        )
        for key, value in ({} if default is None else {"default_value": default} | limits).items():
            setattr(item, key, value)
        return item

    def input(self, name: str) -> Any:
        """The output socket of the group's input `name`."""
        return next(s for s in self.inputs.outputs if s.name == name)

    def node(
        self, kind: str, inputs: dict[str, Any] | None = None, output: str | None = None, **properties: Any
    ) -> Any:
        """Add a node, set its properties, feed its inputs (sockets or values), return its output socket."""
        node = self.tree.nodes.new(kind)
        for key, value in properties.items():
            setattr(node, key, value)
        for name, value in (inputs or {}).items():
            self.feed(next(s for s in node.inputs if s.enabled and s.name == name), value)
        return next(s for s in node.outputs if s.enabled and (output is None or s.name == output))

    def feed(self, socket: Any, value: Any) -> None:
        if isinstance(value, bpy.types.NodeSocket):
            self.links.append((value, socket))
        else:
            socket.default_value = value

    def _operation(self, kind: str, operation: str, values: tuple[Any, ...]) -> Any:
        node = self.tree.nodes.new(kind)
        node.operation = operation
        for socket, value in zip(node.inputs, values):
            self.feed(socket, value)
        return next(s for s in node.outputs if s.enabled)

    def math(self, operation: str, *values: Any) -> Any:
        return self._operation("ShaderNodeMath", operation, values)

    def vector(self, operation: str, *values: Any) -> Any:
        return self._operation("ShaderNodeVectorMath", operation, values)

    def logic(self, operation: str, *values: Any) -> Any:
        return self._operation("FunctionNodeBooleanMath", operation, values)

    def switch(self, kind: str, condition: Any, false: Any, true: Any) -> Any:
        """One of two values; the other one costs nothing. `false` or `true` may be None for nothing."""
        inputs = {"Switch": condition, "False": false, "True": true}
        given = {name: value for name, value in inputs.items() if value is not None}
        return self.node("GeometryNodeSwitch", given, input_type=kind)

    def attribute(self, name: str, data_type: str, output: str = "Attribute") -> Any:
        return self.node("GeometryNodeInputNamedAttribute", {"Name": name}, output, data_type=data_type)

    def sample(self, geometry: Any, value: Any, index: Any, data_type: str = "FLOAT") -> Any:
        """The value that a field has at one point of a geometry."""
        inputs = {"Geometry": geometry, "Value": value, "Index": index}
        return self.node("GeometryNodeSampleIndex", inputs, data_type=data_type)

    def menu(self, name: str, choices: tuple[str, ...], help: str) -> Any:
        """Declare a menu input and return the number of the chosen row."""
        item = self.socket(name, "Menu", help=help)
        node = self.tree.nodes.new("GeometryNodeMenuSwitch")
        node.data_type = "FLOAT"
        # The two rows that a new node has carry the values 0 and 1: renamed, so that the values are 0, 1, 2 ...
        for row, choice in zip(node.enum_items, choices):
            row.name = choice
        for choice in choices[len(node.enum_items) :]:
            node.enum_items.new(choice)
        self.tree.links.new(self.input(name), node.inputs["Menu"])
        for number, choice in enumerate(choices):
            node.inputs[choice].default_value = number
        item.default_value = choices[0]
        return node.outputs[0]

    def group(self, tree: bpy.types.NodeTree, inputs: dict[str, Any]) -> Any:
        """Use another group; returns its output sockets, by name."""
        node = self.tree.nodes.new("GeometryNodeGroup")
        node.node_tree = tree
        for name, value in inputs.items():
            self.feed(node.inputs[name], value)
        return node.outputs

    def finish(self, *outputs: Any) -> Graph:
        """Connect what the group gives back, in the order declared."""
        self.links += zip(outputs, self.tree.nodes.new("NodeGroupOutput").inputs)
        return self


def arrange(tree: bpy.types.NodeTree) -> None:
    """Lay the nodes out in columns, by their distance from the group's inputs."""
    depth = {node: 0 for node in tree.nodes}
    links = [(link.from_node, link.to_node) for link in tree.links]
    moved = True
    while moved:
        moved = False
        for start, end in links:
            if depth[end] <= depth[start]:
                depth[end], moved = depth[start] + 1, True
    rows: dict[int, int] = {}
    places = []
    for node in tree.nodes:
        rows[depth[node]] = rows.get(depth[node], -1) + 1
        places += (220.0 * depth[node], -180.0 * rows[depth[node]])
    tree.nodes.foreach_set("location", places)  # one by one, the whole tree would be looked through for each
