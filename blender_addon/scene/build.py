"""From a capture folder to a collection: everything is built first and linked last, or nothing stays."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from ..wire.capture import Capture, read_capture, read_metadata
from ..wire.errors import UserError
from . import nodes
from .baseline import read_options
from .camera import (
    disagreement_px,
    make_camera,
    plate_framing,
    projections,
    reframed,
    scene_framing,
    settle,
)
from .compositor import elements_group, show_group
from .conventions import BlenderLens, blender_fps
from .earlier import find_earlier, make_updatable
from .fusion import merge_static
from .images import Pictures, Timing, load_pictures, show_behind_camera
from .imported import CAMERA, PLAYER, ROOT, STATIC, mark
from .markers import show_markers
from .materials import point_material
from .metric import remember_scale
from .options import ImportOptions
from .orient import as_shot, find_orientation
from .paths import make_relative, wants_relative
from .points import CloudFactory, carrier_cloud, cloud_of, frame_clouds, mean_eye
from .report import ImportReport, capture_notes
from .solve_quality import SolveQuality, solve_quality
from .steps import Progress, Step, Steps, all_or_nothing, finish, in_thread
from .update import update
from .world import remember_place

log = logging.getLogger(__name__)

#: A larger disagreement of Blender's camera with the capture is reported, in plate pixels.
AGREEMENT_PX = 0.05

CHECKED_AT_ONCE = 4  # frames of the camera that one step checks


@dataclass(frozen=True)
class Built:
    """Everything of one import, made and in no scene yet. `roles` says what each object is, the root first."""

    capture: Capture
    timing: Timing
    collection: bpy.types.Collection
    root: bpy.types.Object
    camera: bpy.types.Object
    lens: BlenderLens
    roles: dict[bpy.types.Object, str]
    pictures: Pictures
    elements: bpy.types.NodeTree
    report: ImportReport


def import_capture(
    folder: Path | str,
    scene: bpy.types.Scene,
    options: ImportOptions = ImportOptions(),  # noqa: B008, it is frozen
    run_progress: Progress = lambda stage, fraction: None,
    onto: int | None = None,
) -> bpy.types.Collection:
    """Build a capture in `scene` and return its collection; `ImportReport.read` tells what was found.

    With `existing="update"` an earlier import of the same clip in the scene takes the new contents (`update.py`);
    `onto` is the session_uid of its root, where another than the clip's only one is meant.
    `run_progress(stage, fraction)` is called as it goes on and may raise to cancel. On any exception everything
    that was made is removed again and nothing else has changed. Raises UserError when the folder is not a whole
    capture, has no camera, or could update several imports.
    """
    return finish(import_steps(folder, scene, options, onto), run_progress)


def import_steps(
    folder: Path | str | Capture, scene: bpy.types.Scene, options: ImportOptions, onto: int | None = None
) -> Steps[bpy.types.Collection]:
    """`import_capture` in steps of a few milliseconds; the last one links everything, nothing is seen before it.

    A capture that was read already may be given in place of its folder, with parts of it replaced.
    Datablocks are held between steps, which no undo and no other file survives: close the steps before those.
    """
    return all_or_nothing(_import(folder, scene, options, onto))


def _import(
    folder: Path | str | Capture, scene: bpy.types.Scene, options: ImportOptions, onto: int | None
) -> Steps[bpy.types.Collection]:
    capture = yield from in_thread(
        "Reading", (0.0, 0.0), lambda progress: folder if isinstance(folder, Capture) else read_capture(folder)
    )
    if not capture.has_camera.any():
        raise UserError(f"The capture {capture.folder.name} has no camera in any frame", "reconstruct it again")
    updates = options.existing == "update" or onto is not None
    if updates:
        from .update_files import renew_files, write_files  # which builds points with what is in this file

        find_earlier(scene, capture, onto)  # an error is told before the work
    built = yield from _build(capture, scene, options)
    yield Step("Linking", 0.98)
    make_updatable(built, scene_setup(capture, built.lens, built.timing), options)
    notes = built.report.notes
    if updates and (earlier := find_earlier(scene, capture, onto)):
        yield from write_files(earlier, capture)
    if wants_relative() and not updates:
        yield Step("Linking", 0.98)
        make_relative(built.root)
    yield Step("Linking", 0.99)
    earlier = find_earlier(scene, capture, onto) if updates else None  # the artist may have worked on the scene since
    if earlier:
        start_frames = read_options(earlier.root).start_frame, options.start_frame
        collection = update(earlier, built, scene, options)
        notes += renew_files(earlier, capture, start_frames, float(built.timing.length))
    else:
        collection = _link(built, scene, options)
    if updates and wants_relative():
        make_relative(earlier.root if earlier else built.root)
    for note in notes:
        log.warning("Kinora import %s: %s", collection.name, note)
    return collection


def _build(capture: Capture, scene: bpy.types.Scene, options: ImportOptions) -> Steps[Built]:
    """Make everything of an import; no scene is changed."""
    collection = bpy.data.collections.new(
        options.collection_name or Path(capture.clip.source).stem or capture.folder.name
    )
    name = collection.name
    timing = Timing(options.start_frame, capture.clip.clip_frames)
    root, root_notes = yield from _root(name, capture, options)
    camera, lens = make_camera(f"{name} Camera", capture, timing.scene_frames)
    root.empty_display_size = camera.data.display_size
    yield Step("Points", 0.0)
    clouds, points = yield from make_points(capture, name, timing, options)
    pictures, elements = yield from _pictures(capture, name, timing, options, camera)
    roles = {root: ROOT, camera: CAMERA, **clouds}
    _assemble(collection, root, roles)

    framing = plate_framing(capture, lens)
    seen = np.full((capture.frame_count, 4, 4), np.nan)
    for some in np.array_split(np.flatnonzero(capture.has_camera), 1 + capture.frame_count // CHECKED_AT_ONCE):
        yield Step("Checking the camera", 0.95)
        seen[some] = projections(camera, root, framing, timing.scene_frames[some])
    shown = framing if options.set_scene else scene_framing(scene)
    quality, error_px = yield from in_thread(
        "Checking the camera",
        (0.95, 0.98),
        lambda progress: (
            solve_quality(capture, timing.scene_frames, seen),
            disagreement_px(reframed(seen, framing, shown), capture),
        ),
    )
    quality.write(camera)
    report = _report(capture, timing, points, error_px, [*pictures.notes, *root_notes])
    report.write(collection, root)
    remember_scale(root, capture)
    return Built(capture, timing, collection, root, camera, lens, roles, pictures, elements, report)


def _root(name: str, capture: Capture, options: ImportOptions) -> Steps[tuple[bpy.types.Object, list[str]]]:
    """The object that everything hangs on, which turns the capture upright; and what to note of that."""
    root = bpy.data.objects.new(name, None)
    orientation = as_shot()
    if options.up_axis == "auto":
        orientation = yield from in_thread("Finding the floor", (0.0, 0.0), lambda progress: find_orientation(capture))
    root.matrix_basis = Matrix(orientation.blender_from_capture)
    remember_place(root, orientation.blender_from_capture)
    return root, [orientation.note] if orientation.note else []


def make_points(
    capture: Capture, name: str, timing: Timing, options: ImportOptions
) -> Steps[tuple[dict[bpy.types.Object, str], int]]:
    """The objects that show points, with their roles, and how many points were made.

    The frames' clouds live in a collection that belongs to no scene: only the player's nodes know it, so it cannot
    show up in a new view layer or in a file that the collection is appended to, and is still saved with it.
    """
    yield from nodes.player_steps()
    least = capture.confidence_default if options.min_confidence < 0 else options.min_confidence
    shared = {"Point Size": options.point_size, "Min Confidence": least, "Material": point_material(f"{name} Points")}
    frames = bpy.data.collections.new(f"{name} Frames")
    static, points, keep, begun = {}, 0, None, 0.0
    with CloudFactory() as factory:
        if options.storage == "split":
            begun = 0.5
            static_points = yield from in_thread(
                "Merging what stands still",
                (0.0, begun),
                lambda progress: cloud_of(capture, merge_static(capture, progress)),
            )
            cloud = yield from factory.steps(f"{name} Static", **static_points)
            ob = bpy.data.objects.new(cloud.name, cloud)
            nodes.add_modifier(ob, nodes.STATIC, {"Facing": mean_eye(capture)} | shared)
            static[ob] = STATIC
            points += len(cloud.points)
            keep = capture.dynamic
        for i, ob in enumerate(frame_clouds(capture, factory, frames.name, keep)):
            frames.objects.link(ob)
            points += len(ob.data.points)
            yield Step("Points", begun + (0.9 - begun) * (i + 1) / capture.frame_count)
        carrier = carrier_cloud(capture, factory, f"{name} Points", timing.clip_frames)
    yield Step("Points", 0.9)
    player = bpy.data.objects.new(carrier.name, carrier)
    times = {"Start Frame": float(timing.start_frame), "Length": float(timing.length)}
    times |= {"Frames": frames, "Clip Rate": float(capture.clip.fps)}
    nodes.add_modifier(player, nodes.PLAYER, times | shared)
    return {player: PLAYER, **static}, points


def _pictures(
    capture: Capture, name: str, timing: Timing, options: ImportOptions, camera: bpy.types.Object
) -> Steps[tuple[Pictures, bpy.types.NodeTree]]:
    """Plate, masks, depth and confidence: behind the camera, and as a group for the compositor."""
    yield Step("Pictures", 0.9)
    pictures = yield from load_pictures(name, capture, read_metadata(capture.folder), timing, options.plate_path)
    yield Step("Pictures", 0.94)
    if options.show_plate:
        show_behind_camera(camera, pictures, timing)
    yield Step("Pictures", 0.94)
    return pictures, (yield from elements_group(name, pictures, timing))


def _assemble(collection: bpy.types.Collection, root: bpy.types.Object, roles: dict[bpy.types.Object, str]) -> None:
    """Put the objects into their collection and under their root, and mark them as parts of the import."""
    mark(collection, "collection", root)
    for ob, role in roles.items():
        mark(ob, role, root)
        collection.objects.link(ob)
        if ob is not root:
            ob.parent = root


def _report(capture: Capture, timing: Timing, points: int, error_px: float, notes: list[str]) -> ImportReport:
    """What an artist must know of this import; `notes` are those that came up on the way."""
    without_camera = tuple(int(f) for f in timing.scene_frames[~capture.has_camera])
    notes = [*capture_notes(capture, without_camera, points), *notes]
    if error_px > AGREEMENT_PX:
        notes.append(f"Blender's camera is up to {error_px:.2f} px off the plate: see the render size and pixel aspect")
    return ImportReport(
        folder=str(capture.folder),
        engine=capture.engine.name,
        engine_version=capture.engine.version,
        licence=capture.engine.licence,
        commercial_use=capture.engine.commercial_use,
        metric=capture.metric,
        shot=capture.shot.kind,
        points=points,
        frames_without_camera=without_camera,
        max_camera_error_px=error_px,
        notes=tuple(notes),
    )


def _link(built: Built, scene: bpy.types.Scene, options: ImportOptions) -> bpy.types.Collection:
    """Show what was built in a scene, and return its collection."""
    scene.collection.children.link(built.collection)
    if options.set_scene:
        set_up_scene(scene, built.capture, built.lens, built.camera, built.timing)
        show_group(scene, built.elements)
        show_markers(scene, built.root, SolveQuality.read(built.camera))
    else:
        built.elements.use_fake_user = True
    settle(built.camera, scene.frame_current)
    return built.collection


def scene_setup(capture: Capture, lens: BlenderLens, timing: Timing) -> dict[str, Any]:
    """The rate, range and size that show a capture as it was shot, by the names of Blender's settings."""
    fps, fps_base = blender_fps(capture.clip.fps)
    width, height, aspect_x, aspect_y = plate_framing(capture, lens)
    return {
        "frame_start": timing.start_frame,
        "frame_end": timing.end_frame,
        "fps": fps,
        "fps_base": fps_base,
        "resolution_x": width,
        "resolution_y": height,
        "pixel_aspect_x": aspect_x,
        "pixel_aspect_y": aspect_y,
    }


def set_up_scene(
    scene: bpy.types.Scene, capture: Capture, lens: BlenderLens, camera: bpy.types.Object, timing: Timing
) -> None:
    """Give a scene the rate, range, size and camera of a capture; film, world and colour stay the artist's."""
    for name, value in scene_setup(capture, lens, timing).items():
        setattr(scene if hasattr(scene, name) else scene.render, name, value)
    scene.render.resolution_percentage = 100
    scene.camera = camera
    if not scene.frame_start <= scene.frame_current <= scene.frame_end:
        scene.frame_current = scene.frame_start
