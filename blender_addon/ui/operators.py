"""What the artist can do: reconstruct, import a capture, start and stop the backend."""

# Annotations must stay objects here: Blender reads the properties from them.
import logging

import bpy

from ..scene.imported import import_of
from ..scene.options import ImportOptions
from ..scene.report import ImportReport
from ..wire.errors import UserError
from . import session
from .acting import ActionOperator
from .importing import import_with_cursor
from .preferences import backend_choice
from .properties import absolute, properties_of, read_group

log = logging.getLogger(__name__)


class KINORA_OT_reconstruct(bpy.types.Operator):
    """Reconstruct the clip: camera, points through time and masks. The backend is started when it is not running"""

    bl_idname = "kinora.reconstruct"
    bl_label = "Reconstruct"

    wait: bpy.props.BoolProperty(
        name="Wait", description="Block Blender until it is done: for scripts without a window", options={"SKIP_SAVE"}
    )

    @classmethod
    def poll(cls, context):
        if not context.scene.kinora.clip_path:
            cls.poll_message_set("Choose a clip first")
            return False
        return True

    def execute(self, context):
        try:
            jobs = session.current().submit(context.scene, backend_choice(context))
            if self.wait:
                session.current().wait(jobs)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class KINORA_OT_import_capture(ActionOperator, bpy.types.Operator):
    """Bring a finished capture into the scene: camera, points through time, masks and plate"""

    bl_idname = "kinora.import_capture"
    bl_label = "Import Kinora Capture"

    directory: bpy.props.StringProperty(name="Folder", description="Folder of the capture", subtype="DIR_PATH")
    filter_glob: bpy.props.StringProperty(default="capture.json", options={"HIDDEN"})

    @classmethod
    def allowed(cls, context) -> str:
        return "" if context.mode == "OBJECT" else "Leave Edit Mode first"

    def invoke(self, context, event):
        if not self.properties.is_property_set("existing"):
            self.existing = "update"
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        for name in properties_of(ImportOptions):
            layout.prop(self, name)

    def act(self, context) -> str:
        if not self.directory:
            raise UserError("No folder was chosen", "choose the folder of a capture")
        folder = absolute(self.directory)
        collection = import_with_cursor(folder, context.scene, read_group(ImportOptions, self))
        context.scene.kinora.capture_path = str(folder)
        done = ImportReport.read(import_of(collection, context.scene).root)
        for note in done.notes:
            self.report({"WARNING"}, note)
        return f"Imported {collection.name}: {done.points:,} points"


KINORA_OT_import_capture.__annotations__.update(properties_of(ImportOptions))


class KINORA_OT_backend_start(bpy.types.Operator):
    """Start the backend on this computer, or connect to the one on another computer."""

    bl_idname = "kinora.backend_start"
    bl_label = "Start Backend"
    bl_description = (
        "Start the backend on this computer, or connect to the one that the preferences name. "
        "A backend that is started here stops when Blender quits; its jobs go on when it is started again"
    )

    @classmethod
    def poll(cls, context):
        if session.current().state != "OFF":
            cls.poll_message_set("The backend is running or being started")
            return False
        return True

    def execute(self, context):
        try:
            session.current().start_backend(backend_choice(context))
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return {"FINISHED"}


class KINORA_OT_backend_stop(bpy.types.Operator):
    """Stop the backend on this computer, or leave the one on another computer. Jobs go on when it runs again"""

    bl_idname = "kinora.backend_stop"
    bl_label = "Stop Backend"

    @classmethod
    def poll(cls, context):
        if session.current().state == "OFF":
            cls.poll_message_set("The backend is not running")
            return False
        return True

    def invoke(self, context, event):
        if any(job.active for job in session.current().jobs):
            return context.window_manager.invoke_confirm(self, event)
        return self.execute(context)

    def execute(self, context):
        session.current().stop_backend()
        return {"FINISHED"}


class KINORA_OT_copy_report(bpy.types.Operator):
    """Copy the error, the settings and the log of the last job to the clipboard, for a bug report"""

    bl_idname = "kinora.copy_report"
    bl_label = "Copy Report"

    @classmethod
    def poll(cls, context):
        if session.current().job(context.scene) is None:
            cls.poll_message_set("Nothing was reconstructed in this scene")
            return False
        return True

    def execute(self, context):
        context.window_manager.clipboard = session.current().job(context.scene).report()
        self.report({"INFO"}, "Report copied to the clipboard")
        return {"FINISHED"}


def _menu_import(self, context):
    self.layout.operator(KINORA_OT_import_capture.bl_idname, text="Kinora Capture")


CLASSES = (
    KINORA_OT_reconstruct,
    KINORA_OT_import_capture,
    KINORA_OT_backend_start,
    KINORA_OT_backend_stop,
    KINORA_OT_copy_report,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_menu_import)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu_import)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
