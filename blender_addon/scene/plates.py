"""Plate cameras: what sees a plate that was localised in a capture, under that import's root and so in its world."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import Capture, read_capture, read_metadata
from ..wire.settings import Settings, option
from .baseline import read_options
from .belongings import FRAMES, mark_picture, remove_import
from .build import AGREEMENT_PX, make_points
from .camera import PLATE_FRAMING, disagreement_px, make_camera, plate_framing, projections, settle
from .earlier import inputs_of
from .images import Timing, load_plate, load_still, show_behind_camera, show_still_behind_camera
from .imported import PLATE, ROLE, Imported, mark
from .markers import has_markers, remove_markers, show_markers
from .nodes import get_input
from .options import ImportOptions
from .paths import make_relative, wants_relative
from .plate_facts import check_belongs, facts_of, in_another_capture
from .solve_quality import SolveQuality, solve_quality
from .steps import Step, Steps, all_or_nothing, finish, in_thread
from .world import size_of, world_matrix


@dataclass(frozen=True)
class PlateOptions(Settings):
    """How a localised plate becomes a camera."""

    start_frame: int = option(
        -1,
        "Start Frame",
        "Scene frame of the first frame of the plate; -1 begins with the capture",
        minimum=-1,
        maximum=1000000,
    )
    points: bool = option(False, "Points", "Bring the points that the plate itself shows as well")
    plate_path: str = option(
        "", "Plate", "The footage on this computer; empty looks for it where the capture says it is", advanced=True
    )


def import_plate(
    folder: Path | str,
    imported: Imported,
    scene: bpy.types.Scene,
    options: PlateOptions = PlateOptions(),
) -> bpy.types.Object:
    """Add the camera of a localised plate to an import, and return it.

    Raises UserError, with nothing changed, when the folder holds no plate that was localised in this import's clip.
    """
    return finish(plate_steps(folder, imported, scene, options))


def plate_steps(
    folder: Path | str, imported: Imported, scene: bpy.types.Scene, options: PlateOptions
) -> Steps[bpy.types.Object]:
    """`import_plate` in steps of a few milliseconds; the last one links everything."""
    return all_or_nothing(_plate(folder, imported.root, scene, options))


def _plate(
    folder: Path | str, root: bpy.types.Object, scene: bpy.types.Scene, options: PlateOptions
) -> Steps[bpy.types.Object]:
    capture = yield from in_thread("Reading", (0.0, 0.0), lambda progress: read_capture(folder))
    check_belongs(capture, root)
    start = read_options(root).start_frame if options.start_frame < 0 else options.start_frame
    timing = Timing(start, capture.clip.clip_frames)
    name = Path(capture.clip.source).stem or capture.folder.name
    camera, lens = make_camera(f"{name} Camera", capture, timing.scene_frames)
    camera["kinora_folder"] = str(capture.folder)
    camera.parent = root
    _set_clipping(camera, Imported(root), scene)
    yield Step("Pictures", 0.1)
    notes = [*capture.shot.warnings, *_show_plate(camera, name, capture, timing, options.plate_path)]
    if in_another_capture(capture, root):
        notes.append("The plate was localised in another capture of this clip; localise it again if it does not fit")
    parts: list[tuple[bpy.types.ID, str]] = []
    if options.points:
        parts = yield from _points(name, capture, timing, root)
    framing = plate_framing(capture, lens)
    seen = np.full((capture.frame_count, 4, 4), np.nan)
    for frame in np.flatnonzero(capture.has_camera):
        yield Step("Checking the camera", 0.95)
        seen[frame] = projections(camera, root, framing, timing.scene_frames[frame : frame + 1])[0]
    quality = solve_quality(capture, timing.scene_frames, seen)
    off_px = disagreement_px(seen, capture)
    if off_px > AGREEMENT_PX:
        notes.append(f"Blender's camera is up to {off_px:.2f} px off the plate: see that the root is not stretched")
    if timing.end_frame > scene.frame_end and timing.length > 1:
        notes.append(f"The plate ends at frame {timing.end_frame}, after the scene")
    quality.write(camera)
    facts_of(capture, timing.scene_frames, root, notes).write(camera)
    yield Step("Linking", 0.99)
    _link(camera, parts, Imported(root), scene, quality)
    return camera


def _set_clipping(camera: bpy.types.Object, imported: Imported, scene: bpy.types.Scene) -> None:
    """Blender states clipping distances in world units. What the capture's own camera shows, this one shows too."""
    size, data = size_of(world_matrix(imported.root, scene.view_layers[0])), camera.data
    data.clip_start *= size
    data.clip_end *= size
    other = imported.camera
    if other is not None and other.type == "CAMERA":
        data.clip_start = min(data.clip_start, other.data.clip_start)
        data.clip_end = max(data.clip_end, other.data.clip_end)
        data.display_size = other.data.display_size


