"""Geometry Nodes that play a capture: pick this frame's cloud, filter it, size its points.

The groups need no handler and no add-on: a .blend that holds them plays and renders anywhere (specs/blender.md, 2.2).
Sockets are found by name among the enabled ones, as their positions differ between Blender 4.5 and 5.2.
"""

from __future__ import annotations

from typing import Any

import bpy

PLAYER = "Kinora Player"
FILTER = "Kinora Filter"
STATIC = "Kinora Static"
VERSION = 1

#: What happens before the first and after the last frame of a capture; the order is that of the menu's values.
OUTSIDE = ("Hold", "Loop", "Hide")

# Attributes of the carrier, whose points are the T cameras of the capture, and of every cloud.
CLIP_FRAME = "clip_frame"
PIXEL_ANGLE = "pixel_angle"
COLOR, CONFIDENCE, DYNAMIC = "Color", "confidence", "dynamic"  # Cycles takes "color" for a volume's: black


class Graph:
    """A node group under construction: `graph.math('ADD', a, b)` adds a node and returns its output socket."""

    def __init__(self, name: str) -> None:
        self.tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
        self.tree["kinora_version"] = VERSION
        self.panel = None
        self.geometry_in = self.socket("Geometry", "Geometry")
        self.tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
        self.inputs = self.tree.nodes.new("NodeGroupInput")

    def section(self, name: str) -> None:
        """Inputs made from here on stand in the panel `name` of the modifier."""
        self.panel = self.tree.interface.new_panel(name)

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
            self.tree.links.new(value, socket)
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

    def attribute(self, name: str, data_type: str) -> Any:
        return self.node("GeometryNodeInputNamedAttribute", {"Name": name}, "Attribute", data_type=data_type)

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

    def finish(self, geometry: Any) -> bpy.types.NodeTree:
        self.tree.links.new(geometry, self.tree.nodes.new("NodeGroupOutput").inputs[0])
        _arrange(self.tree)
        return self.tree


def _filter_inputs(graph: Graph) -> None:
    graph.section("Points")
    graph.socket(
        "Point Size", "Float", 1.5, "Width of a point in pixels of the capture, seen from its own camera", min_value=0.0
    )
    graph.socket("Density", "Float", 1.0, "Share of the points to keep", min_value=0.0, max_value=1.0, subtype="FACTOR")
    graph.socket("Min Confidence", "Float", 0.0, "Hide points that are less certain than this", min_value=0.0)
    graph.socket("Show Static", "Bool", True, "Show what stands still")
    graph.socket("Show Dynamic", "Bool", True, "Show what moves by itself")
    graph.socket("Material", "Material")


_FILTERS = ("Density", "Min Confidence", "Show Static", "Show Dynamic")


def _make_filter() -> bpy.types.NodeTree:
    """Delete what the artist does not want to see; a cloud that nothing is taken from passes untouched."""
    graph = Graph(FILTER)
    _filter_inputs(graph)
    geometry, density, least = graph.input("Geometry"), graph.input("Density"), graph.input("Min Confidence")
    show_static, show_dynamic = graph.input("Show Static"), graph.input("Show Dynamic")
    sparse, thresholded = graph.math("LESS_THAN", density, 1.0), graph.math("GREATER_THAN", least, 0.0)
    partial = graph.logic("NAND", show_static, show_dynamic)

    def when(used: Any, field: Any) -> Any:
        """The field where it is used at all: what is switched off costs nothing at each frame."""
        return graph.node("GeometryNodeSwitch", {"Switch": used, "True": field}, input_type="BOOLEAN")

    # Confidences are stored as float16 in a capture: 0.1 comes back as 0.09998 and must pass a threshold of 0.1.
    uncertain = graph.math("LESS_THAN", graph.attribute(CONFIDENCE, "FLOAT"), graph.math("MULTIPLY", least, 0.999))
    chance = graph.node("FunctionNodeRandomValue", {"Min": 0.0, "Max": 1.0}, data_type="FLOAT")
    unlucky = graph.math("GREATER_THAN", chance, density)
    dynamic = graph.attribute(DYNAMIC, "BOOLEAN")
    unwanted = graph.logic(
        "OR",
        graph.logic("AND", dynamic, graph.logic("NOT", show_dynamic)),
        graph.logic("NIMPLY", graph.logic("NOT", show_static), dynamic),
    )
    selection = graph.logic("OR", when(thresholded, uncertain), when(sparse, unlucky))
    selection = graph.logic("OR", selection, when(partial, unwanted))
    filtered = graph.node("GeometryNodeDeleteGeometry", {"Geometry": geometry, "Selection": selection}, domain="POINT")
    needed = graph.logic("OR", graph.logic("OR", thresholded, sparse), partial)
    choice = {"Switch": needed, "False": geometry, "True": filtered}
    return graph.finish(graph.node("GeometryNodeSwitch", choice, input_type="GEOMETRY"))


