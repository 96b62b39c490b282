"""What can be done with the jobs of the queue: cancel, fetch, order, pin, prioritise, delete, remove."""

# Annotations must stay objects here: Blender reads the properties from them.

import bpy

from ..server_job import ServerJob
from ..wire.errors import UserError
from . import session
from .acting import ActionOperator
from .properties import absolute
from .queue_rows import Row, row_of, rows, selected_key, sync
from .reconstruction import Reconstruction

LEVELS = (("HIGH", "High", 5), ("NORMAL", "Normal", 0), ("LOW", "Low", -5))


class QueueOperator(ActionOperator):
    """An operator on the queue: what it changes is the backend's, and in no undo step."""

    bl_options = {"REGISTER"}


class JobOperator(QueueOperator):
    """An operator on one job, named by its id here or at the backend; without one, on the job of the scene."""

    job: bpy.props.StringProperty(
        name="Job", description="Id of the job; empty for the one of this scene", options={"HIDDEN", "SKIP_SAVE"}
    )

    def row(self, context) -> Row:
        """The job that is meant. Raises UserError when there is none."""
        mine = session.current().job(context.scene)
        key = self.job or (mine.uid if mine else "")
        found = row_of(session.current(), key) if key else None
        if found is None:
            raise UserError("There is no such job", "see the queue")
        return found

    def chosen(self, context) -> Reconstruction:
        """The same, when it is one of this Blender. Raises UserError otherwise."""
        found = self.row(context).local
        if found is None:
            raise UserError("The job is none of this Blender", "fetch it first")
        return found


class ServerJobOperator(JobOperator):
    """An operator on a job that the backend has; without an id, on the one that is chosen in the queue."""

    job: bpy.props.StringProperty(
        name="Job",
        description="Id of the job; empty for the one that is chosen in the queue, or the one of this scene",
        options={"HIDDEN", "SKIP_SAVE"},
    )

    @classmethod
    def allowed(cls, context) -> str:
        now = session.current()
        if now.state != "READY":
            return "The backend is not connected"
        return "" if now.server.listing.jobs else "The backend has no jobs of this computer"

    def server(self, context) -> ServerJob:
        """The job as the backend lists it. Raises UserError when it has none such."""
        self.job = self.job or selected_key(context.window_manager)
        row = self.row(context)
        if row.server is None:
            raise UserError(f"The backend does not have {row.name}", "reconstruct it again")
        return row.server

    def ask(self, kind: str, then=lambda: None, **fields) -> None:
        now = session.current()
        now.server.ask(now.client, kind, then, **fields)
        session.wake()


class KINORA_OT_cancel(JobOperator, bpy.types.Operator):
    """Stop the reconstruction; what Live View has shown is kept as a partial capture, if Live View says so"""

    bl_idname = "kinora.cancel"
    bl_label = "Cancel"

    @classmethod
    def allowed(cls, context):
        return "" if any(row.active for row in rows(session.current(), False)) else "Nothing is being reconstructed"

    def act(self, context):
        row, now = self.row(context), session.current()
        if row.local and row.local.stoppable:
            now.cancel(row.local)
        elif row.server and not row.server.ended_already:
            now.server.ask(now.client, "cancel", job=row.server.job)
            session.wake()
        elif row.state == "AWAY":
            raise UserError(f"{row.name} goes on at a backend that is not connected", "connect to it first")
        else:
            raise UserError(f"{row.name} is not being reconstructed")


class KINORA_OT_cancel_all(QueueOperator, bpy.types.Operator):
    """Stop every job of this Blender; what Live View has shown is kept as partial captures, if Live View says so"""

    bl_idname = "kinora.cancel_all"
    bl_label = "Cancel All"

    @classmethod
    def allowed(cls, context):
        return "" if any(job.stoppable for job in session.current().jobs) else "Nothing is being reconstructed"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def act(self, context):
        for job in reversed(session.current().jobs):  # the waiting ones first, so that none of them begins
            if job.stoppable:
                session.current().cancel(job)


class KINORA_OT_fetch_job(ServerJobOperator, bpy.types.Operator):
    """Bring a job that the backend has into this scene: while it runs, its progress; once it is done, its capture"""

    bl_idname = "kinora.fetch_job"
    bl_label = "Fetch Job"

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Folder for the capture; empty for the one it was meant for, or one named after the clip",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )
    import_when_done: bpy.props.BoolProperty(
        name="Import", description="Import the capture into this scene once it is here", default=True
    )

    def act(self, context) -> str:
        wanted = self.server(context)
        if wanted.state in ("failed", "cancelled"):
            raise UserError(f"{wanted.name} has no result: it {_how(wanted)}", "reconstruct it again")
        out = absolute(self.directory) if self.directory else None
        job = session.current().follow(context.scene, wanted, out, self.import_when_done)
        sync(session.current())
        return f"Fetching {wanted.name} into {job.out}"


