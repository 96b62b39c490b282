"""The queue: every job of this Blender and every other one that the backend has of this computer's key."""

# Annotations must stay objects here: Blender reads the properties from them.
import time
from datetime import datetime
from pathlib import Path

import bpy

from ..scene.options import ImportOptions
from ..wire.settings import ENGINES, TASKS
from . import session
from .properties import properties_of
from .queue_rows import Row, row_of, rows, selected_key
from .text import draw_wrapped, duration, sentence, size

STATE_ICONS = {
    "WAITING": "TIME",
    "QUEUED": "TIME",
    "RUNNING": "PLAY",
    "CANCELLING": "X",
    "IMPORTING": "IMPORT",
    "AWAY": "UNLINKED",
    "DONE": "CHECKMARK",
    "FAILED": "ERROR",
    "CANCELLED": "PANEL_CLOSE",
}
ROWS = 5


class KINORA_UL_queue(bpy.types.UIList):
    """One job in a line: its state and clip, how far it is, and what is done about it most."""

    def draw_item(self, context, layout, data, item, icon, active_data, active_property, index=0, flt_flag=0):
        row = row_of(session.current(), item.key)
        if row is not None:
            draw_row(layout, context, row)


class KINORA_PT_queue(bpy.types.Panel):
    """All jobs, in the order of the backend."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"
    bl_label = "Queue"
    bl_parent_id = "KINORA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header_preset(self, context):
        active = sum(row.active for row in rows(session.current(), False))
        if active:
            self.layout.label(text=str(active))

    def draw(self, context):
        layout, manager, now = self.layout, context.window_manager, session.current()
        now.server.look()
        row = layout.row()
        row.template_list("KINORA_UL_queue", "", manager.kinora_queue, "rows", manager.kinora_queue, "index", rows=ROWS)
        chosen = row_of(now, selected_key(manager))
        draw_side(row.column(align=True), chosen)
        if chosen is not None:
            draw_details(layout, context, chosen)
        if now.server.problem:
            draw_wrapped(layout, context, sentence(now.server.problem), icon="ERROR")
        draw_usage(layout)
        layout.operator("kinora.reconstruct_folder", icon="FILE_FOLDER")


def draw_side(column, chosen: Row | None) -> None:
    """The buttons beside the list, about the chosen job."""
    key = chosen.key if chosen else ""
    for direction in ("UP", "DOWN"):
        move = column.operator("kinora.move_job", text="", icon=f"TRIA_{direction}")
        move.job, move.direction = key, direction
    column.separator()
    pinned = bool(chosen and chosen.server and chosen.server.pinned)
    pin = column.operator("kinora.pin_job", text="", icon="PINNED" if pinned else "UNPINNED", depress=pinned)
    pin.job, pin.pinned = key, not pinned
    column.separator()
    column.menu("KINORA_MT_queue", text="", icon="DOWNARROW_HLT")


class KINORA_MT_queue(bpy.types.Menu):
    """What else can be done with the queue."""

    bl_idname = "KINORA_MT_queue"
    bl_label = "Queue"

    def draw(self, context):
        layout = self.layout
        layout.operator("kinora.refresh_jobs", icon="FILE_REFRESH")
        layout.prop(context.window_manager.kinora_queue, "ended_too")
        layout.separator()
        layout.operator_menu_enum("kinora.job_priority", "level", text="Priority")
        layout.separator()
        layout.operator("kinora.cancel_all", icon="X")
        layout.operator("kinora.clear_queue", icon="REMOVE")
        layout.operator("kinora.delete_job", icon="TRASH")


def draw_row(layout, context, row: Row) -> None:
    """One job in a line, with the button that it most likely needs."""
    line = layout.row(align=True)
    local = row.local
    scene = local.scene.find() if local else None
    elsewhere = f" ({local.scene.name})" if local and scene != context.scene else ""
    words = line.row(align=True)
    words.alert = row.state == "FAILED"
    words.label(text=row.name + elsewhere, icon=STATE_ICONS.get(row.state, "QUESTION"))
    state = words.row(align=True)
    state.alignment = "RIGHT"
    state.label(text=briefly(row))
    if (local and local.stoppable) or (row.server and not row.server.ended_already and row.state != "CANCELLING"):
        if not (local and local.active):
            line.operator("kinora.fetch_job", text="", icon="LINKED").job = row.key
        line.operator("kinora.cancel", text="", icon="X").job = row.key
        return
    if local and local.state == "DONE" and local.folder is not None and scene is not None:
        if local.localises:
            plate = line.operator("kinora.import_plate", text="", icon="IMPORT")
            plate.directory, plate.plate_path = str(local.folder), str(local.clip)
        else:
            again = line.operator("kinora.import_capture", text="", icon="IMPORT")
            fill_import(again, context, local.folder, local.clip)
    elif row.fetchable:
        line.operator("kinora.fetch_job", text="", icon="IMPORT").job = row.key
    if local and local.state == "FAILED":
        line.operator("kinora.job_error", text="", icon="INFO").job = row.key
    if local and not local.active:
        line.operator("kinora.remove_job", text="", icon="REMOVE").job = row.key


def draw_details(layout, context, row: Row) -> None:
    """What else is known of the chosen job."""
    column = layout.column(align=True)
    column.label(text=progress(row), icon=STATE_ICONS.get(row.state, "QUESTION"))
    for line in details(row):
        draw_wrapped(column, context, line)
    if row.local and row.local.notice:
        draw_wrapped(column, context, sentence(row.local.notice), icon="INFO")


def details(row: Row) -> list[str]:
    """The engine, when it was asked for, where it runs, its size and priority, in a line or two."""
    local, server = row.local, row.server
    engine = server.engine if server else local.settings.engine if local.settings else ""
    known = {**ENGINES, **TASKS}
    first = [known[engine].label if engine in known else engine, when(server.created if server else local.asked)]
    second = []
    if local and local.where and local.active:
        second.append(f"on {local.where}")
    if server is not None:
        second += [size(server.bytes)] if server.bytes else []
        second += [f"priority {server.priority:+d}"] if server.priority else []
        second += [f"attempt {server.attempt}"] if server.attempt > 1 else []
        second += ["pinned"] if server.pinned else []
    return [sentence(", ".join(part for part in parts if part)) for parts in (first, second) if any(parts)]


def when(seconds: float) -> str:
    """'today 14:03', 'yesterday 09:10', '12 Nov 17:30'."""
    then, today = datetime.fromtimestamp(seconds), datetime.fromtimestamp(time.time()).date()
    days = (today - then.date()).days
    day = {0: "today", 1: "yesterday"}.get(days) or f"{then.day} {then:%b}" + (f" {then.year}" if days > 300 else "")
    return f"{day} {then:%H:%M}"


def draw_usage(layout) -> None:
    """What the jobs take of the backend's disk."""
    usage = session.current().server.usage
    if usage is None:
        return
    most = usage.quota if usage.quota is not None else usage.bytes + usage.free
    text = f"{size(usage.bytes)} of {size(most)} at the backend"
    layout.progress(factor=min(1.0, usage.bytes / most) if most else 1.0, type="BAR", text=text)


