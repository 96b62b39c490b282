"""Depth-projected storage: the plate's pixels on a grid before the camera, pushed to their depth by nodes.

Two image sequences hold it: the plate, and an OpenEXR of depth (R), confidence (G) and motion (B), float32, so that the
geometry is the capture's own to the last bit of a depth. As points, or as a mesh that can be rendered, cut CG out
(holdout), catch its shadows, or carry the plate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..wire.capture import Capture
from ..wire.errors import UserError
from .appearance import filter_inputs, filtered, sized
from .attributes import CLIP_FRAME, COLOR, CONFIDENCE, DYNAMIC, OBJECT, PIXEL_ANGLE
from .conventions import OPENCV_FROM_BLENDER_CAMERA
from .graph import Graph, shared_group
from .player import time_at, time_inputs
from .playing import add_player, pixel_radius
from .points import measured, pixel_angles
from .steps import Step, Steps
from .storage_files import blender_path, new_storage
from .workbench import workbench

PROJECTED = "Kinora Projected"
DEPTH_NAME, PLATE_NAME = "depth_{:04d}.exr", "plate_{:04d}.png"

# Attributes of the object's own points, which are the T cameras of the capture.
ROTATION, FOCAL, CENTRE = "rotation", "focal_px", "centre_px"

#: Motion of a pixel that moves and belongs to no numbered mover.
UNNUMBERED = 0.5


def write_sequences(capture: Capture, folder: Path, span: tuple[float, float]) -> Steps[None]:
    """Write `depth_0000.exr` and `plate_0000.png` and on to `folder`, which appears whole or not at all.

    Blender itself writes them: OpenEXR, float32, ZIP, and 8-bit sRGB as it is. `span` is the share of the progress.
    Raises UserError when the system refuses to write.
    """
    width, height = capture.processed_size
    depth = _scratch("Kinora Depth", width, height, float_buffer=True)
    plate = _scratch("Kinora Plate", width, height, float_buffer=False)
    pixels = np.ones((height, width, 4), np.float32)
    try:
        with new_storage(folder, capture, "The pictures") as staging, workbench() as scene:
            for frame in range(capture.frame_count):
                yield Step("Writing pictures", span[0] + (span[1] - span[0]) * frame / capture.frame_count)
                for channel, values in enumerate(_depth_channels(capture, frame)):
                    pixels[..., channel] = values[::-1]  # Blender's rows go up
                _save(depth, pixels, staging / DEPTH_NAME.format(frame), scene, "OPEN_EXR")
                np.multiply(capture.rgb[frame][::-1], np.float32(1 / 255), out=pixels[..., :3])
                _save(plate, pixels, staging / PLATE_NAME.format(frame), scene, "PNG")
    finally:
        bpy.data.batch_remove([depth, plate])


def _depth_channels(capture: Capture, frame: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three (H, W): z-depth with 0 where nothing is known, confidence, and motion.

    Motion is 0 where nothing moves, else the number of the mover, or a half where it has none.
    """
    depth = np.where(measured(capture, frame), capture.depth[frame], 0)
    movers = 0 if capture.objects is None else capture.objects[frame]
    motion = np.where(capture.dynamic[frame], np.maximum(movers, UNNUMBERED), 0)
    return depth, np.asarray(capture.confidence[frame]), motion


def _scratch(name: str, width: int, height: int, float_buffer: bool) -> bpy.types.Image:
    image = bpy.data.images.new(name, width, height, float_buffer=float_buffer, is_data=float_buffer)
    image.alpha_mode = "NONE"
    return image


def _save(image: bpy.types.Image, pixels: np.ndarray, path: Path, scene: bpy.types.Scene, file_format: str) -> None:
    """Write pixels as they are: data has no colour space, and an 8-bit picture keeps its own."""
    image.pixels.foreach_set(pixels.ravel())
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode = file_format, "RGB"
    settings.color_depth = "32" if file_format == "OPEN_EXR" else "8"
    if file_format == "OPEN_EXR":
        settings.exr_codec = "ZIP"
    else:
        settings.compression = 15
        scene.view_settings.view_transform = "Standard"
    try:
        image.save_render(str(path), scene=scene)
    except RuntimeError as error:
        raise UserError(f"Blender could not write {path.name} ({str(error).strip()})", "free some space") from error


