"""The pictures of a capture in Blender: the plate as a movie clip, masks, depth and confidence as sequences."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..wire.capture import CONF_NAME, DEPTH_NAME, MASK_NAME, RGB_NAME, Capture
from .baseline import read_options
from .conventions import sensor_width
from .distortion import PlateLens
from .imported import Imported
from .keys import key
from .paths import as_wanted
from .steps import Step, Steps

#: What a sequence shows -> (file pattern, entry of capture.json's "images").
SEQUENCES = {
    "Frames": (RGB_NAME, "rgb"),
    "Mask": (MASK_NAME, "dynamic_mask"),
    "Depth": (DEPTH_NAME, "depth"),
    "Confidence": (CONF_NAME, "conf"),
}


STANDS_IN = "The capture's own frames stand in for the plate"


@dataclass(frozen=True)
class Timing:
    """When the T frames of a capture are seen: `clip_frames` (T,) counts plate frames from the first used one."""

    start_frame: int
    clip_frames: np.ndarray

    @property
    def scene_frames(self) -> np.ndarray:
        return self.start_frame + self.clip_frames

    @property
    def length(self) -> int:
        """Scene frames from the first to the end of the last frame, which stays as long as the average one."""
        last, count = int(self.clip_frames[-1]), len(self.clip_frames)
        return last + max(1, round(last / max(1, count - 1)))

    @property
    def end_frame(self) -> int:
        return self.start_frame + self.length - 1


def timing_of(imported: Imported, capture: Capture) -> Timing:
    """When the pictures of an import are seen: from the start frame that it was imported with."""
    return Timing(read_options(imported.root).start_frame, capture.clip.clip_frames)


@dataclass(frozen=True)
class Sequence:
    """An image sequence with one file for each frame of the capture; `scale` turns a level of [0, 1] to its unit."""

    image: bpy.types.Image
    scale: float
    offset: float
    inverse: bool


@dataclass(frozen=True)
class Pictures:
    """What was loaded; `plate` is None when the footage is not on this computer."""

    plate: bpy.types.MovieClip | None
    sequences: dict[str, Sequence]
    notes: tuple[str, ...]


def load_pictures(
    name: str, capture: Capture, info: dict[str, Any], timing: Timing, plate_path: str
) -> Steps[Pictures]:
    """Load the plate and every sequence that the capture has; say in `notes` what is missing."""
    notes: list[str] = []
    sequences: dict[str, Sequence] = {}
    for label in SEQUENCES:
        yield Step("Pictures", 0.9)
        sequence = _load_sequence(name, label, capture, info, notes)
        if sequence is not None:
            sequences[label] = sequence
    yield Step("Pictures", 0.93)
    plate = _load_plate(name, capture, timing, plate_path, notes)
    if plate is None and "Frames" in sequences:
        notes.append(STANDS_IN)
    return Pictures(plate, sequences, tuple(notes))


def load_plate(name: str, capture: Capture, info: dict[str, Any], timing: Timing, plate_path: str) -> Pictures:
    """Load the plate alone, or where it is not to be had the capture's own frames."""
    notes: list[str] = []
    plate = _load_plate(name, capture, timing, plate_path, notes)
    frames = _load_sequence(name, "Frames", capture, info, notes) if plate is None else None
    if frames is not None:
        notes.append(STANDS_IN)
    return Pictures(plate, {"Frames": frames} if frames is not None else {}, tuple(notes))


def load_still(name: str, capture: Capture, plate_path: str) -> bpy.types.Image | None:
    """The one image of a plate; None when it is not on this computer, or would be seen with its distortion."""
    path = _find_plate(capture, plate_path)
    if path is not None and path.is_dir():
        path = next((path / image for image in capture.clip.image_names[:1]), None)
    if path is None or not path.is_file() or capture.clip.k1 or capture.clip.k2:
        return None
    image = bpy.data.images.load(str(path))
    image.name, image["kinora_folder"] = f"{name} Plate", str(capture.folder)
    if tuple(image.size) == capture.clip.plate_size:
        return image
    bpy.data.images.remove(image)
    return None


def _load_sequence(name: str, label: str, capture: Capture, info: dict[str, Any], notes: list[str]) -> Sequence | None:
    """A sequence of the capture's own images, or None and a note that says what is missing."""
    pattern, entry = SEQUENCES[label]
    there = set(os.listdir(capture.folder))
    missing = [i for i in range(capture.frame_count) if pattern.format(i) not in there]
    if missing:
        notes.append(f"The capture has no {pattern.format(missing[0])}: {label.lower()} not loaded")
        return None
    image = bpy.data.images.load(as_wanted(capture.folder / pattern.format(0)))
    image.name = f"{name} {label}"
    image.source = "SEQUENCE"
    image["kinora_folder"] = str(capture.folder)
    if label != "Frames":
        image.colorspace_settings.name = "Non-Color"
    described = info.get("images", {}).get(entry, {})
    levels = 2 ** described.get("bits", 8) - 1
    return Sequence(
        image,
        float(described.get("scale", 1 / levels)) * levels,
        float(described.get("offset", 0.0)),
        bool(described.get("inverse", False)),
    )


def time_sequence(
    user: Any, timing: Timing, owner: bpy.types.ID, data_path: str, action: bpy.types.Action | None
) -> None:
    """Make an image user (or compositor node) show file i of a sequence from the scene frame of frame i on.

    Where frames of the plate were skipped the offset is keyed in `action`, under `data_path` of `owner`.
    """
    user.frame_start = timing.start_frame
    user.use_auto_refresh = True
    user.use_cyclic = False
    user.frame_duration = timing.length
    user.frame_offset = -1  # Blender counts from 1, the files from 0
    elapsed = np.arange(timing.length)
    numbers = np.searchsorted(timing.clip_frames, elapsed, side="right") - 1
    if not np.array_equal(numbers, elapsed):
        offsets = numbers - (elapsed + 1)
        key(owner, action, f"{data_path}.frame_offset", timing.start_frame + elapsed, offsets, hold=True)


