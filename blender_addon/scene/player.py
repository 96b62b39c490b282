"""The node groups that play a capture: which cloud is due, and how fast its points move.

They need no handler and no add-on: a .blend that holds them plays and renders anywhere (specs/blender.md, 2.2).
"""

from __future__ import annotations

from typing import Any

from .appearance import filter_inputs, filtered, sized
from .attributes import AGE, CLIP_FRAME, PIXEL_ANGLE, VELOCITY
from .graph import Graph, shared_group

PLAYER = "Kinora Player"
STATIC = "Kinora Static"
TIME = "Kinora Time"
GHOSTS = "Kinora Ghosts"
RETIME = "Kinora Retime"

#: What happens before the first and after the last frame of a capture; the order is that of the menu's values.
OUTSIDE = ("Hold", "Loop", "Hide")

_TIME_INPUTS = {
    **{"Start Frame": "Float", "Speed": "Float", "Length": "Float"},
    **{"Use Clip Frame": "Bool", "Clip Frame": "Float"},
}
_GHOST_INPUTS = ("Ghosts Before", "Ghosts After", "Ghost Step")

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
    inputs = {name: graph.input(name) for name in _TIME_INPUTS}
    return graph.group(shared_group(TIME, make_time), inputs | {"Geometry": carrier, "Outside": mode, "Offset": offset})


def make_time() -> Graph:
    """Index of the last point of the carrier whose time has come, whether it is to be seen, and how fast time runs.

    Rate is in frames of the clip a frame of the scene: the speed, and 0 where the first or last frame is held.
    """
    graph = Graph(TIME, Index="Int", Shown="Bool", Rate="Float")
    for name, kind in (_TIME_INPUTS | {"Outside": "Float", "Offset": "Float"}).items():
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


def make_ghosts() -> Graph:
    """A point for each ghost that is to be seen, and which cloud it is of; its age travels on to the cloud's points."""
    graph = Graph(GHOSTS, Geometry="Geometry", Index="Int")
    for name, kind in (_TIME_INPUTS | {"Outside": "Float"} | dict.fromkeys(_GHOST_INPUTS, "Int")).items():
        graph.socket(name, kind)
    before, after, every = (graph.input(name) for name in _GHOST_INPUTS)
    step = graph.math("SUBTRACT", graph.node("GeometryNodeInputIndex"), before)
    then = time_at(graph, graph.input("Geometry"), graph.input("Outside"), graph.math("MULTIPLY", step, every))
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
    return graph.finish(ghosts, kept.outputs["Index"])


def make_player() -> Graph:
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
    carrier = graph.input("Geometry")
    count = graph.math("ADD", graph.input("Ghosts Before"), graph.input("Ghosts After"))
    ghostly = graph.math("GREATER_THAN", count, 0.0)

    # One place for a cloud, or one for each ghost.
    now = time_at(graph, carrier, mode, 0.0)
    place = graph.node("GeometryNodePoints", {"Count": now["Shown"]})
    inputs = {name: graph.input(name) for name in (*_TIME_INPUTS, *_GHOST_INPUTS)}
    ghosts = graph.group(shared_group(GHOSTS, make_ghosts), inputs | {"Geometry": carrier, "Outside": mode})
    places = graph.switch("GEOMETRY", ghostly, place, ghosts["Geometry"])

    clouds = graph.node(
        "GeometryNodeCollectionInfo",
        {"Collection": graph.input("Frames"), "Separate Children": True, "Reset Children": True},
    )
    there = graph.node("GeometryNodeAttributeDomainSize", {"Geometry": clouds}, component="INSTANCES")
    newest = graph.math("SUBTRACT", there, 1.0)  # while frames still arrive, the last one stays
    index = graph.switch("INT", ghostly, now["Index"], ghosts["Index"])
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
    inputs = {"Geometry": cloud, "Rate": rate, "Clip Rate": graph.input("Clip Rate")}
    return graph.group(shared_group(RETIME, make_retime), inputs)["Geometry"]


def make_retime() -> Graph:
    """Scale the velocity of points by how fast time runs."""
    graph = Graph(RETIME)
    graph.socket("Rate", "Float")
    graph.socket("Clip Rate", "Float")
    cloud, clip_rate = graph.input("Geometry"), graph.input("Clip Rate")
    seconds, frame = (graph.node("GeometryNodeInputSceneTime", output=name) for name in ("Seconds", "Frame"))
    # Nothing tells the scene's frames a second at its frame 0; there they are taken to be the clip's.
    scene_rate = graph.switch(
        "FLOAT", graph.math("COMPARE", seconds, 0.0, 1e-9), graph.math("DIVIDE", frame, seconds), clip_rate
    )
    factor = graph.math("MULTIPLY", graph.input("Rate"), graph.math("DIVIDE", scene_rate, clip_rate))
    velocity = graph.attribute(VELOCITY, "FLOAT_VECTOR")
    scaled = graph.node("ShaderNodeVectorMath", {"Vector": velocity, "Scale": factor}, operation="SCALE")
    inputs = {"Geometry": cloud, "Name": VELOCITY, "Value": scaled}
    stored = graph.node("GeometryNodeStoreNamedAttribute", inputs, data_type="FLOAT_VECTOR")
    known = graph.sample(cloud, graph.attribute(VELOCITY, "FLOAT_VECTOR", "Exists"), 0, "BOOLEAN")
    changed = graph.logic("NIMPLY", known, graph.math("COMPARE", factor, 1.0, 1e-4))
    # In renders a velocity is always there, of 0 where none is known: Cycles then never matches the points of one
    # cloud with those of the next, however long the shutter and however fast the keys of Clip Frame.
    rendered = graph.logic("NOT", graph.node("GeometryNodeIsViewport"))
    return graph.finish(graph.switch("GEOMETRY", graph.logic("OR", rendered, changed), cloud, stored))


def make_static() -> Graph:
    """Filter and size a cloud that does not change; its own radius is half a pixel of the camera that saw it."""
    graph = Graph(STATIC)
    filter_inputs(graph)
    graph.socket("Facing", "Vector", help="Place that the squares of Solid Colors face")
    radius = graph.math("MULTIPLY", graph.node("GeometryNodeInputRadius"), graph.input("Point Size"))
    return graph.finish(sized(graph, filtered(graph, graph.input("Geometry")), radius, graph.input("Facing")))