def _show_plate(
    camera: bpy.types.Object, name: str, capture: Capture, timing: Timing, plate_path: str
) -> tuple[str, ...]:
    """Put the plate behind its camera; what to note of that."""
    single = capture.frame_count == 1 and capture.clip.kind == "images"
    still = load_still(name, capture, plate_path) if single else None
    if still is not None:
        show_still_behind_camera(camera, still)
        mark_picture(still, "Plate", camera)
        return ()
    pictures = load_plate(name, capture, read_metadata(capture.folder), timing, plate_path)
    show_behind_camera(camera, pictures, timing)
    if pictures.plate is not None:
        mark_picture(pictures.plate, "Plate", camera)
    for label, sequence in pictures.sequences.items():
        mark_picture(sequence.image, label, camera)
    return pictures.notes


def _points(
    name: str, capture: Capture, timing: Timing, root: bpy.types.Object
) -> Steps[list[tuple[bpy.types.ID, str]]]:
    """The plate's own points under the root, with their roles, as yet in no collection."""
    options = ImportOptions(start_frame=timing.start_frame)
    objects, _ = yield from make_points(capture, name, timing, options)
    parts: list[tuple[bpy.types.ID, str]] = []
    for ob, role in objects.items():
        ob.parent = root
        parts.append((ob, role))
        for modifier, socket in inputs_of(ob):
            value = get_input(modifier, socket)
            if isinstance(value, bpy.types.Collection):
                parts.append((value, FRAMES))
            if isinstance(value, bpy.types.Material):
                value[ROLE] = "material"
    return parts


def _link(
    camera: bpy.types.Object,
    parts: list[tuple[bpy.types.ID, str]],
    imported: Imported,
    scene: bpy.types.Scene,
    quality: SolveQuality,
) -> None:
    """Show what was built."""
    collection = imported.collection or scene.collection
    for part, role in parts:
        mark(part, role, camera)
    mark(camera, PLATE, imported.root)
    for ob in (camera, *(part for part, _ in parts if isinstance(part, bpy.types.Object))):
        collection.objects.link(ob)
    show_markers(scene, camera, quality, label=camera.name)
    if wants_relative():
        make_relative(camera)
    settle(camera, scene.frame_current)


def plate_cameras(imported: Imported) -> list[bpy.types.Object]:
    """The plate cameras of an import that are in some scene, in order of their names."""
    return sorted(imported.objects(PLATE), key=lambda ob: ob.name)


def remove_plate(camera: bpy.types.Object) -> None:
    """Take a plate camera out of the file with its pictures, points and markers."""
    for scene in bpy.data.scenes:
        if has_markers(scene, camera):
            remove_markers(scene, camera)
    remove_import(camera)


def look_through(camera: bpy.types.Object, scene: bpy.types.Scene) -> None:
    """Make a camera the scene's, and the render the shape of its plate."""
    scene.camera = camera
    if PLATE_FRAMING in camera:
        width, height, aspect_x, aspect_y = camera[PLATE_FRAMING]
        scene.render.resolution_x, scene.render.resolution_y = int(width), int(height)
        scene.render.pixel_aspect_x, scene.render.pixel_aspect_y = aspect_x, aspect_y
