"""The rows of the queue: jobs of this Blender and of its backend as one list, in the order in which they run."""

# Annotations must stay objects here: Blender reads the properties from them.
from dataclasses import dataclass
from typing import TYPE_CHECKING

import bpy

from ..server_job import ServerJob
from .reconstruction import Reconstruction

if TYPE_CHECKING:
    from .session import Session

RANKS = ("IMPORTING", "CANCELLING", "RUNNING", "QUEUED", "WAITING", "AWAY")


@dataclass(frozen=True)
class Row:
    """A job as the queue shows it: `local` when this Blender follows or has followed it, `server` when the backend
    has it. Never neither.
    """

    local: Reconstruction | None
    server: ServerJob | None

    @property
    def key(self) -> str:
        """What operators call it by: the id here, or else the backend's."""
        return self.local.uid if self.local else self.server.job

    @property
    def name(self) -> str:
        return self.local.clip.name if self.local else self.server.name

    @property
    def state(self) -> str:
        if self.local and not (self.local.state == "AWAY" and self.server):
            return self.local.state
        return self.server.state.upper()

    @property
    def active(self) -> bool:
        return self.state in RANKS

    @property
    def position(self) -> int:
        """How many jobs come before it."""
        return self.server.position if self.server else self.local.queue_position

    @property
    def fetchable(self) -> bool:
        """The backend has it, and nothing here follows it."""
        over = self.server is not None and self.server.state in ("failed", "cancelled")
        return self.server is not None and not over and not (self.local and self.local.active)

    @property
    def order(self) -> tuple:
        """Its place: what runs, what waits in its order, and what has ended, the newest first."""
        asked = self.local.asked if self.local else self.server.created
        if not self.active:
            return len(RANKS), -asked
        return RANKS.index(self.state), self.position, asked


def rows(now: "Session", ended_too: bool = True) -> list[Row]:
    """All jobs that a session knows of; those that ended in an earlier Blender only when asked for."""
    by_id = {row.job: row for row in now.server.listing.jobs}
    found = [Row(job, by_id.pop(job.server_job, None)) for job in now.jobs]
    found += [Row(None, row) for row in by_id.values() if ended_too or not row.ended_already]
    return sorted(found, key=lambda row: row.order)


def row_of(now: "Session", key: str) -> Row | None:
    """The job of that id, here or at the backend."""
    return next((row for row in rows(now) if key in (row.key, row.server.job if row.server else "")), None)


class KINORA_PG_queue_row(bpy.types.PropertyGroup):
    """A line of the list: `name` is the clip's, for the list's own search."""

    key: bpy.props.StringProperty()


class KINORA_PG_queue(bpy.types.PropertyGroup):
    """The list as this window manager shows it; nothing of it is worth keeping."""

    rows: bpy.props.CollectionProperty(type=KINORA_PG_queue_row)
    index: bpy.props.IntProperty(name="Job", description="The job that the buttons beside the list are about")
    ended_too: bpy.props.BoolProperty(
        name="Earlier Jobs",
        description="Show jobs of earlier sessions that have ended and whose results the backend still has",
        default=True,
    )


def sync(now: "Session") -> None:
    """Make the list what the session knows; what was chosen stays chosen. Never called while drawing."""
    manager = bpy.context.window_manager
    shown = manager.kinora_queue
    wanted = rows(now, shown.ended_too)
    if [line.key for line in shown.rows] == [row.key for row in wanted]:
        return
    before = selected_key(manager)
    shown.rows.clear()
    for row in wanted:
        line = shown.rows.add()
        line.key, line.name = row.key, row.name
    keys = [row.key for row in wanted]
    shown.index = keys.index(before) if before in keys else 0


def selected_key(manager: bpy.types.WindowManager) -> str:
    """Key of the chosen line; '' when there is none."""
    shown = manager.kinora_queue
    return shown.rows[shown.index].key if 0 <= shown.index < len(shown.rows) else ""


CLASSES = (KINORA_PG_queue_row, KINORA_PG_queue)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.WindowManager.kinora_queue = bpy.props.PointerProperty(type=KINORA_PG_queue, options={"SKIP_SAVE"})


def unregister() -> None:
    del bpy.types.WindowManager.kinora_queue
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
