"""The points as other programs read them: a PLY a frame, and a GLB that plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from ...wire.gltf import GltfFile
from ..camera_path import continuous
from ..ply import encode_ply
from .camera_files import Y_UP
from .sampled import SampledCamera, SampledPoints, sample_points, visiting

PLY_NAME = "frame_{:05d}.ply"
MODE_POINTS = 0
Told = Callable[[float], None]


def write_ply_sequence(
    folder: Path, scene: bpy.types.Scene, objects: list[bpy.types.Object], frames: np.ndarray, told: Told
) -> int:
    """One binary PLY a scene frame with what is shown there, in Blender's world; how many points in all."""
    points = 0
    with visiting(scene) as go:
        for number, frame in enumerate(frames):
            told(number / len(frames))
            shown = sample_points(objects, go(frame))
            points += len(shown.positions)
            data = encode_ply(shown.positions, {"Color": shown.colors, **shown.attributes})
            (folder / PLY_NAME.format(frame)).write_bytes(data)
    return points


def write_glb(
    path: Path,
    scene: bpy.types.Scene,
    objects: list[bpy.types.Object],
    still: list[bpy.types.Object],
    frames: np.ndarray,
    camera: SampledCamera | None,
    most: int,
    told: Told,
) -> int:
    """A GLB whose nodes appear and vanish frame by frame; `still` objects are stored once. How many points it has.

    At most `most` points of each frame, evenly chosen. glTF keys neither lens nor shift: the camera has the lens of its
    first frame, centred.
    """
    file = GltfFile("Kinora")
    file.document["extensionsUsed"] = ["KHR_materials_unlit"]
    material = file.add("materials", {"name": "plate colour", "extensions": {"KHR_materials_unlit": {}}})
    animation: dict = {"name": "capture", "samplers": [], "channels": []}
    seconds = (np.asarray(frames) - frames[0]) / (scene.render.fps / scene.render.fps_base)
    ends = np.append(seconds[1:], seconds[-1] + 1 / (scene.render.fps / scene.render.fps_base))
    nodes, points = [], 0
    with visiting(scene) as go:
        shown = sample_points(still, go(frames[0]))
        points += len(shown.positions)
        nodes.append(_cloud_node(file, "static", shown, material))
        moving = [ob for ob in objects if ob not in still]
        for number, frame in enumerate(frames if moving else []):
            told(number / len(frames))
            shown = _at_most(sample_points(moving, go(frame)), most)
            points += len(shown.positions)
            node = _cloud_node(file, f"frame_{frame}", shown, material)
            nodes.append(node)
            times, scales = [seconds[number], ends[number]], [1.0, float(number == len(frames) - 1)]
            if number:
                times, scales = [0.0, *times], [0.0, *scales]
            _animate(file, animation, node, "scale", np.array(times), np.repeat(scales, 3).reshape(-1, 3), "STEP")
    if camera is not None:
        nodes.append(_camera_node(file, animation, camera, seconds))
    if animation["channels"]:
        file.add("animations", animation)
    file.document["scene"] = file.add("scenes", {"name": "Kinora", "nodes": nodes})
    path.write_bytes(file.to_bytes())
    return points


def _at_most(points: SampledPoints, most: int) -> SampledPoints:
    if len(points.positions) <= most:
        return points
    kept = np.unique(np.linspace(0, len(points.positions) - 1, most).astype(int))
    return SampledPoints(points.positions[kept], points.colors[kept], {})


def _cloud_node(file: GltfFile, name: str, points: SampledPoints, material: int) -> int:
    node: dict = {"name": name}
    if len(points.positions):
        level = points.colors / 255.0  # glTF's vertex colours are linear
        linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
        attributes = {
            "POSITION": file.floats(points.positions @ Y_UP[:3, :3].T, vertices=True),
            "COLOR_0": file.floats(linear, vertices=True),
        }
        primitive = {"attributes": attributes, "mode": MODE_POINTS, "material": material}
        node["mesh"] = file.add("meshes", {"name": name, "primitives": [primitive]})
    return file.add("nodes", node)


def _camera_node(file: GltfFile, animation: dict, camera: SampledCamera, seconds: np.ndarray) -> int:
    width, height = camera.size
    lens = {
        "yfov": float(2 * np.arctan(height / 2 / camera.intrinsics[0, 1])),
        "aspectRatio": float(width / camera.intrinsics[0, 0] / (height / camera.intrinsics[0, 1])),
        "znear": camera.clip[0],
        "zfar": camera.clip[1],
    }
    poses = Y_UP @ camera.world_from_camera
    wxyz = continuous(np.array([Matrix(pose).to_quaternion() for pose in poses]))
    turns = wxyz[:, [1, 2, 3, 0]]  # as glTF has them
    node = file.add(
        "nodes",
        {
            "name": "camera",
            "camera": file.add("cameras", {"name": "camera", "type": "perspective", "perspective": lens}),
            "translation": poses[0, :3, 3].tolist(),
            "rotation": turns[0].tolist(),
        },
    )
    if len(poses) > 1:
        _animate(file, animation, node, "translation", seconds, poses[:, :3, 3], "LINEAR")
        _animate(file, animation, node, "rotation", seconds, turns, "LINEAR")
    return node


def _animate(
    file: GltfFile, animation: dict, node: int, path: str, times: np.ndarray, values: np.ndarray, how: str
) -> None:
    sampler = {"input": file.floats(times), "output": file.floats(values), "interpolation": how}
    animation["samplers"].append(sampler)
    animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": {"node": node, "path": path}})
