"""What every operator and panel on an import shares: which import is meant, errors as sentences, never a traceback."""

# Annotations must stay objects here: Blender reads properties from the classes that derive from these.
import logging

import bpy

from ..scene.earlier import PARTIAL_OF
from ..scene.imported import Imported, find_imported, imported_in
from ..wire.errors import UserError

log = logging.getLogger(__name__)


class ActionOperator:
    """An operator whose `act(context)` may raise UserError, which is reported; a bug is too, and logged whole.

    Derive with bpy.types.Operator. `act` returns nothing, or a message to show in the status bar. An action that fails
    half way must leave the file as it was: build first, link last. `allowed(context)` returns why it cannot run now,
    as a short sentence without a full stop, or an empty text.
    """

    bl_options = {"REGISTER", "UNDO"}

    @classmethod
    def allowed(cls, context) -> str:
        return ""

    @classmethod
    def poll(cls, context):
        why_not = cls.allowed(context)
        if why_not:
            cls.poll_message_set(why_not)
        return not why_not

    def act(self, context) -> str | None:
        raise NotImplementedError

    def execute(self, context):
        try:
            message = self.act(context)
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except Exception as error:
            log.exception("%s failed", self.bl_idname)
            self.report({"ERROR"}, f"{self.bl_label} failed on an error of Kinora ({error}); see the system console")
            return {"CANCELLED"}
        if message:
            self.report({"INFO"}, message)
        return {"FINISHED"}


class ImportOperator(ActionOperator):
    """An operator on one import: `act_on(context, imported)`, for the import that the active object belongs to."""

    @classmethod
    def allowed(cls, context) -> str:
        imported = find_imported(context)
        if imported is None:
            several = bool(imported_in(context.scene))
            return "Select an object of the capture that is meant" if several else "Import a capture first"
        if context.mode != "OBJECT" and not cls.allowed_in_edit_mode:
            return "Leave Edit Mode first"
        return cls.allowed_on(context, imported)

    #: Whether the operator works outside Object Mode.
    allowed_in_edit_mode = False

    @classmethod
    def allowed_on(cls, context, imported: Imported) -> str:
        return ""

    def act(self, context) -> str | None:
        return self.act_on(context, find_imported(context))

    def act_on(self, context, imported: Imported) -> str | None:
        raise NotImplementedError


class ImportPanel:
    """A sub-panel about the import that is meant; derive with bpy.types.Panel and give a bl_order."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"
    bl_parent_id = "KINORA_PT_imported"
    bl_options = {"DEFAULT_CLOSED"}

    def draw(self, context) -> None:
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        imported = find_imported(context)
        if imported is not None:  # the parent says that none is meant
            self.draw_import(context, imported)

    def draw_import(self, context, imported: Imported) -> None:
        raise NotImplementedError


class KINORA_PT_imported(bpy.types.Panel):
    """The imported capture that is meant; its sub-panels are in the files of their topics."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Kinora"
    bl_label = "Imported Capture"
    bl_idname = "KINORA_PT_imported"
    bl_order = 10

    @classmethod
    def poll(cls, context) -> bool:
        return bool(imported_in(context.scene))

    def draw(self, context) -> None:
        imported = find_imported(context)
        if imported is None:
            self.layout.label(text="Select an object of a capture", icon="INFO")
        else:
            self.layout.label(text=imported.name, icon="EMPTY_AXIS")
            if imported.root.get(PARTIAL_OF):
                self.layout.label(text=f"Partial, of a capture of {imported.root[PARTIAL_OF]} frames", icon="ERROR")


def register() -> None:
    bpy.utils.register_class(KINORA_PT_imported)


def unregister() -> None:
    bpy.utils.unregister_class(KINORA_PT_imported)
