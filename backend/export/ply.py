"""PLY sequence: one binary point cloud a frame, in the world, with colour, confidence and motion."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..wire import Capture
from .cloud import Cloud, frame_cloud
from .output import Exported, export_folder, exported

NAME = "frame_{:04d}.ply"

#: The vertex as the file stores it, packed; PLY calls 'f4' float and 'u1' uchar.
VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
        ("dynamic", "u1"),
    ]
)


def export_ply(capture: Capture, folder: Path) -> Exported:
    """Write `frame_0000.ply`, ... with every pixel that has a depth; a frame without a camera has no file."""
    with export_folder(folder) as staging:
        for frame in np.flatnonzero(capture.has_camera):
            (staging / NAME.format(frame)).write_bytes(encode(frame_cloud(capture, frame)))
        return exported(capture, staging, folder)


def encode(cloud: Cloud) -> bytes:
    """A cloud as the bytes of a binary little-endian PLY file."""
    vertices = np.empty(len(cloud.points_world), VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = cloud.points_world[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = cloud.colours[:, channel]
    vertices["confidence"] = cloud.confidence
    vertices["dynamic"] = cloud.dynamic
    kinds = {"<f4": "float", "|u1": "uchar"}
    properties = "".join(f"property {kinds[VERTEX[name].str]} {name}\n" for name in VERTEX.names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n{properties}end_header\n"
    return header.encode("ascii") + vertices.tobytes()
