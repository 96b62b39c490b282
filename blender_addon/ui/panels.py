"""The Kinora tab of the 3D view's sidebar: what to reconstruct, how, how far it is, and what came of it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import bpy

from .. import backends
from ..scene.options import ImportOptions
from ..scene.report import ImportReport
from ..wire.errors import UserError
from ..wire.settings import ENGINES, ClipSettings, LensSettings, Settings
from . import session
from .clip_look import draw_clip, draw_estimate, draw_range
from .preferences import backend_choice
from .presets import KINORA_PT_presets
from .properties import engine_property
from .queue import KINORA_PT_queue, fill_import
from .reconstruction import Reconstruction
from .setup import work
from .summary import Summary
from .text import draw_wrapped, duration, sentence

#: Mean reprojection error, in plate pixels, above which a solve is shown in red.
ALERT_PX = 1.0
#: Disagreement of two camera solvers, as a part of the path length, above which it is shown in red.
ALERT_DISAGREEMENT = 0.02
#: Distance between a point's plate pixel and where Blender's camera shows it, above which the import is at fault.
ALERT_CAMERA_PX = 0.05

#: How long it is told that the backend was restarted.
RESTARTED_S = 60.0

BACKEND_STATES = {
    "OFF": "Backend not running",
    "STARTING": "Starting the backend",
    "CONNECTING": "Connecting",
    "READY": "Backend ready",
    "LOST": "Connection lost, retrying",
}


def backend_words(context) -> str:
    """Whether the backend is there, by the name it has when it is on another computer."""
    now = session.current()
    choice = backend_choice(context) if now.state == "OFF" else now.choice
    if not choice.remote or now.state not in {"OFF", "READY"}:
        return BACKEND_STATES[now.state]
    name = choice.connection_file.stem if choice.connection_file else "a backend"
    return f"{name} ready" if now.state == "READY" else f"Not connected to {name}"


def split_layout(layout) -> None:
    layout.use_property_split = True
    layout.use_property_decorate = False


def fact(layout, label: str, value: str, *, alert: bool = False) -> None:
    """A line that looks like a property: the name to the right of the left column, the value beside it."""
    row = layout.split(factor=0.5)
    left = row.row()
    left.alignment = "RIGHT"
    left.label(text=label)
    right = row.row()
    right.alert = alert
    right.label(text=value)


def draw_backend(layout, context) -> None:
    """One row: whether the backend runs, and the button that changes it; below it, what is wrong."""
    now = session.current()
    row = layout.row(align=True)
    row.label(text=backend_words(context), icon="CHECKMARK" if now.state == "READY" else "NONE")
    button = row.row(align=True)
    button.alignment = "RIGHT"
    if now.state == "OFF":
        button.operator("kinora.backend_start", text="Connect" if backend_choice(context).remote else "Start")
    else:
        button.operator("kinora.backend_stop", text="Disconnect" if now.choice.remote else "Stop")
    if backends.known():
        button.menu("KINORA_MT_backends", text="", icon="DOWNARROW_HLT")
    if now.state in {"OFF", "LOST"} and now.note:
        draw_problem(layout, context, now.note, now.hint)
    if now.state == "LOST":
        lost_s = time.monotonic() - now.lost_at
        tried = "Tried again every few seconds"
        draw_wrapped(layout, context, f"{tried}, for {duration(lost_s)} now" if lost_s >= 5 else tried, icon="BLANK1")
    elif now.state == "READY" and now.restarted_at and time.monotonic() - now.restarted_at < RESTARTED_S:
        draw_wrapped(layout, context, "The backend was restarted; its jobs go on", icon="INFO")


def draw_problem(layout, context, message: str, hint: str) -> None:
    """What happened, and below it what to do about it, whole, in as many lines as it takes."""
    column = layout.column()
    if message:
        alert = column.column()
        alert.alert = True
        draw_wrapped(alert, context, sentence(message), icon="ERROR")
    if hint:
        draw_wrapped(column, context, sentence(hint), icon="BLANK1")


def draw_job(layout, context, job: Reconstruction) -> None:
    """Progress with Cancel, or the error."""
    if job.active:
        row = layout.row(align=True)
        row.scale_y = 1.4
        if job.state == "RUNNING":
            left = f"{job.fraction:.0%}" + (f", {duration(job.eta_s)} left" if job.eta_s is not None else "")
            row.progress(factor=job.fraction, type="BAR", text=left)
        else:
            row.progress(factor=job.fraction, type="BAR", text=job.status)
        row.operator("kinora.cancel", text="", icon="X").job = job.uid
        if job.state == "RUNNING":
            layout.label(text=job.status)
        for line in (job.transfer, f"On {job.where}" if job.where and job.state == "RUNNING" else ""):
            if line:
                layout.label(text=line, icon="BLANK1")
        if job.notice:
            draw_wrapped(layout, context, sentence(job.notice), icon="INFO")
    elif job.state == "AWAY":
        draw_wrapped(layout, context, "The job goes on at the backend; connect to see it again", icon="UNLINKED")
    elif job.message:
        box = layout.box()
        draw_problem(box, context, job.message, job.hint)
        if job.kept:
            box.label(text=sentence(job.kept), icon="FILE_TICK")
        box.operator("kinora.copy_report", icon="COPYDOWN")
    elif job.state == "CANCELLED":
        layout.label(text=f"Cancelled; {job.kept}" if job.kept else "Cancelled")


def imported(folder: Path) -> ImportReport | None:
    """What the newest import of a capture found; None while it has not been imported."""
    found = [c for c in bpy.data.collections if bpy.path.abspath(c.get("kinora_folder", "")) == str(folder)]
    return ImportReport.read(found[-1]) if found else None


def draw_summary(layout, context, summary: Summary, report: ImportReport | None) -> None:
    """How good the solve is, in the figures that artists judge one by, and what its import found."""
    column = layout.column(align=True)
    missing = summary.registered < summary.frames
    fact(column, "Frames Solved", f"{summary.registered} of {summary.frames}", alert=missing)
    error = summary.reprojection_error_px
    if error is not None:
        fact(column, "Solve Error", f"{error:.2f} px", alert=error > ALERT_PX)
    if summary.solver_disagreement is not None:
        worst = summary.solver_disagreement
        fact(column, "Solvers Differ", f"{worst:.1%} of path", alert=worst > ALERT_DISAGREEMENT)
    if summary.kind != "moving":
        fact(column, "Camera", {"rotation": "Rotates only", "locked": "Locked off"}.get(summary.kind, summary.kind))
    if summary.focal_mm is not None:
        source = {"user": "given", "metadata": "from file", "solved": "solved", "prior": "assumed"}
        fact(column, "Focal Length", f"{summary.focal_mm:.1f} mm {source.get(summary.focal_source, '')}".strip())
    if report is not None:
        points, off = report.points, report.max_camera_error_px
        fact(column, "Points", f"{points / 1e6:.1f} million" if points >= 1e6 else f"{points:,}")
        if off > ALERT_CAMERA_PX:
            fact(column, "Camera Off By", f"{off:.2f} px", alert=True)
    if report is None and not summary.commercial_use:  # the import notes it too
        draw_wrapped(layout, context, "Made with weights that may not be used commercially", icon="ERROR")
    for note in report.notes if report is not None else summary.warnings:
        draw_wrapped(layout, context, sentence(note), icon="INFO")


class SidebarPanel:
    """Where all panels stand."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"


