"""The node groups that play a capture: which cloud is due, which of its points are shown, how large they are.

They need no handler and no add-on: a .blend that holds them plays and renders anywhere (specs/blender.md, 2.2).
"""

from __future__ import annotations

from typing import Any

import bpy

from .graph import Graph, shared_group

PLAYER = "Kinora Player"
STATIC = "Kinora Static"
TIME = "Kinora Time"
FILTER = "Kinora Filter"
SQUARES = "Kinora Squares"
SQUARE = "Kinora Square"

#: What happens before the first and after the last frame of a capture; the order is that of the menu's values.
OUTSIDE = ("Hold", "Loop", "Hide")

# Attributes of the carrier, whose points are the T cameras of the capture.
CLIP_FRAME = "clip_frame"
PIXEL_ANGLE = "pixel_angle"
# Attributes of every cloud; the last two only where the capture has them.
COLOR, CONFIDENCE, DYNAMIC = "Color", "confidence", "dynamic"  # Cycles takes "color" for a volume's: black
OBJECT, VELOCITY = "object", "velocity"  # Cycles blurs points by "velocity"
#: Attribute of ghosts: below 0 they are earlier frames, above later ones; 1 would be gone.
AGE = "age"

#: Times are compared with this much room: three times a speed of 0.3333 is a whole frame.
_EARLY = 1e-3


def time_inputs(graph: Graph) -> Any:
    """Declare the inputs that say when what is shown; returns the number of the chosen row of OUTSIDE."""
    graph.section("Time")
    graph.socket(
        "Start Frame", "Float", 1.0, "Scene frame that shows the first frame of the capture; played backwards, the last"
    )
    graph.socket("Speed", "Float", 1.0, "1 plays as shot, 0.5 at half the speed, -1 backwards")
    graph.socket("Length", "Float", 1.0, "Frames that the capture lasts at speed 1", min_value=1.0)
    mode = graph.menu("Outside", OUTSIDE, "What to show before the first and after the last frame of the capture")
    graph.socket("Use Clip Frame", "Bool", False, "Show the frame that Clip Frame says, whatever the scene's frame is")
    graph.socket(
        "Clip Frame",
        "Float",
        1.0,
        "Frame of the clip to show, 1 is the first: keyframe it to retime. Speed then only scales motion blur",
    )
    graph.socket("Clip Rate", "Float", 24.0, "Frames a second that the clip was shot at", min_value=0.01)
    return mode


def time_at(graph: Graph, carrier: Any, mode: Any, offset: Any) -> Any:
    """What is due `offset` clip frames away from now: sockets Index, Shown and Rate. See `time_inputs`."""
    names = ("Start Frame", "Speed", "Length", "Use Clip Frame", "Clip Frame")
    inputs = {name: graph.input(name) for name in names}
    return graph.group(shared_group(TIME, make_time), inputs | {"Geometry": carrier, "Outside": mode, "Offset": offset})


