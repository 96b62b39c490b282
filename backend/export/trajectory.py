"""Camera path and lens as text: a standard TUM trajectory, and fx fy cx cy per frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..wire import Capture
from .output import Exported, export_folder, exported

TRAJECTORY_NAME = "pred_traj.txt"
INTRINSICS_NAME = "pred_intrinsics.txt"


def add_trajectory(capture: Capture, folder: Path) -> dict[str, Any]:
    """Write `pred_traj.txt`, without the frames that have no camera, and `pred_intrinsics.txt`, a row each frame."""
    known = capture.has_camera
    cameras = capture.world_from_camera[known]
    rows = np.column_stack(
        [np.asarray(capture.clip.timestamps)[known], cameras[:, :3, 3], continuous_quaternions(cameras[:, :3, :3])]
    )
    units = "metres" if capture.metric else "units of an arbitrary scale"
    write_table(
        folder / TRAJECTORY_NAME,
        rows,
        f"camera-to-world, OpenCV axes, seconds of the clip, {units}\ntimestamp tx ty tz qx qy qz qw",
    )
    width, height = capture.processed_size
    write_table(
        folder / INTRINSICS_NAME,
        capture.intrinsics,
        f"pixels of the {width} x {height} processed frames, edge-origin (the first pixel's centre is 0.5), "
        "one row a frame, nan when unknown\nfx fy cx cy",
    )
    return {}


def export_tum(capture: Capture, folder: Path) -> Exported:
    """Write the two text files to a new folder."""
    with export_folder(folder) as staging:
        add_trajectory(capture, staging)
        return exported(capture, staging, folder)


def continuous_quaternions(rotations: np.ndarray) -> np.ndarray:
    """(N, 4) quaternions x y z w of (N, 3, 3) rotations, each nearest to its predecessor so that they interpolate."""
    if not len(rotations):
        return np.zeros((0, 4))
    xyzw = Rotation.from_matrix(rotations).as_quat()
    turns = np.sign(np.einsum("ij,ij->i", xyzw[1:], xyzw[:-1]))
    return xyzw * np.concatenate([[1.0], np.cumprod(np.where(turns < 0, -1.0, 1.0))])[:, None]


def write_table(path: Path, rows: np.ndarray, header: str) -> None:
    """Write numbers as text that gives back nearly every bit, under a commented header."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        np.savetxt(file, rows, fmt="%.12g", header=header)
