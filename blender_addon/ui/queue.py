"""The queue: every job of this Blender with its state, and what can be done about it."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy

from ..scene.options import ImportOptions
from ..wire.errors import UserError
from . import session
from .acting import ActionOperator
from .properties import properties_of
from .reconstruction import Reconstruction
from .text import duration

STATE_ICONS = {
    "WAITING": "TIME",
    "QUEUED": "TIME",
    "RUNNING": "PLAY",
    "CANCELLING": "X",
    "IMPORTING": "IMPORT",
    "DONE": "CHECKMARK",
    "FAILED": "ERROR",
    "CANCELLED": "PANEL_CLOSE",
}


class JobOperator(ActionOperator):
    """An operator on one job of the queue, named by its id; without one, on the job of the scene."""

    bl_options = {"REGISTER"}

    job: bpy.props.StringProperty(
        name="Job", description="Id of the job; empty for the one of this scene", options={"HIDDEN", "SKIP_SAVE"}
    )

    def chosen(self, context) -> Reconstruction:
        """The job that is meant. Raises UserError when there is none."""
        now = session.current()
        found = now.job_of(self.job) if self.job else now.job(context.scene)
        if found is None:
            raise UserError("There is no such job", "see the queue")
        return found


class KINORA_OT_cancel(JobOperator, bpy.types.Operator):
    """Stop the reconstruction; no capture is written, and what Live View shows stays"""

    bl_idname = "kinora.cancel"
    bl_label = "Cancel"

    @classmethod
    def allowed(cls, context):
        stoppable = any(job.stoppable for job in session.current().jobs)
        return "" if stoppable else "Nothing is being reconstructed"

    def act(self, context):
        job = self.chosen(context)
        if not job.stoppable:
            raise UserError(f"{job.clip.name} is not being reconstructed")
        session.current().cancel(job)


class KINORA_OT_cancel_all(ActionOperator, bpy.types.Operator):
    """Stop every job of the queue; no capture is written, and what Live View shows stays"""

    bl_idname = "kinora.cancel_all"
    bl_label = "Cancel All"
    bl_options = {"REGISTER"}

    allowed = KINORA_OT_cancel.allowed

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def act(self, context):
        for job in reversed(session.current().jobs):  # the waiting ones first, so that none of them begins
            if job.stoppable:
                session.current().cancel(job)


class KINORA_OT_remove_job(JobOperator, bpy.types.Operator):
    """Take a job that has ended out of the list; its capture stays on the disk"""

    bl_idname = "kinora.remove_job"
    bl_label = "Remove from Queue"

    def act(self, context):
        job = self.chosen(context)
        if job.active:
            raise UserError(f"{job.clip.name} has not ended", "cancel it first")
        session.current().jobs.remove(job)


class KINORA_OT_clear_queue(ActionOperator, bpy.types.Operator):
    """Take all jobs that have ended out of the list; their captures stay on the disk"""

    bl_idname = "kinora.clear_queue"
    bl_label = "Clear Finished"
    bl_options = {"REGISTER"}

    @classmethod
    def allowed(cls, context):
        return "" if any(not job.active for job in session.current().jobs) else "No job has ended"

    def act(self, context):
        now = session.current()
        now.jobs = [job for job in now.jobs if job.active]


class KINORA_OT_job_error(JobOperator, bpy.types.Operator):
    """Show why the job failed, and copy the whole report to the clipboard"""

    bl_idname = "kinora.job_error"
    bl_label = "Show Error"

    def act(self, context):
        job = self.chosen(context)
        context.window_manager.clipboard = job.report()
        raise UserError(job.message or f"{job.clip.name} has not failed", job.hint)


class KINORA_PT_queue(bpy.types.Panel):
    """All jobs, in the order they were asked for."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"
    bl_label = "Queue"
    bl_parent_id = "KINORA_PT_main"
    bl_options = {"DEFAULT_CLOSED"}

    def draw_header_preset(self, context):
        active = sum(job.active for job in session.current().jobs)
        if active:
            self.layout.label(text=str(active))

    def draw(self, context):
        layout, jobs = self.layout, session.current().jobs
        column = layout.column(align=True)
        for job in jobs:
            draw_row(column, context, job)
        if not jobs:
            layout.label(text="No jobs yet")
        row = layout.row(align=True)
        row.operator("kinora.cancel_all")
        row.operator("kinora.clear_queue")
        layout.operator("kinora.reconstruct_folder", icon="FILE_FOLDER")


def draw_row(layout, context, job: Reconstruction) -> None:
    """One job: its state and clip, how far it is, and what can be done about it."""
    row = layout.row(align=True)
    scene = job.scene.find()
    elsewhere = "" if scene == context.scene else f" ({job.scene.name})"
    words = row.row(align=True)
    words.alert = job.state == "FAILED"
    words.label(text=job.clip.name + elsewhere, icon=STATE_ICONS[job.state])
    state = words.row(align=True)
    state.alignment = "RIGHT"
    state.label(text=progress(job))
    if job.stoppable:
        row.operator("kinora.cancel", text="", icon="X").job = job.uid
        return
    if job.state == "DONE" and job.folder is not None and scene is not None:
        again = row.operator("kinora.import_capture", text="", icon="IMPORT")
        fill_import(again, context, job.folder, job.clip)
    if job.state == "FAILED":
        row.operator("kinora.job_error", text="", icon="INFO").job = job.uid
    if not job.active:
        row.operator("kinora.remove_job", text="", icon="REMOVE").job = job.uid


def progress(job: Reconstruction) -> str:
    """How far a job is, in a word or two."""
    if job.state == "RUNNING":
        return f"{job.fraction:.0%}" + (f", {duration(job.eta_s)}" if job.eta_s is not None else "")
    if job.state == "QUEUED":
        return f"Behind {job.queue_position}" if job.queue_position else "Next"
    words = {"DONE": "Done", "FAILED": "Failed", "CANCELLED": "Cancelled", "WAITING": "Waiting"}
    return words.get(job.state, job.status)


def fill_import(operator, context, folder: Path, clip: Path | None = None) -> None:
    """Have an import button import that folder with the options of the scene."""
    options = context.scene.kinora.import_options
    for name in properties_of(ImportOptions):
        setattr(operator, name, getattr(options, name))
    operator.directory = str(folder)
    if clip is not None and not options.plate_path:
        operator.plate_path = str(clip)


CLASSES = (
    KINORA_OT_cancel,
    KINORA_OT_cancel_all,
    KINORA_OT_remove_job,
    KINORA_OT_clear_queue,
    KINORA_OT_job_error,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
