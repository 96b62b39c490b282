"""Masks that artists edit: a copy of a capture's masks to paint on, and their outlines as splines of the mask editor.

Edited masks are one picture for each frame of the capture, of the plate's size and as the plate was shot, white where
things move: what a reconstruction takes as known masks. The capture's own files are never written.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import MASK_NAME, Capture
from ..wire.errors import UserError
from ..wire.folders import staged_folder
from .belongings import LABEL, PICTURE, marked
from .distortion import PlateLens
from .grey import read_grey, write_grey
from .images import Timing, timing_of
from .imported import ROLE, Imported, mark
from .keys import key
from .outlines import area, outlines, simplified

#: Of the files of edited masks, by the frame of the capture.
EDITED_NAME = "mask_{:04d}.png"
#: Role of what is made to edit masks: the sequence to paint on, its movie clip, the splines.
EDITED_MASK = "edited_mask"
#: What Blender reads as a mask; the files of one folder are in the order of the numbers in their names.
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
#: Custom properties of the root: the folder of the masks that its points were split by, and of which capture.
MASKS, MASKS_OF = "kinora_masks", "kinora_masks_of"


def free_folder(imported: Imported) -> Path:
    """A folder beside the capture that does not exist yet, for masks that are edited."""
    folder = imported.folder.with_name(f"{imported.folder.name}_masks")
    number = 2
    while folder.exists():
        folder = imported.folder.with_name(f"{imported.folder.name}_masks_{number:03d}")
        number += 1
    return folder


def plate_mask(capture: Capture, frame: int) -> np.ndarray:
    """(plate H, plate W) bool: what moves in a frame by the capture, on the plate as it was shot.

    Raises UserError when the capture has no masks as pictures.
    """
    path = capture.folder / MASK_NAME.format(frame)
    if not path.is_file():
        raise UserError(f"The capture {capture.folder.name} has no {path.name}", "reconstruct it again")
    mask = read_grey(path) > 0.5
    if not (capture.clip.k1 or capture.clip.k2):
        return mask
    height, width = mask.shape
    shot = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    return _looked_up(mask, PlateLens.of(capture).undistort(shot))


def mask_in_use(imported: Imported, capture: Capture, frame: int) -> np.ndarray:
    """(plate H, plate W) bool: what moves in a frame by the masks that were put to use, else by the capture."""
    folder = _in_use(imported, capture)
    if folder is None:
        return plate_mask(capture, frame)
    return read_grey(mask_files(folder, capture)[frame]) > 0.5


def _in_use(imported: Imported, capture: Capture) -> Path | None:
    """The folder of the masks that an import's points were split by; None when those are the capture's own."""
    root = imported.root
    return Path(root[MASKS]) if MASKS in root and root.get(MASKS_OF) == str(capture.folder) else None


def mask_files(folder: Path, capture: Capture) -> list[Path]:
    """One file for each frame of a capture, of a folder with one for each of them or for each frame of its clip.

    Raises UserError when there are too few or too many.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    found.sort(key=lambda p: [int(t) if t.isdigit() else t.casefold() for t in re.split(r"(\d+)", p.name)])
    indices = capture.clip.frame_indices
    if len(found) == capture.frame_count:
        return found
    if len(found) > indices[-1]:
        return [found[i] for i in indices]
    raise UserError(
        f"There are {len(found)} masks in {folder} for {capture.frame_count} frames",
        "give one for each frame used, or one for each frame of the clip",
    )


def undistorted_mask(capture: Capture, mask: np.ndarray) -> np.ndarray:
    """(plate H, plate W) bool: a mask of the plate as shot, on the undistorted plate."""
    if not (capture.clip.k1 or capture.clip.k2):
        return mask
    height, width = mask.shape
    straight = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    return _looked_up(mask, PlateLens.of(capture).distort(straight))


