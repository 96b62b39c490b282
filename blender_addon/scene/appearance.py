"""Which points of a cloud are shown, how large and of what material: the part that all players share."""

from __future__ import annotations

from typing import Any

import bpy

from .attributes import COLOR, CONFIDENCE, DYNAMIC, OBJECT
from .graph import Graph, shared_group

FILTER = "Kinora Filter"
SQUARES = "Kinora Squares"
SQUARE = "Kinora Square"


def filter_inputs(graph: Graph) -> None:
    """Declare the inputs that say which points are shown, how large, and of what material."""
    graph.section("Points")
    graph.socket(
        "Point Size", "Float", 1.5, "Width of a point in pixels of the capture, seen from its own camera", min_value=0.0
    )
    graph.socket(
        "Radius",
        "Float",
        0.0,
        "Half the width of every point, in units of the capture before the root's scale; 0 leaves it to Point Size",
        min_value=0.0,
    )
    graph.socket("Density", "Float", 1.0, "Share of the points to keep", min_value=0.0, max_value=1.0, subtype="FACTOR")
    graph.socket("Min Confidence", "Float", 0.0, "Hide points that are less certain than this", min_value=0.0)
    graph.socket("Show Static", "Bool", True, "Show what stands still")
    graph.socket("Show Dynamic", "Bool", True, "Show what moves by itself")
    graph.socket("Object", "Int", 0, "Number of the mover to show alone, from 1 up; 0 shows everything", min_value=0)
    graph.socket("Material", "Material", help="Material of the points")
    graph.socket(
        "Solid Colors",
        "Bool",
        False,
        "Draw squares instead of points in the viewport: Solid shading can color those (Color: Attribute). "
        "Renders keep the points",
    )


_FILTERS = ("Density", "Min Confidence", "Show Static", "Show Dynamic", "Object")


def make_filter() -> Graph:
    """Delete what the artist does not want to see; a cloud that nothing is taken from passes untouched."""
    graph = Graph(FILTER)
    filter_inputs(graph)
    geometry, density, least = graph.input("Geometry"), graph.input("Density"), graph.input("Min Confidence")
    show_static, show_dynamic, mover = graph.input("Show Static"), graph.input("Show Dynamic"), graph.input("Object")
    sparse, thresholded = graph.math("LESS_THAN", density, 1.0), graph.math("GREATER_THAN", least, 0.0)
    partial, alone = graph.logic("NAND", show_static, show_dynamic), graph.math("GREATER_THAN", mover, 0.0)

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
    other = graph.logic("NOT", graph.math("COMPARE", graph.attribute(OBJECT, "INT"), mover, 0.5))
    selection, needed = None, None
    for used, field in ((thresholded, uncertain), (sparse, unlucky), (partial, unwanted), (alone, other)):
        field = graph.switch("BOOLEAN", used, None, field)  # what is switched off costs nothing at each frame
        selection = field if selection is None else graph.logic("OR", selection, field)
        needed = used if needed is None else graph.logic("OR", needed, used)
    filtered = graph.node("GeometryNodeDeleteGeometry", {"Geometry": geometry, "Selection": selection}, domain="POINT")
    return graph.finish(graph.switch("GEOMETRY", needed, geometry, filtered))


def filtered(graph: Graph, geometry: Any) -> Any:
    """The points of a geometry that `filter_inputs` lets through."""
    inputs = {name: graph.input(name) for name in _FILTERS}
    return graph.group(shared_group(FILTER, make_filter), inputs | {"Geometry": geometry})["Geometry"]


def sized(graph: Graph, geometry: Any, radius: Any, eye: Any) -> Any:
    """Points of their radius and material; squares that face `eye` where Solid Colors asks for them."""
    chosen = graph.input("Radius")
    radius = graph.switch("FLOAT", graph.math("GREATER_THAN", chosen, 0.0), radius, chosen)
    geometry = graph.node("GeometryNodeSetPointRadius", {"Points": geometry, "Radius": radius})
    geometry = graph.node("GeometryNodeSetMaterial", {"Geometry": geometry, "Material": graph.input("Material")})
    squares = graph.group(shared_group(SQUARES, make_squares), {"Geometry": geometry, "Eye": eye})["Geometry"]
    seen = graph.logic("AND", graph.input("Solid Colors"), graph.node("GeometryNodeIsViewport"))
    return graph.switch("GEOMETRY", seen, geometry, squares)


def make_squares() -> Graph:
    """A square in the place of every point, as wide as it and facing an eye.

    Solid shading draws a point cloud in one colour. Of a mesh it shows the active colour, which no node can set:
    the squares take it over from the mesh that they are copies of.
    """
    graph = Graph(SQUARES)
    graph.socket("Eye", "Vector")
    position = graph.node("GeometryNodeInputPosition")
    towards = graph.vector("SUBTRACT", graph.input("Eye"), position)
    square = graph.node("GeometryNodeObjectInfo", {"Object": _square()}, "Geometry")
    width = graph.math("MULTIPLY", graph.node("GeometryNodeInputRadius"), 2.0)
    inputs = {
        "Points": graph.input("Geometry"),
        "Instance": square,
        "Rotation": graph.node("FunctionNodeAlignRotationToVector", {"Vector": towards}, axis="Z"),
        "Scale": graph.node("ShaderNodeCombineXYZ", {"X": width, "Y": width, "Z": width}),
    }
    squares = graph.node("GeometryNodeInstanceOnPoints", inputs)
    squares = graph.node("GeometryNodeRealizeInstances", {"Geometry": squares})
    # The points stay, too small to be seen, for what reads them: exports, picking.
    points = graph.node("GeometryNodeSetPointRadius", {"Points": graph.input("Geometry"), "Radius": 0.0})
    both = graph.tree.nodes.new("GeometryNodeJoinGeometry")
    for part in (points, squares):
        graph.feed(both.inputs[0], part)
    return graph.finish(both.outputs[0])


def _square() -> bpy.types.Object:
    """An object in no scene: a square of width 1 whose active colour is that of the points."""
    mesh = bpy.data.meshes.new(SQUARE)
    corners = [(-0.5, -0.5, 0), (0.5, -0.5, 0), (0.5, 0.5, 0), (-0.5, 0.5, 0)]
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    mesh.color_attributes.active_color_name = COLOR  # a name that only the points have: theirs is seen then
    return bpy.data.objects.new(SQUARE, mesh)