def make_projected(
    capture: Capture,
    name: str,
    folder: Path,
    camera: bpy.types.Object,
    root: bpy.types.Object,
    inputs: dict[str, Any],
) -> bpy.types.Object:
    """An object, to be parented to the camera, whose nodes show the sequences in `folder`; `inputs` are theirs."""
    ob = bpy.data.objects.new(name, _cameras(capture, name))
    width, height = capture.processed_size
    own = {
        "Depth": _sequence(f"{name} Depth", folder / DEPTH_NAME.format(0), data=True),
        "Plate": _sequence(f"{name} Plate", folder / PLATE_NAME.format(0), data=False),
        "Width": width,
        "Height": height,
        "Root": root,
    }
    add_player(ob, shared_group(PROJECTED, make_projected_group), inputs | own)
    ob.parent = camera
    return ob


def _sequence(name: str, first: Path, data: bool) -> bpy.types.Image:
    image = bpy.data.images.load(str(first))
    image.filepath = blender_path(first)
    image.name, image.source = name, "SEQUENCE"
    image.alpha_mode = "NONE"
    if data:
        image.colorspace_settings.name = "Non-Color"
    return image


def _cameras(capture: Capture, name: str) -> bpy.types.Mesh:
    """The T cameras as vertices: place, rotation, lens in pixels of the grid, time. Focal length 0: no camera."""
    posed = capture.has_camera
    matrices = np.where(posed[:, None, None], capture.world_from_camera, np.eye(4)) @ OPENCV_FROM_BLENDER_CAMERA
    lenses = np.where(posed[:, None], capture.intrinsics, 0)
    mesh = bpy.data.meshes.new(name)
    mesh.vertices.add(capture.frame_count)
    mesh.vertices.foreach_set("co", matrices[:, :3, 3].astype(np.float32).ravel())
    pairs = np.zeros((2, capture.frame_count, 3), np.float32)
    pairs[0, :, :2], pairs[1, :, :2] = lenses[:, :2], lenses[:, 2:]
    for key, kind, field, values in (
        (ROTATION, "QUATERNION", "value", [Matrix(m).to_quaternion() for m in matrices]),
        (FOCAL, "FLOAT_VECTOR", "vector", pairs[0]),
        (CENTRE, "FLOAT_VECTOR", "vector", pairs[1]),
        (CLIP_FRAME, "FLOAT", "value", capture.clip.clip_frames),
        (PIXEL_ANGLE, "FLOAT", "value", np.where(posed, pixel_angles(capture), 0)),
    ):
        mesh.attributes.new(key, kind, "POINT").data.foreach_set(field, np.asarray(values, np.float32).ravel())
    return mesh


