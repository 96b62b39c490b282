"""Two renders of an imported capture: through its own camera, and from a place where no camera was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix, Vector

from backend.wire import CONFIDENCE_MEASURED, read_capture

SAMPLES = 12
#: Turn and tilt in radians about a point in front of the camera; its distance and that of the viewer in median depths.
SIDE_TURN, SIDE_TILT, SIDE_DISTANCE, SIDE_AIM = 0.6, 0.3, 1.45, 0.62
PATH_COLOUR, FRUSTUM_COLOUR = (1.0, 0.24, 0.02), (0.9, 0.9, 0.85)


def render(frame: int) -> np.ndarray:
    """(H, W, 3) uint8: a frame, counted from 0, through the imported camera."""
    scene = bpy.context.scene
    scene.frame_set(scene.frame_start + frame)
    return _picture(scene)


def render_from_the_side(frame: int, capture_folder: Path) -> np.ndarray:
    """(H, W, 3) uint8: the same points seen from the side, with the camera and its path drawn in for the picture."""
    scene, camera = bpy.context.scene, bpy.context.scene.camera
    capture = read_capture(capture_folder)
    depth = float(np.median(capture.depth[frame][capture.confidence[frame] >= CONFIDENCE_MEASURED]))
    before = {datablock.session_uid for datablock in bpy.data.user_map()}
    path = []
    for number in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(number)
        path.append(camera.matrix_world.translation.copy())
    scene.frame_set(scene.frame_start + frame)
    pose = camera.matrix_world.copy()
    _line("camera path", path, 0.006 * depth, PATH_COLOUR)
    corners = [pose @ (0.12 * depth * corner) for corner in _corners(camera.data, scene)]
    for a, b in zip(corners, [*corners[1:], corners[0]]):
        _line("frustum", [a, b], 0.003 * depth, FRUSTUM_COLOUR)
        _line("frustum", [a, pose.translation], 0.003 * depth, FRUSTUM_COLOUR)
    try:
        scene.camera = _camera_aside(camera, pose, depth)
        return _picture(scene)
    finally:
        scene.camera = camera
        bpy.data.batch_remove([d for d in bpy.data.user_map() if d.session_uid not in before])


def _camera_aside(camera: bpy.types.Object, pose: Matrix, depth: float) -> bpy.types.Object:
    """A camera that looks at the middle of what `pose` sees, from the side, above and further back."""
    aside = bpy.data.objects.new("aside", camera.data.copy())
    aside.data.animation_data_clear()
    bpy.context.scene.collection.objects.link(aside)
    middle = pose @ Vector((0, 0, -SIDE_AIM * depth))
    offset = pose.to_3x3() @ Vector((0, 0, SIDE_DISTANCE * depth))
    offset = Matrix.Rotation(-SIDE_TILT, 3, pose.to_3x3() @ Vector((1, 0, 0))) @ offset
    offset = Matrix.Rotation(SIDE_TURN, 3, Vector((0, 0, 1))) @ offset
    place = middle + offset
    aside.matrix_world = Matrix.Translation(place) @ (middle - place).to_track_quat("-Z", "Y").to_matrix().to_4x4()
    return aside


def _corners(data: bpy.types.Camera, scene: bpy.types.Scene) -> list[Vector]:
    """The corners of the picture one unit in front of a camera."""
    corners = data.view_frame(scene=scene)
    return [Vector((c.x / -c.z, c.y / -c.z, -1.0)) for c in corners]


def _line(name: str, points: list[Vector], radius: float, colour: tuple[float, float, float]) -> None:
    """A glowing line through points."""
    curve = bpy.data.curves.new(name, "CURVE")
    curve.dimensions, curve.bevel_depth = "3D", radius
    spline = curve.splines.new("POLY")
    spline.points.add(len(points) - 1)
    spline.points.foreach_set("co", [value for point in points for value in (*point, 1.0)])
    material = bpy.data.materials.new(name)
    if material.node_tree is None:
        material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    glow, output = nodes.new("ShaderNodeEmission"), nodes.new("ShaderNodeOutputMaterial")
    glow.inputs["Color"].default_value = (*colour, 1.0)
    material.node_tree.links.new(glow.outputs[0], output.inputs["Surface"])
    curve.materials.append(material)
    bpy.context.scene.collection.objects.link(bpy.data.objects.new(name, curve))


def _picture(scene: bpy.types.Scene) -> np.ndarray:
    """(H, W, 3) uint8: a Cycles render on the CPU, over dark grey."""
    scene.render.engine, scene.cycles.device, scene.cycles.samples = "CYCLES", "CPU", SAMPLES
    scene.cycles.use_denoising, scene.cycles.max_bounces = False, 0
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"  # the points carry the plate's own colours
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "PNG", "RGBA", "8"
    before = scene.render.filepath, scene.render.use_compositing
    scene.render.use_compositing = False
    with tempfile.TemporaryDirectory(prefix="kinora-render-") as scratch:
        scene.render.filepath = str(Path(scratch) / "render.png")
        bpy.ops.render.render(write_still=True)
        image = bpy.data.images.load(scene.render.filepath)
        scene.render.filepath, scene.render.use_compositing = before
        width, height = image.size
        pixels = np.empty(width * height * 4, np.float32)
        image.pixels.foreach_get(pixels)
        bpy.data.images.remove(image)
    pixels = pixels.reshape(height, width, 4)[::-1]
    colour = pixels[..., :3] * pixels[..., 3:] + 0.1 * (1 - pixels[..., 3:])
    return np.round(255 * colour.clip(0, 1)).astype(np.uint8)