class KINORA_PT_main(SidebarPanel, bpy.types.Panel):
    """Clip, engine, Reconstruct, progress."""

    bl_label = "Kinora"
    bl_idname = "KINORA_PT_main"

    def draw_header_preset(self, context) -> None:
        KINORA_PT_presets.draw_panel_header(self.layout)

    def draw(self, context) -> None:
        layout, settings = self.layout, context.scene.kinora
        draw_backend(layout, context)
        if session.current().state == "OFF" and not backend_choice(context).remote and not work().installed:
            layout.operator("kinora.open_preferences", text="Set Up Backend", icon="PREFERENCES")
        layout.separator(type="LINE")

        column = layout.column()
        split_layout(column)
        column.prop(settings, "clip_path")
        draw_clip(column, context, settings)
        column.prop(settings, "engine")
        engine = ENGINES[settings.engine]
        use = "commercial use OK" if engine.commercial_use else "no commercial use"
        draw_wrapped(column, context, f"{engine.licence}, {use}", icon="NONE" if engine.commercial_use else "ERROR")
        measured = getattr(getattr(settings, engine_property(settings.engine)), "metric_scale", "none") != "none"
        if measured and engine.commercial_use:
            draw_wrapped(column, context, "Metric Scale by weights for no commercial use", icon="ERROR")

        job = session.current().job(context.scene)
        under_way = job is not None and job.active
        if not under_way:
            draw_estimate(layout, context, context.scene)
        row = layout.row()
        row.scale_y = 1.0 if under_way else 1.5
        row.operator("kinora.reconstruct", text="Add to Queue" if under_way else "Reconstruct")
        if job is not None:
            draw_job(layout, context, job)


