"""Linked storage: one PLY file a frame beside the .blend, read by Blender's own nodes when it is shown.

The .blend stays small however long the clip is, and plays and renders without the add-on as long as the files are
where the player's `Folder` says. A file that is missing is an empty frame and a warning on the modifier.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..wire.capture import Capture
from .appearance import filter_inputs, filtered, sized
from .attributes import COLOR, DYNAMIC, OBJECT, VELOCITY
from .graph import Graph, shared_group
from .player import retimed, time_at, time_inputs
from .playing import add_player, pixel_radius
from .ply import encode_ply
from .points import CloudFactory, carrier_cloud, measured, pixel_attributes, unproject
from .storage_files import blender_path, new_storage

LINKED = "Kinora Linked"
FILE_NAME = "frame_{:04d}.ply"

#: Of the object's own points, which are the T cameras: how many points the file of the frame has.
POINT_COUNT = "point_count"


def write_frames(capture: Capture, folder: Path, progress: Callable[[float], None] = lambda fraction: None) -> None:
    """Write one PLY a frame, `frame_0000.ply` and on, to `folder`, which appears whole or not at all.

    No file is written for a frame without points, which Blender's reader would call an error. No bpy: it may run in a
    thread. Raises UserError when the system refuses to write.
    """
    with new_storage(folder, capture, "The points") as staging:
        for frame in range(capture.frame_count):
            progress(frame / capture.frame_count)
            keep = measured(capture, frame)
            if keep.any():
                points = encode_ply(unproject(capture, frame, keep), pixel_attributes(capture, frame, keep))
                (staging / FILE_NAME.format(frame)).write_bytes(points)


def point_counts(capture: Capture) -> np.ndarray:
    """(T,) how many points each frame of a capture has."""
    return np.array([measured(capture, frame).sum() for frame in range(capture.frame_count)])


def make_linked(capture: Capture, name: str, folder: Path, inputs: dict[str, Any]) -> bpy.types.Object:
    """A player of the files in `folder`; `inputs` are the player's, by name."""
    with CloudFactory() as factory:
        carrier = carrier_cloud(capture, factory, name, capture.clip.clip_frames)
    counts = carrier.attributes.new(POINT_COUNT, "FLOAT", "POINT").data
    counts.foreach_set("value", point_counts(capture).astype(np.float32))
    ob = bpy.data.objects.new(name, carrier)
    add_player(ob, shared_group(LINKED, make_linked_group), inputs | {"Folder": blender_path(folder)})
    return ob


def make_linked_group() -> Graph:
    """Read the file of this frame, give its attributes the types of an embedded cloud, filter and size its points."""
    graph = Graph(LINKED)
    graph.socket("Folder", "String", "//", "Folder of the files frame_0000.ply and on")
    mode = time_inputs(graph)
    filter_inputs(graph)
    carrier = graph.input("Geometry")
    now = time_at(graph, carrier, mode, 0.0)
    full = graph.math("GREATER_THAN", graph.sample(carrier, graph.attribute(POINT_COUNT, "FLOAT"), now["Index"]), 0.5)
    path = graph.switch("STRING", graph.logic("AND", now["Shown"], full), "", _file_path(graph, now["Index"]))
    points = graph.node("GeometryNodeMeshToPoints", {"Mesh": graph.node("GeometryNodeImportPLY", {"Path": path})})
    points = _where_known(graph, points, "Col", _with_color)
    points = _stored(graph, points, DYNAMIC, "BOOLEAN", graph.attribute(DYNAMIC, "FLOAT"))
    points = _where_known(graph, points, OBJECT, _with_object)
    points = _where_known(graph, points, f"{VELOCITY}_x", _with_velocity)
    points = retimed(graph, filtered(graph, points), now["Rate"])
    eye = graph.sample(carrier, graph.node("GeometryNodeInputPosition"), now["Index"], "FLOAT_VECTOR")
    return graph.finish(sized(graph, points, pixel_radius(graph, eye, now["Index"]), eye))


def _file_path(graph: Graph, index: Any) -> Any:
    """The path of the file of a frame. The folder is not part of the format: it may have braces in its name."""
    node = graph.tree.nodes.new("FunctionNodeFormatString")
    node.format_items.new("STRING", "folder")
    node.format_items.new("INT", "frame")
    graph.feed(node.inputs["Format"], "{folder}/" + FILE_NAME.replace("{:04d}", "{frame:04}"))
    graph.feed(node.inputs["folder"], graph.input("Folder"))
    graph.feed(node.inputs["frame"], index)
    return node.outputs[0]


def _stored(graph: Graph, points: Any, name: str, data_type: str, value: Any) -> Any:
    inputs = {"Geometry": points, "Name": name, "Value": value}
    return graph.node("GeometryNodeStoreNamedAttribute", inputs, data_type=data_type, domain="POINT")


def _where_known(graph: Graph, points: Any, name: str, change: Callable[[Graph, Any], Any]) -> Any:
    """The changed points where the file has the attribute `name`, else the points as they are."""
    known = graph.sample(points, graph.attribute(name, "FLOAT", "Exists"), 0, "BOOLEAN")
    return graph.switch("GEOMETRY", known, points, change(graph, points))


def _with_color(graph: Graph, points: Any) -> Any:
    """The plate's colours, which the reader makes linear, under the name that materials ask for."""
    points = _stored(graph, points, COLOR, "FLOAT_COLOR", graph.attribute("Col", "FLOAT_COLOR"))
    return graph.node("GeometryNodeRemoveAttribute", {"Geometry": points, "Name": "Col"})


def _with_object(graph: Graph, points: Any) -> Any:
    return _stored(graph, points, OBJECT, "INT", graph.attribute(OBJECT, "FLOAT"))


def _with_velocity(graph: Graph, points: Any) -> Any:
    """One vector, units per second, of its three parts in the file: Cycles blurs by it."""
    parts = {axis.upper(): graph.attribute(f"{VELOCITY}_{axis}", "FLOAT") for axis in "xyz"}
    points = _stored(graph, points, VELOCITY, "FLOAT_VECTOR", graph.node("ShaderNodeCombineXYZ", parts))
    for axis in "xyz":
        points = graph.node("GeometryNodeRemoveAttribute", {"Geometry": points, "Name": f"{VELOCITY}_{axis}"})
    return points