def _filtered(graph: Graph, geometry: Any) -> Any:
    node = graph.tree.nodes.new("GeometryNodeGroup")
    node.node_tree = shared_group(FILTER)
    graph.feed(node.inputs["Geometry"], geometry)
    for name in _FILTERS:
        graph.feed(node.inputs[name], graph.input(name))
    return node.outputs["Geometry"]


def _sized(graph: Graph, geometry: Any, radius: Any) -> Any:
    sized = graph.node("GeometryNodeSetPointRadius", {"Points": geometry, "Radius": radius})
    return graph.node("GeometryNodeSetMaterial", {"Geometry": sized, "Material": graph.input("Material")})


def _make_player() -> bpy.types.NodeTree:
    """Show the cloud of this frame. The object's own points are the cameras of the capture, one a cloud."""
    graph = Graph(PLAYER)
    graph.socket("Frames", "Collection", help="One point cloud a frame, in order of their names")
    graph.section("Time")
    graph.socket("Start Frame", "Float", 1.0, "Scene frame that shows the first frame of the capture")
    graph.socket("Speed", "Float", 1.0, "1 plays as shot, 0.5 at half the speed, -1 backwards")
    graph.socket("Length", "Float", 1.0, "Frames that the capture lasts at speed 1", min_value=1.0)
    carrier, speed, length = graph.input("Geometry"), graph.input("Speed"), graph.input("Length")
    # Whole frames: motion blur samples between frames, and must not see two different clouds in one shutter.
    scene_frame = graph.math("FLOOR", graph.math("ADD", graph.node("GeometryNodeInputSceneTime", output="Frame"), 0.5))
    played = graph.math("MULTIPLY", graph.math("SUBTRACT", scene_frame, graph.input("Start Frame")), speed)
    played = graph.math("ADD", played, 1e-3)  # 3 x 0.3333 is a whole frame
    looped = graph.math("FLOORED_MODULO", played, length)
    outside = graph.math("MAXIMUM", graph.math("LESS_THAN", played, 0.0), graph.math("GREATER_THAN", played, length))
    # A menu feeds one node only: two would be two menus that disagree. 0 holds, 1 loops, 2 hides.
    mode = graph.menu("Outside", OUTSIDE, "What to show before the first and after the last frame of the capture")
    loops, hides = graph.math("COMPARE", mode, 1.0, 0.5), graph.math("GREATER_THAN", mode, 1.5)
    choice = {"Switch": loops, "False": played, "True": looped}
    clip_frame = graph.node("GeometryNodeSwitch", choice, input_type="FLOAT")

    # The cloud to show is the last one whose time has come.
    begun = graph.math("GREATER_THAN", graph.math("ADD", clip_frame, 1e-3), graph.attribute(CLIP_FRAME, "FLOAT"))
    begun = graph.node("GeometryNodeAttributeStatistic", {"Geometry": carrier, "Attribute": begun}, "Sum")
    index = graph.math("MAXIMUM", graph.math("SUBTRACT", begun, 1.0), 0.0)

    _filter_inputs(graph)
    clouds = graph.node(
        "GeometryNodeCollectionInfo",
        {"Collection": graph.input("Frames"), "Separate Children": True, "Reset Children": True},
    )
    place = graph.node(
        "GeometryNodePoints", {"Count": graph.math("SUBTRACT", 1.0, graph.math("MULTIPLY", hides, outside))}
    )
    picked = graph.node(
        "GeometryNodeInstanceOnPoints",
        {"Points": place, "Instance": clouds, "Pick Instance": True, "Instance Index": index},
    )
    cloud = _filtered(graph, graph.node("GeometryNodeRealizeInstances", {"Geometry": picked}))

    # A point covers `Point Size` pixels of the camera that saw it: radius = distance x angle of a pixel x size / 2.
    position = graph.node("GeometryNodeInputPosition")
    sample = {"Geometry": carrier, "Index": index}
    eye = graph.node("GeometryNodeSampleIndex", sample | {"Value": position}, data_type="FLOAT_VECTOR")
    angle = graph.node("GeometryNodeSampleIndex", sample | {"Value": graph.attribute(PIXEL_ANGLE, "FLOAT")})
    half_width = graph.math("MULTIPLY", graph.math("MULTIPLY", angle, graph.input("Point Size")), 0.5)
    radius = graph.math("MULTIPLY", graph.vector("DISTANCE", position, eye), half_width)
    return graph.finish(_sized(graph, cloud, radius))


