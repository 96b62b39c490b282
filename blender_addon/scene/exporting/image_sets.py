"""Posed images for radiance fields and splats: COLMAP's text model and nerfstudio's transforms.json.

The images are the capture's own frames, copied: they are undistorted and their intrinsics are exact. The cameras are
those of the Blender scene, so that a smoothed, corrected or scaled camera goes along.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import bpy
import numpy as np
from mathutils import Matrix

from ...wire.capture import MASK_NAME, RGB_NAME, Capture
from ...wire.errors import UserError
from ..ply import encode_ply
from .camera_files import write_text
from .sampled import SampledCamera, SampledPoints

#: More points than this help no trainer, and COLMAP's text grows with each.
MOST_POINTS = 200_000


def grid_intrinsics(camera: SampledCamera, capture: Capture) -> np.ndarray:
    """(F, 4) fx fy cx cy on the capture's frames, of the scene's camera whose render shows the plate."""
    plate = capture.clip.plate_size
    scale = np.array([plate[0] / camera.size[0], plate[1] / camera.size[1]] * 2)
    return capture.plate_map.intrinsics_to_grid(camera.intrinsics * scale)


def copy_images(capture: Capture, frames: np.ndarray, folder: Path) -> list[str]:
    """Copy the pictures of these frames of the capture to `folder`; their names. Raises UserError for a missing one."""
    folder.mkdir()
    names = [RGB_NAME.format(i) for i in frames]
    for name in names:
        if not (capture.folder / name).is_file():
            raise UserError(f"The capture has no {name}", "reconstruct it again, then export")
        shutil.copyfile(capture.folder / name, folder / name)
    return names


def thinned(points: SampledPoints) -> SampledPoints:
    """At most MOST_POINTS of the points, evenly chosen."""
    kept = np.unique(np.linspace(0, len(points.positions) - 1, MOST_POINTS).astype(int))
    if len(points.positions) <= MOST_POINTS:
        return points
    return SampledPoints(points.positions[kept], points.colors[kept], {})


def write_colmap(
    folder: Path, capture: Capture, frames: np.ndarray, camera: SampledCamera, points: SampledPoints
) -> None:
    """`images/` and `sparse/0/` with cameras.txt, images.txt, points3D.txt; world z-up, as in Blender."""
    names = copy_images(capture, frames, folder / "images")
    model = folder / "sparse" / "0"
    model.mkdir(parents=True)
    width, height = capture.processed_size
    lenses = grid_intrinsics(camera, capture)
    cameras, images = (
        ["# CAMERA_ID, MODEL, WIDTH, HEIGHT, fx, fy, cx, cy"],
        ["# IMAGE_ID, qw qx qy qz, t, CAMERA_ID, NAME"],
    )
    one_lens = not camera.lens_is_animated
    for number, (name, lens, pose) in enumerate(zip(names, lenses, camera.camera_from_world), start=1):
        camera_id = 1 if one_lens else number
        if number == camera_id:
            cameras.append(f"{camera_id} PINHOLE {width} {height} " + " ".join(f"{v:.12g}" for v in lens))
        values = (*Matrix(pose).to_quaternion(), *pose[:3, 3])
        images += [f"{number} " + " ".join(f"{v:.12g}" for v in values) + f" {camera_id} {name}", ""]
    rows = zip(points.positions.tolist(), points.colors.tolist())
    cloud = ["# POINT3D_ID, x y z, r g b, ERROR, TRACK[]"]
    cloud += [f"{i} {x:.7g} {y:.7g} {z:.7g} {r} {g} {b} 0" for i, ((x, y, z), (r, g, b)) in enumerate(rows, start=1)]
    for name, lines in (("cameras", cameras), ("images", images), ("points3D", cloud)):
        write_text(model / f"{name}.txt", "\n".join(lines) + "\n")


def write_nerfstudio(
    folder: Path, capture: Capture, frames: np.ndarray, camera: SampledCamera, points: SampledPoints
) -> None:
    """`transforms.json`, `images/`, `masks/` (0 where something moves) and `points.ply`; world z-up, OpenGL cameras."""
    names = copy_images(capture, frames, folder / "images")
    width, height = capture.processed_size
    masks = _write_masks(capture, frames, folder / "masks") if capture.dynamic[frames].any() else [None] * len(names)
    rows = []
    for name, mask, lens, pose in zip(names, masks, grid_intrinsics(camera, capture), camera.world_from_camera):
        row = {"file_path": f"images/{name}", "transform_matrix": pose.tolist()}
        row |= dict(zip(("fl_x", "fl_y", "cx", "cy"), lens.tolist()))
        rows.append(row | ({"mask_path": f"masks/{mask}"} if mask else {}))
    (folder / "points.ply").write_bytes(encode_ply(points.positions, {"Color": points.colors}))
    document = {
        "camera_model": "OPENCV",
        "w": width,
        "h": height,
        **dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0),
        "ply_file_path": "points.ply",
        "frames": rows,
    }
    write_text(folder / "transforms.json", json.dumps(document, indent=1, allow_nan=False) + "\n")


def _write_masks(capture: Capture, frames: np.ndarray, folder: Path) -> list[str]:
    """Masks of the frames' own size, white where a trainer may look; their names."""
    folder.mkdir()
    width, height = capture.processed_size
    picture = bpy.data.images.new("Kinora Mask", width, height, is_data=True)
    try:
        picture.file_format = "PNG"
        levels = np.ones((height, width, 4), np.float32)
        names = [MASK_NAME.format(i) for i in frames]
        for frame, name in zip(frames, names):
            levels[..., :3] = (~np.asarray(capture.dynamic[frame]))[::-1, :, None]  # Blender's rows go up
            picture.pixels.foreach_set(levels.ravel())
            picture.save(filepath=str(folder / name))
    finally:
        bpy.data.images.remove(picture)
    return names