def make_time() -> bpy.types.NodeTree:
    """Index of the last point of the carrier whose time has come, whether it is to be seen, and how fast time runs.

    Rate is in frames of the clip a frame of the scene: the speed, and 0 where the first or last frame is held.
    """
    graph = Graph(TIME, Index="Int", Shown="Bool", Rate="Float")
    for name, kind in {
        **{"Start Frame": "Float", "Speed": "Float", "Length": "Float", "Use Clip Frame": "Bool"},
        **{"Clip Frame": "Float", "Outside": "Float", "Offset": "Float"},
    }.items():
        graph.socket(name, kind)
    carrier, speed, length = graph.input("Geometry"), graph.input("Speed"), graph.input("Length")
    mode, last = graph.input("Outside"), graph.math("SUBTRACT", length, 1.0)
    holds, loops = graph.math("LESS_THAN", mode, 0.5), graph.math("COMPARE", mode, 1.0, 0.5)

    # Whole frames: motion blur samples between frames, and must not see two different clouds in one shutter.
    def whole(frame: Any) -> Any:
        return graph.math("FLOOR", graph.math("ADD", frame, 0.5))

    now = whole(graph.node("GeometryNodeInputSceneTime", output="Frame"))
    played = graph.math("MULTIPLY", graph.math("SUBTRACT", now, graph.input("Start Frame")), speed)
    backwards = graph.math("LESS_THAN", speed, 0.0)
    played = graph.math("ADD", played, graph.math("MULTIPLY", backwards, last))
    keyed = graph.math("SUBTRACT", whole(graph.input("Clip Frame")), 1.0)
    played = graph.switch("FLOAT", graph.input("Use Clip Frame"), played, keyed)

    def outside(frame: Any) -> Any:
        frame = graph.math("ADD", frame, _EARLY)
        return graph.logic(
            "OR", graph.math("LESS_THAN", frame, 0.0), graph.logic("NOT", graph.math("LESS_THAN", frame, length))
        )

    held = graph.node("ShaderNodeClamp", {"Value": played, "Min": 0.0, "Max": last})
    frame = graph.math("ADD", graph.switch("FLOAT", holds, played, held), graph.input("Offset"))
    shown = graph.logic("OR", loops, graph.logic("NOT", outside(frame)))
    runs = graph.logic("OR", loops, graph.logic("NOT", outside(played)))
    looped = graph.math("FLOORED_MODULO", graph.math("ADD", frame, _EARLY), length)
    frame = graph.switch("FLOAT", loops, graph.math("ADD", frame, _EARLY), looped)

    # On a line of time, the nearest point is the last one that has begun, or the one after it.
    time = graph.attribute(CLIP_FRAME, "FLOAT")
    line = graph.node(
        "GeometryNodeSetPosition", {"Geometry": carrier, "Position": graph.node("ShaderNodeCombineXYZ", {"X": time})}
    )
    inputs = {"Geometry": line, "Sample Position": graph.node("ShaderNodeCombineXYZ", {"X": frame})}
    nearest = graph.node("GeometryNodeSampleNearest", inputs)
    early = graph.math("GREATER_THAN", graph.sample(carrier, time, nearest), frame)
    index = graph.math("MAXIMUM", graph.math("SUBTRACT", nearest, early), 0.0)
    return graph.finish(index, shown, graph.math("MULTIPLY", speed, runs))


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


def make_filter() -> bpy.types.NodeTree:
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


def make_squares() -> bpy.types.NodeTree:
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


def make_player() -> bpy.types.NodeTree:
    """Show the cloud of this frame. The object's own points are the cameras of the capture, one a cloud."""
    graph = Graph(PLAYER)
    graph.socket("Frames", "Collection", help="One point cloud a frame, in order of their names")
    mode = time_inputs(graph)
    graph.section("Ghosts")
    for name, which in (("Ghosts Before", "earlier"), ("Ghosts After", "later")):
        help = f"How many {which} frames to show as well, fainter the further away they are"
        graph.socket(name, "Int", 0, help, min_value=0, max_value=100)
    graph.socket("Ghost Step", "Int", 5, "Frames of the clip from one ghost to the next", min_value=1)
    filter_inputs(graph)
    carrier, before, after = graph.input("Geometry"), graph.input("Ghosts Before"), graph.input("Ghosts After")
    ghostly = graph.math("GREATER_THAN", graph.math("ADD", before, after), 0.0)

    # One place for a cloud, or one for each ghost, whose age and frame travel on to its points.
    now = time_at(graph, carrier, mode, 0.0)
    place = graph.node("GeometryNodePoints", {"Count": now["Shown"]})
    step = graph.math("SUBTRACT", graph.node("GeometryNodeInputIndex"), before)
    then = time_at(graph, carrier, mode, graph.math("MULTIPLY", step, graph.input("Ghost Step")))
    count = graph.math("ADD", graph.math("ADD", before, after), 1.0)
    ghosts = graph.node("GeometryNodePoints", {"Count": count})
    oldest = graph.switch("FLOAT", graph.math("LESS_THAN", step, 0.0), after, before)
    age = {"Name": AGE, "Value": graph.math("DIVIDE", step, graph.math("ADD", oldest, 1.0))}
    ghosts = graph.node("GeometryNodeStoreNamedAttribute", age | {"Geometry": ghosts}, data_type="FLOAT")
    kept = graph.tree.nodes.new("GeometryNodeCaptureAttribute")
    kept.capture_items.new("INT", "Index")
    graph.feed(kept.inputs["Geometry"], ghosts)
    graph.feed(kept.inputs["Index"], then["Index"])
    hidden = {"Geometry": kept.outputs["Geometry"], "Selection": graph.logic("NOT", then["Shown"])}
    ghosts = graph.node("GeometryNodeDeleteGeometry", hidden, domain="POINT")
    places = graph.switch("GEOMETRY", ghostly, place, ghosts)

    clouds = graph.node(
        "GeometryNodeCollectionInfo",
        {"Collection": graph.input("Frames"), "Separate Children": True, "Reset Children": True},
    )
    there = graph.node("GeometryNodeAttributeDomainSize", {"Geometry": clouds}, component="INSTANCES")
    newest = graph.math("SUBTRACT", there, 1.0)  # while frames still arrive, the last one stays
    index = graph.switch("INT", ghostly, now["Index"], kept.outputs["Index"])
    picked = graph.node(
        "GeometryNodeInstanceOnPoints",
        {
            "Points": places,
            "Instance": clouds,
            "Pick Instance": True,
            "Instance Index": graph.math("MINIMUM", index, newest),
        },
    )
    cloud = filtered(graph, graph.node("GeometryNodeRealizeInstances", {"Geometry": picked}))
    cloud = retimed(graph, cloud, now["Rate"])

    # A point covers `Point Size` pixels of the camera that saw it: radius = distance x angle of a pixel x size / 2.
    position = graph.node("GeometryNodeInputPosition")
    eye = graph.sample(carrier, position, index, "FLOAT_VECTOR")
    angle = graph.sample(carrier, graph.attribute(PIXEL_ANGLE, "FLOAT"), index)
    half_width = graph.math("MULTIPLY", graph.math("MULTIPLY", angle, graph.input("Point Size")), 0.5)
    radius = graph.math("MULTIPLY", graph.vector("DISTANCE", position, eye), half_width)
    return graph.finish(sized(graph, cloud, radius, eye))


