"""Live View: the points and the camera of a job appear in its scene while it runs, one frame at a tick."""

# Annotations must stay objects here: Blender reads the properties from them.
import logging
import time
from collections import deque
from dataclasses import replace

import bpy

from ..scene import nodes
from ..scene.live import LiveView, begin_live, find_live, live_views
from ..scene.steps import Steps
from ..wire.errors import UserError
from ..wire.live import NO_POINTERS
from . import session
from .acting import ActionOperator
from .importing import hands_off, show_attributes, views_of
from .reconstruction import Reconstruction
from .rescuing import Rescues
from .text import draw_wrapped, sentence

log = logging.getLogger(__name__)

MOST_WAITING = 8  # frames that are taken from the client at once
_MEMORY_EVERY_S = 1.0  # how often the memory of a streaming engine is drawn anew


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
        self._due, self._looked = 0.0, time.monotonic()  # frames that the rate allows now, and when that was found
        self._remembered = 0.0

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

    def grow(self, job: Reconstruction, scene: bpy.types.Scene, seconds: float) -> None:
        """Put in the frames that it is time for, within about so long; where the window is slow, several are due."""
        now = time.monotonic()
        fresh = (now - self._looked) * scene.kinora.live_rate
        self._looked, self._due = now, min(max(1.0, fresh), self._due + fresh)
        if self.waiting and self._due >= 1 and hands_off(scene):
            self._due -= self._put_in(job, scene, seconds, int(self._due))

    def catch_up(self, job: Reconstruction, scene: bpy.types.Scene | None, seconds: float) -> bool:
        """Put in what still waits, within about so long and whatever the rate is; True once nothing does."""
        if scene is None or self._stopped:
            self.waiting.clear()
        if self.waiting and hands_off(scene):
            self._put_in(job, scene, seconds, len(self.waiting))
        return not self.waiting

    def _put_in(self, job: Reconstruction, scene: bpy.types.Scene, seconds: float, most: int) -> int:
        """Put at most so many frames into the view; how many it took, none while there is no view yet."""
        end, count = time.perf_counter() + seconds, 0
        view = self._view(job, scene, end)
        if view is None:
            return 0
        while self.waiting and count < most and (not count or time.perf_counter() < end):
            self._append(view)
            count += 1
        view.settle()
        return count

    def _append(self, view: LiveView) -> None:
        event, now = self.waiting.popleft(), time.monotonic()
        live = event.live
        if len(live.pointers) and now - self._remembered < _MEMORY_EVERY_S:
            live = replace(live, pointers=NO_POINTERS)
        elif len(live.pointers):
            self._remembered = now
        view.append(live, event.attempt, settle=False)

    def _view(self, job: Reconstruction, scene: bpy.types.Scene, end: float) -> LiveView | None:
        """The view that takes frames now; None when it is not ready yet, or not wanted any more."""
        view = find_live(self._ticket)
        if view is not None:
            self._begun = True
        elif self._begun:  # the artist deleted it and does not want it
            self._stopped = True
        elif self._groups_ready(end):
            self._begin(job, scene)
        return view

    def _begin(self, job: Reconstruction, scene: bpy.types.Scene) -> None:
        options, settings = scene.kinora.import_options, job.settings
        if options.set_scene:
            show_attributes(scene)
        begin_live(
            scene,
            job.clip.stem,
            self._ticket,
            options.start_frame,
            options.point_size,
            folder=str(job.out),
            solid_colors=any(
                view.shading.type == "SOLID" and view.shading.color_type == "VERTEX" for view in views_of(scene)
            ),
            facts={
                "source": str(job.clip),
                "engine": settings.engine if settings else "",
                "settings": settings.to_json() if settings else {},
            },
        )
        self._begun = True

    def _groups_ready(self, end: float) -> bool:
        """Go on making the player's node groups until then; True once they are all there."""
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
        self.rescues = Rescues()
        self._growing: dict[str, Growing] = {}
        self._over: set[str] = set()  # jobs that have ended, and whose last frames are still to be put in

    @property
    def room(self) -> int | None:
        """How many frames may be taken from the client now; None for all."""
        if self._over:
            return None
        return 0 if any(growing.waiting for growing in self._growing.values()) else MOST_WAITING

    @property
    def busy(self) -> bool:
        """There is something to do at once."""
        return bool(self._over) or self.rescues.busy

    def take(self, event) -> None:
        """A JobFrame has come."""
        if event.ticket in self._growing:
            self._growing[event.ticket].waiting.append(event)

    def tick(self, jobs: list[Reconstruction], client, seconds: float) -> None:
        """Follow the jobs that run, put frames in for about so long, and close the views of jobs that have ended."""
        for ticket in self._growing.keys() - {job.ticket for job in jobs}:  # taken out of the list
            del self._growing[ticket]
        self._over &= self._growing.keys()
        for job in jobs:
            if not job.ticket or job.localises:  # what a plate shows lies in the capture already
                continue
            growing, scene = self._growing.get(job.ticket), job.scene.find()
            if job.state == "RUNNING":
                growing = self._growing.setdefault(job.ticket, Growing(job.ticket))
                if client is not None:
                    growing.watch(client, scene is not None and scene.kinora.live)
                if scene is not None:
                    growing.grow(job, scene, seconds)
            elif growing is not None and job.state in {"CANCELLING", "CANCELLED", "FAILED"}:
                known = job.ticket in self._over  # all that came has been taken since
                self._over.add(job.ticket)
                if growing.catch_up(job, scene, seconds) and known and job.state != "CANCELLING":
                    self._close(growing, job)
                    if scene is not None:
                        self.rescues.begin_for(job, scene)
            elif growing is not None and job.state != "QUEUED":
                self._close(growing, job)

    def _close(self, growing: Growing, job: Reconstruction) -> None:
        del self._growing[job.ticket]
        self._over.discard(job.ticket)
        if job.state in {"FAILED", "CANCELLED", "AWAY"}:
            growing.end()

    def forget(self) -> None:
        """Follow nothing any more."""
        self._growing.clear()
        self._over.clear()


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