class KINORA_PT_capture(SidebarPanel, bpy.types.Panel):
    """The finished capture: how good it is, and Import."""

    bl_label = "Capture"
    bl_parent_id = "KINORA_PT_main"

    def draw(self, context) -> None:
        layout, settings = self.layout, context.scene.kinora
        now = session.current()
        job = now.job(context.scene)
        path = settings.capture_path
        made = job.folder if job and not job.localises else None
        folder = made or (Path(bpy.path.abspath(path)) if path else None)
        if folder is not None and not (job and job.active):
            layout.label(text=folder.name, icon="FILE_FOLDER")
            summary = now.summary(folder)
            if isinstance(summary, Summary):
                draw_summary(layout, context, summary, imported(folder))
            else:
                draw_problem(layout, context, summary, "")
        layout.prop(settings, "import_when_done")
        row = layout.row(align=True)
        if folder is not None:
            row.operator_context = "EXEC_DEFAULT"
            again = row.operator("kinora.import_capture", text="Import", icon="IMPORT")
            fill_import(again, context, folder)
            row.operator_context = "INVOKE_DEFAULT"
            row.operator("kinora.import_capture", text="", icon="FILEBROWSER")
        else:
            row.operator("kinora.import_capture", text="Import Capture", icon="IMPORT")


class KINORA_PT_output(SidebarPanel, bpy.types.Panel):
    """Where the capture is written, and known masks."""

    bl_label = "Files"
    bl_parent_id = "KINORA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context) -> None:
        layout, settings = self.layout, context.scene.kinora
        split_layout(layout)
        layout.prop(settings, "masks_path")
        layout.prop(settings, "output_path", text="Output")
        layout.prop(settings, "replace")
        try:
            folder = settings.output()
        except UserError as error:
            draw_problem(layout, context, error.message, error.hint)
            return
        if folder is not None:
            draw_wrapped(layout, context, f"Writes {folder}")


def settings_panels(
    settings: type[Settings], label: str, path: str, engine: str = "", parent: str = "KINORA_PT_main", below=None
) -> list[type]:
    """The sub-panel of a group of settings, and a closed one in it for the advanced ones.

    `below(layout, context, settings of the scene)` draws what stands below the settings.
    """
    shown = [f.name for f in dataclasses.fields(settings) if not f.metadata.get("advanced")]
    hidden = [f.name for f in dataclasses.fields(settings) if f.metadata.get("advanced")]
    idname = f"KINORA_PT_{path}"

    def poll(cls, context) -> bool:
        return not engine or context.scene.kinora.engine == engine

    def drawer(names: list[str]):
        def draw(self, context) -> None:
            split_layout(self.layout)
            group = getattr(context.scene.kinora, path)
            for name in names:
                self.layout.prop(group, name)
            if below is not None and names is shown:
                below(self.layout, context, context.scene.kinora)

        return draw

    def panel(name: str, parent: str, title: str, names: list[str]) -> type:
        about = {
            "__doc__": settings.__doc__,
            "__module__": __name__,
            "bl_idname": name,
            "bl_parent_id": parent,
            "bl_label": title,
            "bl_options": {"DEFAULT_CLOSED"},
            "poll": classmethod(poll),
            "draw": drawer(names),
        }
        return type(name, (SidebarPanel, bpy.types.Panel), about)

    panels = [panel(idname, parent, label, shown)]
    return panels + ([panel(f"{idname}_advanced", idname, "Advanced", hidden)] if hidden else [])


ENGINE_PANELS = [
    cls
    for name, info in ENGINES.items()
    for cls in settings_panels(info.settings, f"{info.label} Engine", engine_property(name), engine=name)
]
CLASSES = (
    KINORA_PT_main,
    KINORA_PT_queue,
    KINORA_PT_capture,
    *settings_panels(ImportOptions, "Import Options", "import_options", parent="KINORA_PT_capture"),
    *settings_panels(ClipSettings, "Frames", "clip", below=draw_range),
    *settings_panels(LensSettings, "Lens", "lens"),
    *ENGINE_PANELS,
    KINORA_PT_output,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
