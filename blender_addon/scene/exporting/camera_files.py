"""The camera as text: Nuke's script and .chan, and JSON with everything in it; world y-up where the program's is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from mathutils import Matrix

from .sampled import SampledCamera

#: Nuke's world is y-up: (x, y, z) of Blender becomes (x, z, -y). Cameras look along -z in both.
Y_UP = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)


def turns(world_from_camera: np.ndarray) -> np.ndarray:
    """(F, 3) degrees about x, y, z, applied in the order z, x, y, without jumps from frame to frame."""
    euler, rows = None, []
    for matrix in world_from_camera:
        rotation = Matrix(matrix).to_3x3()
        euler = rotation.to_euler("ZXY", euler) if euler is not None else rotation.to_euler("ZXY")
        rows.append(tuple(euler))
    return np.degrees(np.array(rows))


def chan(camera: SampledCamera) -> str:
    """A .chan file: frame, translation, rotation in degrees (order ZXY, y-up), vertical field of view in degrees."""
    poses = Y_UP @ camera.world_from_camera
    view = 2 * np.degrees(np.arctan(camera.size[1] / 2 / camera.intrinsics[:, 1]))
    rows = np.column_stack([poses[:, :3, 3], turns(poses), view])
    lines = [f"{frame} " + " ".join(f"{value:.9g}" for value in row) for frame, row in zip(camera.frames, rows)]
    return "\n".join(lines) + "\n"


def nuke(camera: SampledCamera, name: str, plate: str = "") -> str:
    """A Nuke script to paste or import: the camera, and the plate in a Read node where it is known.

    Nuke projects with focal / haperture over the width, moves the picture by -win_translate in half widths, and takes
    the pixel aspect from the format.
    """
    width, height = camera.size
    poses = Y_UP @ camera.world_from_camera
    vertical = camera.sensor_width_mm * height / (width * camera.pixel_aspect)
    first, last = int(camera.frames[0]), int(camera.frames[-1])
    shift = camera.shift
    knobs = (
        "rot_order ZXY",
        f"translate {_curves(camera.frames, poses[:, :3, 3])}",
        f"rotate {_curves(camera.frames, turns(poses))}",
        f"focal {_curves(camera.frames, camera.lens_mm[:, None])}",
        f"haperture {camera.sensor_width_mm:.9g}",
        f"vaperture {vertical:.9g}",
        f"near {camera.clip[0]:.9g}",
        f"far {camera.clip[1]:.9g}",
        f"win_translate {_curves(camera.frames, 2 * shift)}",
    )
    label = name.replace(" ", "_")
    frame_format = f'"{width} {height} 0 0 {width} {height} {camera.pixel_aspect:.9g} {label}_plate"'
    root = (f"first_frame {first}", f"last_frame {last}", f"fps {camera.fps:.9g}", f"format {frame_format}")
    text = [_node("Root", ("inputs 0", *root))]
    if plate:
        path = '"' + plate.replace("\\", "/").replace('"', "") + '"'
        knobs_read = (f"file {path}", f"format {frame_format}", f"first {first}", f"last {last}", f"name {label}_plate")
        text.append(_node("Read", ("inputs 0", *knobs_read)))
    text.append(_node("Camera2", ("inputs 0", *knobs, f"name {label}_camera")))
    return "\n".join(text) + "\n"


def _node(kind: str, knobs: tuple[str, ...]) -> str:
    return "\n".join([f"{kind} {{", *(f" {knob}" for knob in knobs), "}"])


def _curves(frames: np.ndarray, values: np.ndarray) -> str:
    """(F, K) values as K curves with a key at every frame."""
    curves = ("{curve " + " ".join(f"x{f} {v:.9g}" for f, v in zip(frames, column)) + "}" for column in values.T)
    return "{" + " ".join(curves) + "}"


def as_json(camera: SampledCamera, name: str) -> str:
    """Every number of the camera, in Blender's world (z-up)."""
    shift = camera.shift
    document = {
        "format": "kinora-camera",
        "name": name,
        "world": "z up; camera looks along -z with y up; pixels edge-origin, y down",
        "size": list(camera.size),
        "pixel_aspect": camera.pixel_aspect,
        "fps": camera.fps,
        "sensor_width_mm": camera.sensor_width_mm,
        "frames": [
            {
                "frame": int(frame),
                "world_from_camera": pose.tolist(),
                "fx_fy_cx_cy": lens.tolist(),
                "lens_mm": float(mm),
                "shift": offset.tolist(),
            }
            for frame, pose, lens, mm, offset in zip(
                camera.frames, camera.world_from_camera, camera.intrinsics, camera.lens_mm, shift
            )
        ],
    }
    return json.dumps(document, indent=1, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Write a text file, with the same line ends everywhere."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(text)