class KINORA_OT_keep_live(ActionOperator, bpy.types.Operator):
    """Make captures of live views whose jobs ended without one: folders marked partial, imported in their place"""

    bl_idname = "kinora.keep_live"
    bl_label = "Keep as Capture"

    wait: bpy.props.BoolProperty(
        name="Wait", description="Return only when it is done, for scripts without a window", options={"SKIP_SAVE"}
    )

    @classmethod
    def allowed(cls, context) -> str:
        if any(view.partial for view in live_views(context.scene)):
            return ""
        return "This scene has no live view of a job that has ended"

    def act(self, context) -> str:
        now = session.current()
        rescues = now.live.rescues
        views = [view for view in live_views(context.scene) if view.partial]
        for view in views:
            rescues.begin(view, context.scene)
        session.wake()
        if self.wait:
            while rescues.busy:
                now.pump()
            if rescues.problem:
                raise UserError(rescues.problem)
        return f"Keeping {len(views)} live view{'s' * (len(views) > 1)}"


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
        column.prop(settings, "live_keep")
        views, rescues = live_views(context.scene), session.current().live.rescues
        for view in views:
            text = f"{view.collection.name}, {len(view.shown)} frames"
            layout.label(text=text, icon="ERROR" if view.partial else "PLAY")
        if rescues.busy:
            layout.progress(factor=rescues.fraction, type="BAR", text="Keeping What Arrived")
        if rescues.problem:
            draw_wrapped(layout, context, sentence(rescues.problem), icon="ERROR")
        row = layout.row(align=True)
        row.operator("kinora.keep_live", icon="FILE_TICK")
        row.operator("kinora.remove_live", text="", icon="TRASH")


_upheavals = 0


@bpy.app.handlers.persistent
def _upheaval(*_) -> None:
    """Undo and loading may have taken frames away: they are fetched again."""
    global _upheavals
    _upheavals += 1


CLASSES = (KINORA_OT_remove_live, KINORA_OT_keep_live, KINORA_PT_live)
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