def make_projected_group() -> Graph:
    """Read this frame's depth and plate on a grid, push every pixel along its ray, filter; points or a mesh."""
    graph = Graph(PROJECTED)
    graph.socket("Depth", "Image", help="Sequence of depth (R), confidence (G) and motion (B), from file 0")
    graph.socket("Plate", "Image", help="Sequence of the colors, from file 0")
    graph.socket("Width", "Int", 2, "Columns of the pictures", min_value=2)
    graph.socket("Height", "Int", 2, "Rows of the pictures", min_value=2)
    graph.socket("Root", "Object", help="Root object of the capture")
    graph.section("Surface")
    graph.socket("Surface", "Bool", False, "A mesh instead of points")
    graph.socket(
        "Max Step",
        "Float",
        0.05,
        "Tear the mesh where depth changes by a larger share from pixel to pixel",
        min_value=0.0,
    )
    graph.socket(
        "Follow Camera",
        "Bool",
        True,
        "Stand before the camera as it is now. Off: stand where the camera was when the frame was shot, which is right "
        "when Speed or Clip Frame show another frame than the camera's",
    )
    mode = time_inputs(graph)
    filter_inputs(graph)
    carrier = graph.input("Geometry")
    now = time_at(graph, carrier, mode, 0.0)
    index = now["Index"]

    focal, centre = (
        graph.sample(carrier, graph.attribute(name, "FLOAT_VECTOR"), index, "FLOAT_VECTOR") for name in (FOCAL, CENTRE)
    )
    grid, pixel, uv = _grid(graph)
    grid, color, known = _read(graph, grid, uv, index)
    depth, confidence, motion = graph.node("ShaderNodeSeparateXYZ", {"Vector": known}).node.outputs
    fields = (
        (CONFIDENCE, "FLOAT", confidence),
        (DYNAMIC, "BOOLEAN", graph.math("GREATER_THAN", motion, UNNUMBERED / 2)),
        (OBJECT, "INT", graph.math("FLOOR", motion)),
        (COLOR, "FLOAT_COLOR", color),
    )
    for name, data_type, value in fields:
        inputs = {"Geometry": grid, "Name": name, "Value": value}
        grid = graph.node("GeometryNodeStoreNamedAttribute", inputs, data_type=data_type, domain="POINT")
    # The ray of a pixel in Blender's camera axes, y up and z backwards, of unit depth.
    pixel = graph.switch("VECTOR", graph.input("Surface"), pixel, _to_the_rim(graph, pixel))
    slope = graph.vector("DIVIDE", graph.vector("SUBTRACT", pixel, centre), focal)
    ray = graph.vector("ADD", graph.vector("MULTIPLY", slope, (1.0, -1.0, 0.0)), (0.0, 0.0, -1.0))
    place = graph.node("ShaderNodeVectorMath", {"Vector": ray, "Scale": depth}, operation="SCALE")
    grid = graph.node("GeometryNodeSetPosition", {"Geometry": grid, "Position": place})

    moved_z = graph.math(
        "MULTIPLY", graph.node("ShaderNodeSeparateXYZ", {"Vector": graph.node("GeometryNodeInputPosition")}, "Z"), -1.0
    )
    has_camera = graph.math("GREATER_THAN", graph.node("ShaderNodeSeparateXYZ", {"Vector": focal}, "X"), 0.0)
    seen = graph.logic("AND", now["Shown"], has_camera)
    unknown = graph.logic("OR", graph.math("LESS_THAN", moved_z, 1e-9), graph.logic("NOT", seen))
    grid = graph.node("GeometryNodeDeleteGeometry", {"Geometry": grid, "Selection": unknown}, domain="POINT")
    grid = filtered(graph, grid)
    mesh = _torn(graph, grid)
    points = sized(graph, grid, pixel_radius(graph, (0.0, 0.0, 0.0), index), (0.0, 0.0, 0.0))
    return graph.finish(_placed(graph, graph.switch("GEOMETRY", graph.input("Surface"), points, mesh), index))


def _grid(graph: Graph) -> tuple[Any, Any, Any]:
    """A point or vertex a pixel; its centre (x right, y down, edge-origin); its place in a picture, 0 to 1, y up.

    Both kinds are in the order of Blender's Grid: columns first, each from below. Points alone are far cheaper.
    """
    width, height = graph.input("Width"), graph.input("Height")
    last = {"X": graph.math("SUBTRACT", width, 1.0), "Y": graph.math("SUBTRACT", height, 1.0)}
    sizes = {"Size X": last["X"], "Size Y": last["Y"], "Vertices X": width, "Vertices Y": height}
    mesh = graph.node("GeometryNodeMeshGrid", sizes, "Mesh")
    number = graph.node("GeometryNodeInputIndex")
    column = graph.math("FLOOR", graph.math("DIVIDE", graph.math("ADD", number, 0.5), height))
    row = graph.math("SUBTRACT", number, graph.math("MULTIPLY", column, height))
    corner = graph.vector("MULTIPLY", graph.node("ShaderNodeCombineXYZ", last), (0.5, 0.5, 0.0))
    place = graph.vector("SUBTRACT", graph.node("ShaderNodeCombineXYZ", {"X": column, "Y": row}), corner)
    points = graph.node("GeometryNodePoints", {"Count": graph.math("MULTIPLY", width, height), "Position": place})
    grid = graph.switch("GEOMETRY", graph.input("Surface"), points, mesh)

    size = graph.node("ShaderNodeCombineXYZ", {"X": width, "Y": height, "Z": 1.0})
    half = graph.vector("MULTIPLY", size, (0.5, 0.5, 0.0))
    position = graph.node("GeometryNodeInputPosition")
    pixel = graph.vector("ADD", graph.vector("MULTIPLY", position, (1.0, -1.0, 0.0)), half)
    return grid, pixel, graph.vector("DIVIDE", graph.vector("ADD", position, half), size)