def _make_static() -> bpy.types.NodeTree:
    """Filter and size a cloud that does not change; its own radius is half a pixel of the camera that saw it."""
    graph = Graph(STATIC)
    _filter_inputs(graph)
    radius = graph.math("MULTIPLY", graph.node("GeometryNodeInputRadius"), graph.input("Point Size"))
    return graph.finish(_sized(graph, _filtered(graph, graph.input("Geometry")), radius))


_MAKERS = {PLAYER: _make_player, FILTER: _make_filter, STATIC: _make_static}


def shared_group(name: str) -> bpy.types.NodeTree:
    """The node group `name` of this file, made when it is not there or of another version."""
    for tree in bpy.data.node_groups:
        if tree.library is None and tree.name.split(".")[0] == name and tree.get("kinora_version") == VERSION:
            return tree
    return _MAKERS[name]()


def add_modifier(ob: bpy.types.Object, group: str, inputs: dict[str, Any]) -> bpy.types.Modifier:
    """Put a group on an object and set its inputs by name."""
    modifier = ob.modifiers.new(group, "NODES")
    modifier.node_group = shared_group(group)
    for name, value in inputs.items():
        set_input(modifier, name, value)
    return modifier


def _identifier(modifier: bpy.types.Modifier, name: str) -> str:
    items = modifier.node_group.interface.items_tree
    return next(i.identifier for i in items if i.item_type == "SOCKET" and i.in_out == "INPUT" and i.name == name)


def set_input(modifier: bpy.types.Modifier, name: str, value: Any) -> None:
    """Set an input of a Geometry Nodes modifier by its name, in every Blender from 4.5 on; menus take their text."""
    identifier = _identifier(modifier, name)
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


def _arrange(tree: bpy.types.NodeTree) -> None:
    """Lay the nodes out in columns, by their distance from the group's inputs."""
    depth = {node: 0 for node in tree.nodes}
    for _ in tree.nodes:
        for link in tree.links:
            depth[link.to_node] = max(depth[link.to_node], depth[link.from_node] + 1)
    rows: dict[int, int] = {}
    for node in tree.nodes:
        rows[depth[node]] = rows.get(depth[node], -1) + 1
        node.location = (220 * depth[node], -180 * rows[depth[node]])
