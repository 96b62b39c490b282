"""`scene.glb`: the coloured cloud, one node a time step shown by its animated scale, with the animated camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..wire import Capture, GltfFile
from .cloud import Cloud, frame_cloud, measured, scattered_pixels
from .output import Exported, export_folder, exported, frames_without_camera
from .trajectory import continuous_quaternions

NAME = "scene.glb"
POINTS_PER_FRAME = 20_000
POINTS_IN_ALL = 1_500_000
MODE_POINTS, MODE_LINES = 0, 1

#: OpenCV axes (y down, z forward) to glTF's (y up, z back) and back: half a turn about x, as a quaternion x y z w.
HALF_TURN_X = [1.0, 0.0, 0.0, 0.0]
GLTF_AXES = np.diag([1.0, -1.0, -1.0])


def add_scene(
    capture: Capture, folder: Path, *, points_per_frame: int = POINTS_PER_FRAME, points_in_all: int = POINTS_IN_ALL
) -> dict[str, Any]:
    """Write `scene.glb` and return what capture.json says of it.

    A frame gets at most `points_per_frame` of its points that reach the capture's default confidence, and all frames
    together at most `points_in_all`: the same scattered pixels in every frame, so that the background stands still.
    """
    width, height = capture.processed_size
    most = max(1, min(points_per_frame, points_in_all // max(capture.frame_count, 1)))
    pixels = scattered_pixels(width, height)
    file = GltfFile("Kinora")
    file.document["extensionsUsed"] = ["KHR_materials_unlit"]
    material = file.add(
        "materials",
        {
            "name": "plate colour",
            "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
            "extensions": {"KHR_materials_unlit": {}},
        },
    )
    animation: dict[str, Any] = {"name": "capture", "samplers": [], "channels": []}
    starts = step_times(capture)
    children, points = [], 0
    for frame in range(capture.frame_count):
        cloud = frame_cloud(capture, frame, min_confidence=capture.confidence_default, pixels=pixels, most=most)
        points += len(cloud.points_world)
        node = add_time_step(file, f"frame_{frame:04d}", cloud, material)
        show_during(file, animation, node, starts, frame)
        children.append(node)
    if capture.has_camera.any():
        children += add_camera(file, animation, capture, starts, material)
    file.add("animations", animation)
    description = {
        "points": points,
        "points_per_frame": most,
        "min_confidence": capture.confidence_default,
        "frames_without_camera": list(frames_without_camera(capture)),
    }
    root = file.add("nodes", {"name": "kinora", "rotation": HALF_TURN_X, "children": children, "extras": description})
    file.document["scene"] = file.add("scenes", {"name": "capture", "nodes": [root]})
    (folder / NAME).write_bytes(file.to_bytes())
    return {"scene_glb": description}


def export_glb(capture: Capture, folder: Path, **budget: int) -> Exported:
    """Write `scene.glb` to a new folder; `budget` is as in `add_scene`."""
    with export_folder(folder) as staging:
        add_scene(capture, staging, **budget)
        return exported(capture, staging, folder)


def step_times(capture: Capture) -> np.ndarray:
    """(T + 1,) seconds since the first frame at which every time step begins, and at which the last one ends."""
    starts = np.asarray(capture.clip.timestamps, np.float64) - capture.clip.timestamps[0]
    if (np.diff(starts) <= 0).any():
        raise ValueError("the timestamps of a clip must increase from frame to frame")
    duration = np.median(np.diff(starts)) if len(starts) > 1 else 1 / float(capture.clip.fps)
    return np.append(starts, starts[-1] + duration)


def add_time_step(file: GltfFile, name: str, cloud: Cloud, material: int) -> int:
    """A node with the points of one frame; an empty node when it has none."""
    node: dict[str, Any] = {"name": name}
    if len(cloud.points_world):
        attributes = {
            "POSITION": file.floats(cloud.points_world, vertices=True),
            # glTF's vertex colours are linear: eight bits would band the shadows, and trimesh misreads sixteen.
            "COLOR_0": file.floats(linear_colours(cloud.colours), vertices=True),
        }
        node["mesh"] = add_mesh(file, name, attributes, MODE_POINTS, material)
    return file.add("nodes", node)


def add_mesh(file: GltfFile, name: str, attributes: dict[str, int], mode: int, material: int) -> int:
    """A mesh of one primitive."""
    return file.add(
        "meshes", {"name": name, "primitives": [{"attributes": attributes, "mode": mode, "material": material}]}
    )


def linear_colours(srgb: np.ndarray) -> np.ndarray:
    """Linear float colours of uint8 sRGB (IEC 61966-2-1)."""
    level = np.arange(256) / 255
    table = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return table[srgb]


def show_during(file: GltfFile, animation: dict[str, Any], node: int, starts: np.ndarray, frame: int) -> None:
    """Scale a node to nothing except during its own time step, which is how glTF 2.0 says to animate visibility."""
    times = starts[[frame, frame + 1]].tolist()
    scales = [1.0, 0.0]
    if frame == len(starts) - 2:
        scales = [1.0, 1.0]  # the last step holds
    if frame > 0:
        times, scales = [0.0, *times], [0.0, *scales]
    animate(file, animation, node, "scale", np.array(times), np.repeat(scales, 3).reshape(-1, 3), "STEP")


def animate(
    file: GltfFile, animation: dict[str, Any], node: int, path: str, times: np.ndarray, values: np.ndarray, how: str
) -> None:
    """Add one animated property of one node."""
    sampler = {"input": file.floats(times), "output": file.floats(values), "interpolation": how}
    animation["samplers"].append(sampler)
    animation["channels"].append({"sampler": len(animation["samplers"]) - 1, "target": {"node": node, "path": path}})


def add_camera(
    file: GltfFile, animation: dict[str, Any], capture: Capture, starts: np.ndarray, material: int
) -> list[int]:
    """The animated camera with its frustum as lines, and its path; glTF cannot animate a lens or shift it sideways.

    So the lens is the median one, centred; the exact lens of every frame is in `pred_intrinsics.txt`.
    """
    known = capture.has_camera
    cameras = capture.world_from_camera[known]
    times = starts[:-1][known]
    fx, fy, cx, cy = np.median(capture.plate_intrinsics[known], axis=0)
    width, height = capture.clip.plate_size
    depth = np.asarray(capture.depth[known])
    depth = depth[measured(depth)]
    near, middle, far = np.percentile(depth, [0, 50, 100]).tolist() if depth.size else (0.1, 1.0, 10.0)
    lens = {
        "yfov": 2 * float(np.arctan(height / 2 / fy)),
        "aspectRatio": float((width / fx) / (height / fy)),
        "znear": near / 10,
        "zfar": far * 10,
    }
    tip = 0.1 * middle  # a frustum that can be seen, and small against the scene
    corners = [
        ((x - cx) / fx * tip, -(y - cy) / fy * tip, -tip) for x, y in ((0, 0), (width, 0), (width, height), (0, height))
    ]
    edges = [end for i in range(4) for end in ((0, 0, 0), corners[i], corners[i], corners[(i + 1) % 4])]
    translations = cameras[:, :3, 3]
    rotations = continuous_quaternions(cameras[:, :3, :3] @ GLTF_AXES)
    camera = file.add(
        "nodes",
        {
            "name": "camera",
            "camera": file.add("cameras", {"name": "camera", "type": "perspective", "perspective": lens}),
            "translation": translations[0].tolist(),
            "rotation": rotations[0].tolist(),
            "children": [add_lines(file, "camera_frustum", np.array(edges), material)],
        },
    )
    animate(file, animation, camera, "translation", times, translations, "LINEAR")
    animate(file, animation, camera, "rotation", times, rotations, "LINEAR")
    if len(translations) < 2:
        return [camera]
    return [camera, add_lines(file, "camera_path", np.repeat(translations, 2, axis=0)[1:-1], material)]


def add_lines(file: GltfFile, name: str, ends: np.ndarray, material: int) -> int:
    """A node with separate lines, each between two consecutive points."""
    attributes = {"POSITION": file.floats(ends, vertices=True)}
    return file.add("nodes", {"name": name, "mesh": add_mesh(file, name, attributes, MODE_LINES, material)})
