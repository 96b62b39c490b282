"""Bringing clips in: dropped on the viewport, from the File menu, whole folders; and which frames of one are used."""

# Annotations must stay objects here: Blender reads the properties from them.
import fnmatch
import re
from pathlib import Path

import bpy

from ..wire.errors import UserError
from . import session
from .acting import ActionOperator
from .facts import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from .preferences import backend_choice
from .properties import absolute

TAB_S, TAB_TRIES = 0.1, 30


# ---- what a drop, a file browser or a folder means -----------------------------------------------------------------


def clips_in(paths: list[Path]) -> list[Path]:
    """The clips that some files are: each video, and of images one of each numbered sequence."""
    videos = [p for p in paths if p.suffix.lower() in VIDEO_SUFFIXES]
    sequences: dict[tuple[Path, str], Path] = {}
    for path in sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES):
        sequences.setdefault((path.parent, re.sub(r"\d+(?=\D*$)", "#", path.name)), path)
    return [*videos, *sequences.values()]


def clips_of_folder(folder: Path, pattern: str) -> list[Path]:
    """Every video of a folder, and every folder in it that holds images, whose name fits the pattern; by name.

    Raises UserError when there is none.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}", "choose the folder that holds the clips")

    def is_clip(path: Path) -> bool:
        if path.name.startswith(".") or not fnmatch.fnmatch(path.name, pattern):
            return False
        if path.is_dir():
            return any(p.suffix.lower() in IMAGE_SUFFIXES for p in path.iterdir())
        return path.suffix.lower() in VIDEO_SUFFIXES

    found = sorted(path for path in folder.iterdir() if path.name != "kinora" and is_clip(path))
    if not found:
        raise UserError(f"No clip in {folder} fits {pattern}", "choose another folder, or * for all")
    return found


class ClipFiles:
    """The properties by which Blender hands files over; derive with an operator."""

    directory: bpy.props.StringProperty(subtype="DIR_PATH", options={"SKIP_SAVE", "HIDDEN"})
    filepath: bpy.props.StringProperty(
        name="Clip", description="Video, or an image of a numbered sequence", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    files: bpy.props.CollectionProperty(type=bpy.types.OperatorFileListElement, options={"SKIP_SAVE", "HIDDEN"})
    filter_movie: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN", "SKIP_SAVE"})

    def clips(self) -> list[Path]:
        """What was chosen. Raises UserError when it is nothing that can be a clip."""
        names = [f.name for f in self.files if f.name]
        if self.directory and names:
            paths = [absolute(self.directory) / name for name in names]
        elif self.filepath:
            paths = [absolute(self.filepath)]
        else:
            paths = []
        folders = [p for p in paths if p.is_dir()]
        found = folders or clips_in(paths)
        if not found:
            named = paths[0].name if paths else "No file"
            raise UserError(f"{named} is no clip", "choose a video or an image sequence")
        return found


class KINORA_OT_open_clip(ClipFiles, ActionOperator, bpy.types.Operator):
    """Make a video or an image sequence the clip to reconstruct; several of them are queued at once"""

    bl_idname = "kinora.open_clip"
    bl_label = "Video as 4D Capture"

    def invoke(self, context, event):
        if not (self.filepath or self.directory):
            context.window_manager.fileselect_add(self)
            return {"RUNNING_MODAL"}
        try:
            several = len(self.clips()) > 1
        except UserError:
            several = False  # `execute` reports it
        if several:  # they begin at once, so that is asked first
            message = "Queue these clips with the settings of this scene?"
            return context.window_manager.invoke_confirm(self, event, title="Reconstruct", message=message)
        return self.execute(context)

    def act(self, context):
        clips = self.clips()
        context.scene.kinora.clip_path = str(clips[0])
        show_sidebar(context)
        if len(clips) == 1:
            return f"{clips[0].name} is the clip of this scene"
        jobs = session.current().submit(context.scene, backend_choice(context), clips)
        return f"{len(jobs)} clips are queued"


class KINORA_OT_reconstruct_folder(ActionOperator, bpy.types.Operator):
    """Queue every clip of a folder with the settings of this scene, each into a capture folder of its own"""

    bl_idname = "kinora.reconstruct_folder"
    bl_label = "Reconstruct Folder"

    directory: bpy.props.StringProperty(name="Folder", description="Folder that holds the clips", subtype="DIR_PATH")
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    pattern: bpy.props.StringProperty(
        name="Names", description="Only clips whose name fits, such as *_plate.mov; * stands for anything", default="*"
    )
    import_when_done: bpy.props.BoolProperty(
        name="Import When Done", description="Bring each capture into this scene, in a collection of its own"
    )
    wait: bpy.props.BoolProperty(
        name="Wait",
        description="Block Blender until all are done: for scripts without a window",
        options={"SKIP_SAVE", "HIDDEN"},
    )

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def act(self, context):
        clips = clips_of_folder(absolute(self.directory), self.pattern or "*")
        jobs = session.current().submit(context.scene, backend_choice(context), clips, self.import_when_done)
        if self.wait:
            session.current().wait(jobs)
            return f"{len(clips)} captures are finished"
        return f"{len(clips)} clips are queued"


class KINORA_OT_use_scene_range(ActionOperator, bpy.types.Operator):
    """Use the frames of the clip that the scene shows, taking the clip to begin at the Start Frame of the import"""

    bl_idname = "kinora.use_scene_range"
    bl_label = "Use Scene Range"

    def act(self, context):
        scene = context.scene
        clip, facts = scene.kinora.clip, scene.kinora.facts
        use_preview = scene.use_preview_range
        first = (
            scene.frame_preview_start if use_preview else scene.frame_start
        ) - scene.kinora.import_options.start_frame
        last = (scene.frame_preview_end if use_preview else scene.frame_end) - scene.kinora.import_options.start_frame
        if last < max(first, 0):
            raise UserError("The scene's range ends before the clip begins", "change the range or Start Frame")
        if facts.of and first >= facts.frames:
            raise UserError(f"The scene's range begins after the clip's {facts.frames} frames", "change the range")
        clip.first_frame = max(first, 0)
        clip.last_frame = min(last, facts.frames - 1) if facts.of else last


class KINORA_FH_clip(bpy.types.FileHandler):
    """Videos and image sequences that are dropped on a 3D viewport."""

    bl_idname = "KINORA_FH_clip"
    bl_label = "4D Capture (Kinora)"
    bl_import_operator = "kinora.open_clip"
    bl_file_extensions = ";".join(sorted(VIDEO_SUFFIXES | IMAGE_SUFFIXES))

    @classmethod
    def poll_drop(cls, context):
        return context.area is not None and context.area.type == "VIEW_3D"


def show_sidebar(context) -> None:
    """Open the sidebar at our tab, in the 3D view that is meant or in all of the window."""
    screen = context.screen
    areas = [area for area in screen.areas if area.type == "VIEW_3D"] if screen else []
    areas = [context.area] if context.area in areas else areas
    for area in areas:
        area.spaces.active.show_region_ui = True
    if bpy.app.background:
        return
    meant = {area.as_pointer() for area in areas}  # an area may be gone by then
    tries = iter(range(TAB_TRIES))  # a sidebar has tabs, and one of them is active, only once it was drawn

    def turn() -> float | None:
        return None if _show_tab(meant) else next((TAB_S for _ in tries), None)

    bpy.app.timers.register(turn, first_interval=TAB_S)


def _show_tab(meant: set[int]) -> bool:
    """Turn the sidebars of these areas to our tab; whether all could be."""
    done = True
    for window in bpy.context.window_manager.windows:
        for area in (a for a in window.screen.areas if a.as_pointer() in meant and a.type == "VIEW_3D"):
            region = next(r for r in area.regions if r.type == "UI")
            try:
                region.active_panel_category = "Kinora"
                region.tag_redraw()
            except (AttributeError, TypeError):  # read-only, or without our tab: not drawn yet
                done = False
    return done


def _menu_import(self, context):
    self.layout.operator_context = "INVOKE_DEFAULT"
    self.layout.operator(KINORA_OT_open_clip.bl_idname, text="Video as 4D Capture (Kinora)")


CLASSES = (KINORA_OT_open_clip, KINORA_OT_reconstruct_folder, KINORA_OT_use_scene_range, KINORA_FH_clip)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_menu_import)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu_import)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
