"""The pictures of an import as strips of the video sequencer: on free channels, in step with the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError
from .belongings import LABEL, pictures
from .images import SEQUENCES, Timing, timing_of
from .imported import ROOT_POINTER, Imported

#: The highest channel that the sequencer has.
CHANNELS = 128


def strips_of(imported: Imported, scene: bpy.types.Scene) -> list[bpy.types.Strip]:
    """The strips that were made for an import and are still there, from the lowest channel."""
    if scene.sequence_editor is None:
        return []
    found = [s for s in scene.sequence_editor.strips if s.get(ROOT_POINTER) == imported.root and LABEL in s]
    return sorted(found, key=lambda strip: strip.channel)


def add_strips(imported: Imported, scene: bpy.types.Scene, labels: tuple[str, ...]) -> list[bpy.types.Strip]:
    """Add strips of the pictures with these labels, of those that the import has; all but the first are muted.

    Each goes to a channel of its own on which nothing stands. A scene that had no strips keeps rendering its 3D view:
    its render does not switch to the sequencer. Raises UserError, with nothing added, when a strip is there already,
    the import has none of the pictures, or their files are gone.
    """
    there = {strip[LABEL] for strip in strips_of(imported, scene)}
    have = pictures(imported.root)
    wanted = [label for label in labels if label in have]
    if "Plate" in labels and "Plate" not in have and "Frames" in have:
        wanted.insert(0, "Frames")
    if not wanted:
        raise UserError(f"{imported.name} was imported without its pictures", "make the files found and import again")
    if there & set(wanted):
        raise UserError(f"The sequencer has the {min(there & set(wanted)).lower()} already", "delete its strip first")
    capture = imported.capture()
    timing = timing_of(imported, capture)
    files = {label: _files(label, have[label], capture) for label in wanted}
    editor = scene.sequence_editor_create()
    if not len(editor.strips):
        scene.render.use_sequencer = False
    free = [c for c in range(1, CHANNELS + 1) if c not in {strip.channel for strip in editor.strips}]
    if len(free) < len(wanted):
        raise UserError("The sequencer has no free channel left", "move or delete strips")
    made = []
    for label, channel in zip(wanted, free):
        strip = _strip(editor.strips, f"{imported.name} {label}", files[label], channel, timing)
        strip[LABEL], strip[ROOT_POINTER] = label, imported.root
        strip.mute = bool(made)
        if label in SEQUENCES and label != "Frames":
            strip.colorspace_settings.name = "Non-Color"
        made.append(strip)
    return made


Files = tuple[Path, list[str] | int]  # a folder and one name for each frame of the capture; or a video and its first


def _files(label: str, picture: bpy.types.ID, capture: Capture) -> Files:
    """The files of a picture. Raises UserError when they are not where they were."""
    path = Path(bpy.path.abspath(picture.filepath))
    if label == "Plate" and picture.source == "MOVIE":
        files: Files = path, capture.clip.frame_indices[0]
        missing = None if path.is_file() else path
    else:
        pattern = SEQUENCES[label][0] if label in SEQUENCES else ""
        names = [pattern.format(i) for i in range(capture.frame_count)] if pattern else list(capture.clip.image_names)
        files = path.parent, names
        missing = next((path.parent / name for name in names if not (path.parent / name).is_file()), None)
    if missing is not None:
        raise UserError(f"{missing} is not there", "use Relink Capture, or find missing files")
    return files


def _strip(strips: Any, name: str, files: Files, channel: int, timing: Timing) -> bpy.types.Strip:
    place, what = files
    if isinstance(what, int):
        strip = strips.new_movie(name, str(place), channel, timing.start_frame - what, fit_method="STRETCH")
        trim = "left_handle_offset" if hasattr(strip, "left_handle_offset") else "frame_offset_start"
        setattr(strip, trim, what)
    else:
        shown = np.searchsorted(timing.clip_frames, np.arange(timing.length), side="right") - 1
        strip = strips.new_image(name, str(place / what[0]), channel, timing.start_frame, fit_method="STRETCH")
        for frame in shown[1:]:
            strip.elements.append(what[frame])
    length = "duration" if hasattr(strip, "duration") else "frame_final_duration"
    setattr(strip, length, timing.length)
    return strip