class KINORA_OT_move_job(ServerJobOperator, bpy.types.Operator):
    """Let a waiting job run earlier or later than others of its priority"""

    bl_idname = "kinora.move_job"
    bl_label = "Move Job"

    direction: bpy.props.EnumProperty(
        name="Direction",
        description="Where to move it in the queue",
        items=[
            ("UP", "Up", "Before the one that comes before it"),
            ("DOWN", "Down", "Behind the one that comes after it"),
            ("TOP", "To the Top", "Before all others"),
            ("BOTTOM", "To the Bottom", "Behind all others"),
        ],
    )

    def act(self, context) -> None:
        wanted = self.server(context)
        if wanted.state != "queued":
            raise UserError(f"{wanted.name} does not wait in the queue", "choose a job that waits")
        others = [row for row in session.current().server.listing.jobs if row.state == "queued"]
        others = sorted((row for row in others if row.priority == wanted.priority), key=lambda row: row.position)
        at = others.index(wanted)
        goal = {"UP": at - 1, "DOWN": at + 1, "TOP": 0, "BOTTOM": len(others) - 1}[self.direction]
        if goal == at or not 0 <= goal < len(others):
            return
        behind = goal + (goal > at)  # whom it comes before afterwards; past the last one, nobody
        before = {"before": others[behind].job} if behind < len(others) else {}
        self.ask("reorder", job=wanted.job, **before)


class KINORA_OT_pin_job(ServerJobOperator, bpy.types.Operator):
    """Have the backend keep the result of a job until it is unpinned; others go when they are old or room is needed"""

    bl_idname = "kinora.pin_job"
    bl_label = "Pin Job"

    pinned: bpy.props.BoolProperty(name="Pinned", description="Keep it; otherwise let it go again", default=True)

    def act(self, context) -> None:
        self.ask("pin", job=self.server(context).job, pinned=self.pinned)


class KINORA_OT_job_priority(ServerJobOperator, bpy.types.Operator):
    """Let a job run before or behind all of another priority, also before those of other clients"""

    bl_idname = "kinora.job_priority"
    bl_label = "Set Priority"

    level: bpy.props.EnumProperty(
        name="Priority",
        description="Which jobs it goes before",
        items=[(key, label, f"Priority {number:+d}" if number else "Priority 0") for key, label, number in LEVELS],
        default="NORMAL",
    )

    def act(self, context) -> None:
        wanted = self.server(context)
        if wanted.ended_already:
            raise UserError(f"{wanted.name} has ended", "choose a job that waits")
        self.ask("prioritise", job=wanted.job, priority={key: number for key, _, number in LEVELS}[self.level])


class KINORA_OT_delete_job(ServerJobOperator, bpy.types.Operator):
    """Remove a job that has ended from the backend, with its result there; a capture in your own folder stays"""

    bl_idname = "kinora.delete_job"
    bl_label = "Delete at Backend"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def act(self, context) -> None:
        wanted, now = self.server(context), session.current()
        if not wanted.ended_already:
            raise UserError(f"{wanted.name} has not ended", "cancel it first")
        if any(job.active and job.server_job == wanted.job for job in now.jobs):
            raise UserError(f"The result of {wanted.name} is being fetched", "wait for it")
        client, keeping = now.client, now.keeping

        def gone() -> None:
            keeping.drop(client, wanted.job)
            for job in now.jobs:
                job.server_job = "" if job.server_job == wanted.job else job.server_job

        self.ask("delete", gone, job=wanted.job)


class KINORA_OT_refresh_jobs(QueueOperator, bpy.types.Operator):
    """Ask the backend again which jobs it has; the list is also asked for by itself"""

    bl_idname = "kinora.refresh_jobs"
    bl_label = "Refresh"

    @classmethod
    def allowed(cls, context):
        return "" if session.current().state == "READY" else "The backend is not connected"

    def act(self, context):
        session.current().server.refresh()
        session.wake()


class KINORA_OT_remove_job(JobOperator, bpy.types.Operator):
    """Take a job that has ended out of the list; its capture stays on the disk"""

    bl_idname = "kinora.remove_job"
    bl_label = "Remove from Queue"

    def act(self, context):
        job = self.chosen(context)
        if job.active:
            raise UserError(f"{job.clip.name} has not ended", "cancel it first")
        session.current().jobs.remove(job)
        sync(session.current())


class KINORA_OT_clear_queue(QueueOperator, bpy.types.Operator):
    """Take all jobs that have ended out of the list; their captures stay on the disk, and results at the backend"""

    bl_idname = "kinora.clear_queue"
    bl_label = "Clear Finished"

    @classmethod
    def allowed(cls, context):
        return "" if any(not row.active for row in rows(session.current())) else "No job has ended"

    def act(self, context):
        now = session.current()
        now.jobs = [job for job in now.jobs if job.active or job.state == "AWAY"]
        context.window_manager.kinora_queue.ended_too = False
        sync(session.current())


class KINORA_OT_job_error(JobOperator, bpy.types.Operator):
    """Show why the job failed, and copy the whole report to the clipboard"""

    bl_idname = "kinora.job_error"
    bl_label = "Show Error"

    def act(self, context):
        job = self.chosen(context)
        context.window_manager.clipboard = job.report()
        raise UserError(job.message or f"{job.clip.name} has not failed", job.hint)


def _how(job: ServerJob) -> str:
    return "was cancelled" if job.state == "cancelled" else "failed"


CLASSES = (
    KINORA_OT_cancel,
    KINORA_OT_cancel_all,
    KINORA_OT_fetch_job,
    KINORA_OT_move_job,
    KINORA_OT_pin_job,
    KINORA_OT_job_priority,
    KINORA_OT_delete_job,
    KINORA_OT_refresh_jobs,
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