def retimed(graph: Graph, cloud: Any, rate: Any) -> Any:
    """The cloud with its velocity as the scene sees it: at half the speed, points are half as fast."""
    seconds, frame = (graph.node("GeometryNodeInputSceneTime", output=name) for name in ("Seconds", "Frame"))
    clip_rate = graph.input("Clip Rate")
    # Nothing tells the scene's frames a second at its frame 0; there they are taken to be the clip's.
    scene_rate = graph.switch(
        "FLOAT", graph.math("COMPARE", seconds, 0.0, 1e-9), graph.math("DIVIDE", frame, seconds), clip_rate
    )
    factor = graph.math("MULTIPLY", rate, graph.math("DIVIDE", scene_rate, clip_rate))
    velocity = graph.attribute(VELOCITY, "FLOAT_VECTOR")
    scaled = graph.node("ShaderNodeVectorMath", {"Vector": velocity, "Scale": factor}, operation="SCALE")
    inputs = {"Geometry": cloud, "Name": VELOCITY, "Value": scaled}
    stored = graph.node("GeometryNodeStoreNamedAttribute", inputs, data_type="FLOAT_VECTOR")
    known = graph.sample(cloud, graph.attribute(VELOCITY, "FLOAT_VECTOR", "Exists"), 0, "BOOLEAN")
    changed = graph.logic("NIMPLY", known, graph.math("COMPARE", factor, 1.0, 1e-4))
    # In renders a velocity is always there, of 0 where none is known: Cycles then never matches the points of one
    # cloud with those of the next, however long the shutter and however fast the keys of Clip Frame.
    rendered = graph.logic("NOT", graph.node("GeometryNodeIsViewport"))
    return graph.switch("GEOMETRY", graph.logic("OR", rendered, changed), cloud, stored)


def make_static() -> bpy.types.NodeTree:
    """Filter and size a cloud that does not change; its own radius is half a pixel of the camera that saw it."""
    graph = Graph(STATIC)
    filter_inputs(graph)
    graph.socket("Facing", "Vector", help="Place that the squares of Solid Colors face")
    radius = graph.math("MULTIPLY", graph.node("GeometryNodeInputRadius"), graph.input("Point Size"))
    return graph.finish(sized(graph, filtered(graph, graph.input("Geometry")), radius, graph.input("Facing")))