def _read(graph: Graph, grid: Any, uv: Any, frame: Any) -> tuple[Any, Any, Any]:
    """The grid, and on it the colour and the depth, confidence and motion of each pixel, which are read only once."""
    kept = graph.tree.nodes.new("GeometryNodeCaptureAttribute")
    kept.capture_items.new("RGBA", "Color")
    kept.capture_items.new("VECTOR", "Known")
    graph.feed(kept.inputs["Geometry"], grid)
    for item, name in (("Color", "Plate"), ("Known", "Depth")):
        inputs = {"Image": graph.input(name), "Vector": uv, "Frame": frame}
        color = graph.node("GeometryNodeImageTexture", inputs, "Color", interpolation="Closest", extension="EXTEND")
        graph.feed(kept.inputs[item], color)
    return kept.outputs["Geometry"], kept.outputs["Color"], kept.outputs["Known"]


def _to_the_rim(graph: Graph, pixel: Any) -> Any:
    """The outermost pixel centres moved by half a pixel, so that a mesh of them covers the whole picture."""
    size = graph.node("ShaderNodeCombineXYZ", {"X": graph.input("Width"), "Y": graph.input("Height")})
    after_last = graph.vector("ADD", graph.vector("SUBTRACT", pixel, size), (1.0, 1.0, 0.0))
    before_first = graph.vector("SUBTRACT", (1.0, 1.0, 0.0), pixel)
    over, under = (graph.vector("MAXIMUM", side, (0.0, 0.0, 0.0)) for side in (after_last, before_first))
    return graph.vector("SUBTRACT", graph.vector("ADD", pixel, over), under)


def _torn(graph: Graph, mesh: Any) -> Any:
    """The mesh without the faces that hang between near and far."""
    edge = graph.tree.nodes.new("GeometryNodeInputMeshEdgeVertices")
    near, far = (graph.node("ShaderNodeSeparateXYZ", {"Vector": edge.outputs[f"Position {i}"]}, "Z") for i in (1, 2))
    step = graph.math("ABSOLUTE", graph.math("SUBTRACT", near, far))
    allowed = graph.math(
        "MULTIPLY",
        graph.math("MINIMUM", graph.math("ABSOLUTE", near), graph.math("ABSOLUTE", far)),
        graph.input("Max Step"),
    )
    inputs = {"Geometry": mesh, "Selection": graph.math("GREATER_THAN", step, allowed)}
    mesh = graph.node("GeometryNodeDeleteGeometry", inputs, domain="EDGE", mode="EDGE_FACE")
    faces = graph.node("GeometryNodeInputMeshVertexNeighbors", output="Face Count")
    inputs = {"Geometry": mesh, "Selection": graph.math("LESS_THAN", faces, 0.5)}
    mesh = graph.node("GeometryNodeDeleteGeometry", inputs, domain="POINT")
    smooth = graph.tree.nodes.new("GeometryNodeSetShadeSmooth")  # its first socket is named differently by version
    graph.feed(smooth.inputs[0], mesh)
    return graph.node("GeometryNodeSetMaterial", {"Geometry": smooth.outputs[0], "Material": graph.input("Material")})


def _placed(graph: Graph, geometry: Any, index: Any) -> Any:
    """As it is, before the camera that the object is parented to; or where that camera stood for this frame."""
    carrier = graph.input("Geometry")
    position = graph.sample(carrier, graph.node("GeometryNodeInputPosition"), index, "FLOAT_VECTOR")
    rotation = graph.sample(carrier, graph.attribute(ROTATION, "QUATERNION"), index, "QUATERNION")
    root = graph.node(
        "GeometryNodeObjectInfo", {"Object": graph.input("Root")}, "Transform", transform_space="RELATIVE"
    )
    posed = graph.node("FunctionNodeCombineTransform", {"Translation": position, "Rotation": rotation})
    place = graph.node("GeometryNodeInputPosition")
    for transform in (posed, root):
        place = graph.node("FunctionNodeTransformPoint", {"Vector": place, "Transform": transform})
    moved = graph.node("GeometryNodeSetPosition", {"Geometry": geometry, "Position": place})
    return graph.switch("GEOMETRY", graph.input("Follow Camera"), moved, geometry)