def _looked_up(mask: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The mask at (H, W, 2) edge-origin pixels, False outside of it."""
    height, width = mask.shape
    known = np.isfinite(pixels).all(axis=-1)
    x, y = np.floor(np.where(known[..., None], pixels, -1)).astype(int).transpose(2, 0, 1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    found = np.zeros(mask.shape, bool)
    found[inside] = mask[y[inside], x[inside]]
    return found


def copy_masks(imported: Imported, folder: Path) -> bpy.types.Image:
    """Copy the masks that are in use to a new folder and return them as an image sequence that can be painted on.

    Raises UserError when the folder exists, cannot be written, or the capture has no masks.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already", "choose a new folder for the masks")
    capture = imported.capture()
    with staged_folder(folder, "The masks") as staging:
        for frame in range(capture.frame_count):
            own = capture.folder / MASK_NAME.format(frame)
            copy = staging / EDITED_NAME.format(frame)
            if own.is_file() and not (_in_use(imported, capture) or capture.clip.k1 or capture.clip.k2):
                shutil.copyfile(own, copy)
            else:
                write_grey(copy, mask_in_use(imported, capture, frame).astype(np.uint8) * 255)
    return show_masks(imported, folder)


def show_masks(imported: Imported, folder: Path) -> bpy.types.Image:
    """The edited masks in a folder as an image sequence, and as a movie clip to draw splines over; those of the import
    when it has them already."""
    first = str(folder / EDITED_NAME.format(0))
    image, clip = edited_masks(imported), _edited_clip(imported)
    if image is None:
        image = bpy.data.images.load(first)
    if clip is None:
        clip = bpy.data.movieclips.load(first)
    for datablock in (image, clip):
        datablock.name = f"{imported.name} Edited Mask"
        datablock["kinora_folder"] = str(folder)
        datablock.filepath = first
        datablock.colorspace_settings.name = "Non-Color"
        datablock.use_fake_user = True
        mark(datablock, EDITED_MASK, imported.root)
    clip.frame_start = timing_of(imported, imported.capture()).start_frame
    image.source = "SEQUENCE"
    image.reload()
    return image


def edited_masks(imported: Imported) -> bpy.types.Image | None:
    """The image sequence of an import's edited masks; None when there is none."""
    return next((d for d in marked(imported.root, EDITED_MASK) if isinstance(d, bpy.types.Image)), None)


def _edited_clip(imported: Imported) -> bpy.types.MovieClip | None:
    return next((d for d in marked(imported.root, EDITED_MASK) if isinstance(d, bpy.types.MovieClip)), None)


def plate_clip(imported: Imported) -> bpy.types.MovieClip | None:
    """The plate of an import as a movie clip; None when the footage was not found."""
    found = [d for d in marked(imported.root, PICTURE) if d.get(LABEL) == "Plate"]
    return next((d for d in found if isinstance(d, bpy.types.MovieClip)), None)


def masks_to_splines(
    imported: Imported, frames: list[int], tolerance_px: float, smallest_px: float, *, name: str = ""
) -> bpy.types.Mask:
    """A Mask for Blender's mask editor whose splines are the outlines of what moves in these frames of the capture.

    Each frame has a layer of its own, which is on from its frame of the scene to the next one's; a single frame's is
    always on. Corners closer than `tolerance_px` to the line between others are left out, and so are pieces and holes
    smaller than `smallest_px` square pixels. Raises UserError when nothing moves there.
    """
    capture = imported.capture()
    timing = timing_of(imported, capture)
    size = capture.clip.plate_size
    found = {}
    for frame in frames:
        rings = [p for p in outlines(mask_in_use(imported, capture, frame)) if abs(area(p)) >= max(smallest_px, 1)]
        rings = [simplified(ring, tolerance_px) for ring in rings]
        found[frame] = [ring for ring in rings if abs(area(ring)) >= 1]
    if not any(found.values()):
        raise UserError("Nothing moves in these frames by the masks of the capture", "choose frames in which it does")
    mask = bpy.data.masks.new(name or f"{imported.name} Mask")
    try:
        _fill(mask, found, timing, size)
    except BaseException:
        bpy.data.masks.remove(mask)
        raise
    mask.use_fake_user = True
    mask[ROLE] = EDITED_MASK
    return mask


def _fill(mask: bpy.types.Mask, found: dict[int, list[np.ndarray]], timing: Timing, size: tuple[int, int]) -> None:
    mask.frame_start, mask.frame_end = timing.start_frame, timing.end_frame
    action = bpy.data.actions.new(mask.name) if len(found) > 1 else None
    starts = [int(timing.scene_frames[frame]) for frame in found]
    for i, rings in enumerate(found.values()):
        layer = mask.layers.new(name=f"Frame {starts[i]}")
        layer.use_fill_holes = True
        if hasattr(layer, "fill_solver"):
            layer.fill_solver = "SWEEP_LINE"  # the other one fills holes
        for ring in rings:
            _add_spline(layer, ring, size)
        if action is not None:
            on = np.array([timing.start_frame - 1, starts[i], starts[i + 1] if i + 1 < len(starts) else starts[i]])
            shown = np.array([0.0, 1.0, 0.0 if i + 1 < len(starts) else 1.0])
            if i == 0:
                shown[0] = 1.0  # nothing is before the first
            frames, last = np.unique(on, return_index=True)
            path = f'layers["{layer.name}"]'
            key(mask, action, f"{path}.alpha", frames, shown[last], hold=True)
            key(mask, action, f"{path}.hide", frames, 1 - shown[last], hold=True)


def _add_spline(layer: bpy.types.MaskLayer, ring: np.ndarray, size: tuple[int, int]) -> None:
    """A closed spline with corners at (N, 2) edge-origin plate pixels. Masks count the longer side from 0 to 1."""
    longer = max(size)
    places = np.stack([ring[:, 0] - size[0] / 2, size[1] / 2 - ring[:, 1]], axis=1) / longer + 0.5
    spline = layer.splines.new()
    spline.use_cyclic = True
    spline.points.add(len(places) - len(spline.points))
    for point, place in zip(spline.points, places):
        point.handle_type = "VECTOR"
        point.co = point.handle_left = point.handle_right = place