def show_behind_camera(camera: bpy.types.Object, pictures: Pictures, timing: Timing) -> None:
    """Put the plate behind the camera; masks, depth and confidence lie ready in the same list, switched off."""
    data = camera.data
    data.show_background_images = True
    action = camera.animation_data.action
    if pictures.plate is not None:
        background = data.background_images.new()
        background.source = "MOVIE_CLIP"
        background.clip = pictures.plate
        background.clip_user.use_render_undistorted = True
        background.clip_user.proxy_render_size = "FULL"
        _behind(background)
    for label, sequence in pictures.sequences.items():
        if label == "Frames" and pictures.plate is not None:
            continue
        background = data.background_images.new()
        background.source = "IMAGE"
        background.image = sequence.image
        path = f"background_images[{len(data.background_images) - 1}].image_user"
        time_sequence(background.image_user, timing, data, path, action)
        _behind(background)
        background.show_background_image = label == "Frames"


def show_still_behind_camera(camera: bpy.types.Object, image: bpy.types.Image) -> None:
    """Put one image behind the camera, at every frame."""
    camera.data.show_background_images = True
    background = camera.data.background_images.new()
    background.source = "IMAGE"
    background.image = image
    _behind(background)


def _behind(background: bpy.types.CameraBackgroundImage) -> None:
    background.frame_method = "STRETCH"
    background.display_depth = "BACK"
    background.alpha = 1.0
    background.show_expanded = False


def _load_plate(
    name: str, capture: Capture, timing: Timing, plate_path: str, notes: list[str]
) -> bpy.types.MovieClip | None:
    """The footage as a movie clip that starts with the first used frame, or None and a note that says why."""
    clip = capture.clip
    path = _find_plate(capture, plate_path)
    if path is None:
        notes.append(f"The plate {plate_path or clip.source} was not found on this computer")
        return None
    if clip.kind == "images":
        path = _first_image(path, capture, notes)
        if path is None:
            return None
    try:
        plate = bpy.data.movieclips.load(as_wanted(path))
    except RuntimeError as error:
        notes.append(f"Blender cannot read the plate {path.name} ({str(error).strip()})")
        return None
    if tuple(plate.size) != clip.plate_size:
        notes.append(
            f"Blender reads the plate {path.name} as {plate.size[0]} x {plate.size[1]}, the capture is of "
            f"{clip.plate_size[0]} x {clip.plate_size[1]}"
        )
        bpy.data.movieclips.remove(plate)
        return None
    plate.name = f"{name} Plate"
    plate["kinora_folder"] = str(capture.folder)
    plate.frame_start = timing.start_frame
    plate.frame_offset = clip.frame_indices[0] if clip.kind == "video" else 0
    _set_lens(plate, capture)
    return plate


def _set_lens(plate: bpy.types.MovieClip, capture: Capture) -> None:
    """Give the clip the capture's lens and distortion, so that Blender undistorts it as the capture is undistorted."""
    fx, fy, cx, cy = np.quantile(capture.plate_intrinsics[capture.has_camera], 0.5, axis=0)
    if capture.clip.k1 or capture.clip.k2:
        removed = PlateLens.of(capture)
        (fx, fy), (cx, cy) = removed.focal_px, removed.centre
    lens = plate.tracking.camera
    lens.sensor_width = sensor_width(capture)
    lens.pixel_aspect = float(fx / fy)
    lens.focal_length_pixels = float(fx)
    lens.principal_point_pixels = (float(cx), float(capture.clip.plate_size[1] - cy))
    lens.distortion_model = "BROWN"
    lens.brown_k1, lens.brown_k2 = capture.clip.k1, capture.clip.k2


def _find_plate(capture: Capture, plate_path: str) -> Path | None:
    """The file or folder of the footage: where the user says, else where the capture says, or beside it."""
    source = Path(plate_path or capture.clip.source)
    for path in (source, capture.folder / source.name, capture.folder.parent / source.name):
        if (path.is_file() and capture.clip.kind == "video") or (path.exists() and capture.clip.kind == "images"):
            return path.absolute()
    return None


def _first_image(path: Path, capture: Capture, notes: list[str]) -> Path | None:
    """The first used file of an image sequence, or None when Blender could not count from it to the others."""
    folder = path if path.is_dir() else path.parent
    names = capture.clip.image_names
    if not names or any(not (folder / name).is_file() for name in names):
        notes.append(f"Not all images of the plate are in {folder}")
        return None
    parts = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if all(parts) and len({(p[1], p[3]) for p in parts}) == 1:
        numbers = np.array([int(p[2]) for p in parts])
        if np.array_equal(numbers - numbers[0], np.subtract(capture.clip.frame_indices, capture.clip.frame_indices[0])):
            return folder / names[0]
    notes.append(f"The images in {folder} are not numbered one by one, as Blender needs them for a plate")
    return None


def use_relative_paths(blend_file: Path | str) -> None:
    """Make the paths of every imported picture relative to the .blend that is about to be saved there."""
    start = str(Path(blend_file).absolute().parent)
    for datablock in (*bpy.data.images, *bpy.data.movieclips):
        if "kinora_folder" in datablock:
            datablock.filepath = bpy.path.relpath(bpy.path.abspath(datablock.filepath), start=start)