def briefly(row: Row) -> str:
    """What its icon does not say, as short as can be: a sidebar is narrow, and names are long."""
    job = row.local
    if job and row.state in ("RUNNING", "IMPORTING"):
        return f"{job.fraction if row.state == 'RUNNING' else job.stage_fraction:.0%}"
    return f"#{row.position}" if row.state == "QUEUED" and row.position else ""


def progress(row: Row) -> str:
    """How far a job is, in a few words."""
    job = row.local
    if row.state == "RUNNING" and job:
        return f"{job.fraction:.0%}" + (f", {duration(job.eta_s)} left" if job.eta_s is not None else "")
    if row.state == "QUEUED":
        return {0: "Next", 1: "Behind one job"}.get(row.position, f"Behind {row.position} jobs")
    return job.status if job and job.active else sentence(row.state.lower())


def fill_import(operator, context, folder: Path, clip: Path | None = None) -> None:
    """Have an import button import that folder with the options of the scene."""
    options = context.scene.kinora.import_options
    for name in properties_of(ImportOptions):
        setattr(operator, name, getattr(options, name))
    operator.directory = str(folder)
    if clip is not None and not options.plate_path:
        operator.plate_path = str(clip)


CLASSES = (KINORA_UL_queue, KINORA_MT_queue)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
