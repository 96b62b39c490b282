"""Live View: the points and the camera of a job appear in its scene while it runs, one frame at a tick."""

# Annotations must stay objects here: Blender reads the properties from them.
import logging
import time
from collections import deque

import bpy

from ..scene import nodes
from ..scene.live import begin_live, find_live, live_views
from ..scene.steps import Steps
from .acting import ActionOperator
from .importing import hands_off, show_attributes, views_of
from .reconstruction import Reconstruction

log = logging.getLogger(__name__)

_AT_ONCE_S = 0.01  # for so long node groups are made at a tick


class Growing:
    """The live view of one job. Its frames come as events and wait here until the scene can take them."""

    def __init__(self, ticket: str) -> None:
        self.waiting: deque = deque()
        self._ticket = ticket
        self._watching = False
        self._begun = False  # it stood in the scene, so that its absence means that the artist deleted it
        self._stopped = False
        self._groups: Steps[None] | None = None  # node groups being made, which the first frame needs
        self._upheavals = _upheavals
        self._appended = 0.0

    def watch(self, client, wanted: bool) -> None:
        """Ask for frames or stop asking; after undo or loading, for all of them again."""
        wanted = wanted and not self._stopped
        anew = self._upheavals != _upheavals
        if anew:
            self._upheavals, self._begun, self._groups = _upheavals, False, None
            self.waiting.clear()
        if wanted != self._watching or (anew and wanted):
            client.watch(self._ticket, wanted, anew=anew)
            self._watching = wanted
        if not wanted:
            self.waiting.clear()

    def grow(self, job: Reconstruction, scene: bpy.types.Scene) -> None:
        """Put one frame into the scene, when it is time for one."""
        settings, now = scene.kinora, time.monotonic()
        if not self.waiting or now - self._appended < 1 / settings.live_rate or not hands_off(scene):
            return
        view = find_live(self._ticket)
        if view is None:
            if self._begun:  # the artist deleted it and does not want it
                self._stopped = True
                return
            if not self._groups_ready():
                return
            options = settings.import_options
            if options.set_scene:
                show_attributes(scene)
            view = begin_live(
                scene,
                job.clip.stem,
                self._ticket,
                options.start_frame,
                options.point_size,
                folder=str(job.out),
                solid_colors=any(
                    view.shading.type == "SOLID" and view.shading.color_type == "VERTEX" for view in views_of(scene)
                ),
            )
            self._begun = True
            return
        self._begun = True
        event = self.waiting.popleft()
        view.append(event.live, event.attempt)
        self._appended = now

    def _groups_ready(self) -> bool:
        """Go on making the player's node groups for a few milliseconds; True once they are all there."""
        end = time.perf_counter() + _AT_ONCE_S
        if self._groups is None:
            self._groups = nodes.player_steps()
        while next(self._groups, None) is not None:
            if time.perf_counter() >= end:
                return False
        return True

    def end(self) -> None:
        """The job ended without a capture: what has arrived stays."""
        view = find_live(self._ticket)
        if view is not None:
            view.end_partial()


class LiveViews:
    """The live views of all jobs."""

    def __init__(self) -> None:
        self._growing: dict[str, Growing] = {}

    @property
    def room(self) -> int:
        """How many frames may be taken from the client now."""
        return 0 if any(growing.waiting for growing in self._growing.values()) else 2

    def take(self, event) -> None:
        """A JobFrame has come."""
        if event.ticket in self._growing:
            self._growing[event.ticket].waiting.append(event)

    def tick(self, jobs: list[Reconstruction], client) -> None:
        """Follow the jobs that run, put one frame into a scene, and close the views of jobs that have ended."""
        for job in jobs:
            if not job.ticket or job.localises:  # what a plate shows lies in the capture already
                continue
            if job.state == "RUNNING":
                growing = self._growing.setdefault(job.ticket, Growing(job.ticket))
                scene = job.scene.find()
                if client is not None:
                    growing.watch(client, scene is not None and scene.kinora.live)
                if scene is not None:
                    growing.grow(job, scene)
            elif job.ticket in self._growing and job.state not in {"QUEUED", "CANCELLING"}:
                growing = self._growing.pop(job.ticket)
                if job.state in {"FAILED", "CANCELLED", "AWAY"}:
                    growing.end()

    def forget(self) -> None:
        """Follow nothing any more."""
        self._growing.clear()


class KINORA_OT_remove_live(ActionOperator, bpy.types.Operator):
    """Remove what has been shown of jobs while they ran from this scene; finished imports stay"""

    bl_idname = "kinora.remove_live"
    bl_label = "Remove Live Views"

    @classmethod
    def allowed(cls, context) -> str:
        return "" if live_views(context.scene) else "This scene has no live view"

    def act(self, context) -> str:
        views = live_views(context.scene)
        for view in views:
            view.remove()
        return f"Removed {len(views)} live view{'s' * (len(views) > 1)}"


class KINORA_PT_live(bpy.types.Panel):
    """Whether points appear while a job runs, and what has appeared."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"
    bl_label = "Live View"
    bl_parent_id = "KINORA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header(self, context) -> None:
        self.layout.prop(context.scene.kinora, "live", text="")

    def draw(self, context) -> None:
        layout, settings = self.layout, context.scene.kinora
        layout.use_property_split = True
        layout.use_property_decorate = False
        column = layout.column()
        column.active = settings.live
        column.prop(settings, "live_rate")
        for view in live_views(context.scene):
            text = f"{view.collection.name}, {len(view.shown)} frames"
            layout.label(text=text, icon="ERROR" if view.partial else "PLAY")
        layout.operator("kinora.remove_live", icon="TRASH")


_upheavals = 0


@bpy.app.handlers.persistent
def _upheaval(*_) -> None:
    """Undo and loading may have taken frames away: they are fetched again."""
    global _upheavals
    _upheavals += 1


CLASSES = (KINORA_OT_remove_live, KINORA_PT_live)
_HANDLERS = ("undo_post", "redo_post", "load_post")


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    for name in _HANDLERS:
        getattr(bpy.app.handlers, name).append(_upheaval)


def unregister() -> None:
    for name in _HANDLERS:
        getattr(bpy.app.handlers, name).remove(_upheaval)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
