"""Backends on other machines in the preferences: paired in one paste, chosen by name, moved, forgotten."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy

from .. import backends
from ..wire.connection import Connection, code_of_key
from ..wire.errors import UserError
from . import session
from .acting import ActionOperator
from .preferences import ADDON_ID, backend_choice
from .text import draw_wrapped


def preferences_of(context) -> bpy.types.AddonPreferences:
    """The add-on's preferences. Raises UserError when Kinora is loaded as a plain package, which has none."""
    addon = context.preferences.addons.get(ADDON_ID)
    if addon is None:
        raise UserError("Kinora is loaded without preferences", "enable it in Preferences > Add-ons")
    return addon.preferences


def choose(context, name: str) -> None:
    """Use a known backend from now on, '' for this computer, and leave another one that is in use.

    Raises UserError, and then nothing has changed.
    """
    preferences, now = preferences_of(context), session.current()
    if name:
        backends.file_of(name)
    if now.state != "OFF" and any(job.active for job in now.jobs) and name != chosen(context):
        raise UserError("A job is running on the backend in use", "wait for it, cancel it or press Disconnect first")
    before = backend_choice(context)
    preferences.backend, preferences.remote_backend = (
        ("REMOTE", name) if name else ("LOCAL", preferences.remote_backend)
    )
    if now.state != "OFF" and backend_choice(context) != before:
        now.stop_backend()
    session.redraw()


def chosen(context) -> str:
    """Name of the backend of the preferences; '' for this computer."""
    addon = context.preferences.addons.get(ADDON_ID)
    return addon.preferences.remote_backend if addon and addon.preferences.backend == "REMOTE" else ""


class PairingOperator(ActionOperator):
    """An operator on what is known of other machines: keys are in no undo step, and secrets in no log of operators."""

    bl_options = {"INTERNAL"}


class KINORA_OT_backend_pair(PairingOperator, bpy.types.Operator):
    """Know a backend on another computer by the code that 'python -m backend keys new' printed there"""

    bl_idname = "kinora.backend_pair"
    bl_label = "Paste Pairing Code"

    code: bpy.props.StringProperty(
        name="Code",
        description="The pairing code; empty to take it from the clipboard",
        subtype="PASSWORD",
        options={"SKIP_SAVE"},
    )
    name: bpy.props.StringProperty(
        name="Name", description="What to call the backend; empty for the name of its computer", options={"SKIP_SAVE"}
    )

    def invoke(self, context, event):
        try:
            Connection.from_code(context.window_manager.clipboard)
        except UserError:
            return context.window_manager.invoke_props_dialog(self, width=420, confirm_text="Pair")
        return self.execute(context)

    def draw(self, context):
        draw_wrapped(
            self.layout,
            context,
            "The clipboard holds no pairing code. On the backend's computer, run: python -m backend keys new",
            icon="INFO",
            width_px=380,
        )
        self.layout.use_property_split = True
        self.layout.prop(self, "code")
        self.layout.prop(self, "name")

    def act(self, context) -> str:
        preferences_of(context)
        connection = Connection.from_code(self.code or context.window_manager.clipboard)
        name = backends.add(connection, self.name)
        choose(context, name)
        return f"Paired with {name}; press Connect"


class KINORA_OT_backend_add(PairingOperator, bpy.types.Operator):
    """Know a backend on another computer by its connection file, which is copied: the file is not needed any more"""

    bl_idname = "kinora.backend_add"
    bl_label = "Add Connection File"

    filepath: bpy.props.StringProperty(
        name="File", description="Connection file of the backend", subtype="FILE_PATH", options={"SKIP_SAVE"}
    )
    filter_glob: bpy.props.StringProperty(default="*.json", options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def act(self, context) -> str:
        if not self.filepath:
            raise UserError("No file was chosen", "choose the connection file of the backend")
        preferences_of(context)
        name = backends.add(Connection.read(Path(bpy.path.abspath(self.filepath))))
        choose(context, name)
        return f"Added {name}; press Connect"


class NamedBackendOperator(PairingOperator):
    """An operator on a known backend, named; without a name, on the one that is chosen."""

    name: bpy.props.StringProperty(
        name="Name", description="Name of the backend; empty for the one that is chosen", options={"SKIP_SAVE"}
    )

    @classmethod
    def allowed(cls, context) -> str:
        return "" if backends.known() else "No backend on another computer is known"

    def meant(self, context) -> str:
        """Its name. Raises UserError when there is none of that name."""
        name = self.name or chosen(context)
        if not name:
            raise UserError("No backend is named", "choose one in the add-on's preferences")
        backends.file_of(name)
        return name


class KINORA_OT_backend_edit(NamedBackendOperator, bpy.types.Operator):
    """Call a known backend otherwise, or reach it at another address: the near end of a tunnel, for example"""

    bl_idname = "kinora.backend_edit"
    bl_label = "Edit Backend"

    new_name: bpy.props.StringProperty(
        name="Name", description="What to call it; empty to leave it", options={"SKIP_SAVE"}
    )
    address: bpy.props.StringProperty(
        name="Address", description="Where it is reached, as host:port; empty to leave it", options={"SKIP_SAVE"}
    )

    def invoke(self, context, event):
        try:
            self.name = self.new_name = self.meant(context)
            self.address = Connection.read(backends.file_of(self.name)).address.removeprefix("tcp://")
        except UserError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        return context.window_manager.invoke_props_dialog(self, width=360, confirm_text="Save")

    def draw(self, context):
        self.layout.use_property_split = True
        self.layout.prop(self, "new_name")
        self.layout.prop(self, "address")

    def act(self, context) -> None:
        name, was_chosen = self.meant(context), chosen(context)
        if self.address:
            backends.move(name, self.address)
        if self.new_name:
            new = backends.rename(name, self.new_name)
            if was_chosen == name:
                preferences_of(context).remote_backend = new
        session.redraw()


class KINORA_OT_backend_forget(NamedBackendOperator, bpy.types.Operator):
    """Remove the address and the keys of a backend from this computer; its jobs stay there"""

    bl_idname = "kinora.backend_forget"
    bl_label = "Forget Backend"

    def invoke(self, context, event):
        return context.window_manager.invoke_confirm(self, event)

    def act(self, context) -> str:
        name, now = self.meant(context), session.current()
        in_use = now.state != "OFF" and now.choice.connection_file == backends.file_of(name)
        if in_use and any(job.active for job in now.jobs):
            raise UserError(f"A job is running on {name}", "wait for it, cancel it or press Disconnect first")
        if in_use:
            now.stop_backend()
        backends.forget(name)
        if chosen(context) == name:
            preferences_of(context).remote_backend = next(iter(backends.known()), "")
        session.redraw()
        return f"{name} is forgotten"


class KINORA_OT_backend_choose(PairingOperator, bpy.types.Operator):
    """Reconstruct on this backend from now on"""

    bl_idname = "kinora.backend_choose"
    bl_label = "Use Backend"

    name: bpy.props.StringProperty(
        name="Name", description="Name of a known backend; empty for this computer", options={"SKIP_SAVE"}
    )

    def act(self, context) -> None:
        choose(context, self.name)


class KINORA_OT_copy_own_key(PairingOperator, bpy.types.Operator):
    """Copy the public key of this computer, for 'python -m backend keys allow' on the backend's computer"""

    bl_idname = "kinora.copy_own_key"
    bl_label = "Copy This Computer's Key"

    def act(self, context) -> str:
        key = code_of_key(backends.own_pair()[0])
        context.window_manager.clipboard = key
        return f"Copied; on the backend's computer, run: python -m backend keys allow {key} NAME --host HOST"


class KINORA_MT_backends(bpy.types.Menu):
    """The backends to choose from."""

    bl_idname = "KINORA_MT_backends"
    bl_label = "Backend"

    def draw(self, context):
        layout, now = self.layout, chosen(context)
        layout.operator_context = "EXEC_DEFAULT"
        for name in ("", *backends.known()):
            icon = "RADIOBUT_ON" if name == now else "RADIOBUT_OFF"
            layout.operator("kinora.backend_choose", text=name or "This Computer", icon=icon).name = name
        layout.separator()
        layout.operator_context = "INVOKE_DEFAULT"
        layout.operator("kinora.backend_pair", icon="PASTEDOWN")
        layout.operator("kinora.open_preferences", icon="PREFERENCES")


def draw_remote(layout, context, preferences) -> None:
    """The known backends, and what makes one known."""
    column = layout.column(align=True)
    for name, file in backends.known().items():
        row = column.row(align=True)
        on = name == preferences.remote_backend
        pick = row.operator(
            "kinora.backend_choose", text="", icon="RADIOBUT_ON" if on else "RADIOBUT_OFF", emboss=False
        )
        pick.name = name
        row.label(text=name)
        try:
            row.label(text=Connection.read(file).address.removeprefix("tcp://"))
        except UserError:
            row.label(text="Its file is damaged", icon="ERROR")
        row.operator("kinora.backend_edit", text="", icon="GREASEPENCIL").name = name
        row.operator("kinora.backend_forget", text="", icon="TRASH").name = name
    if not backends.known():
        draw_wrapped(
            layout,
            context,
            "On the backend's computer, run 'python -m backend keys new', and paste the code that it prints",
            icon="INFO",
        )
    row = layout.row(align=True)
    row.operator("kinora.backend_pair", icon="PASTEDOWN")
    row.operator("kinora.backend_add", text="Add File", icon="FILE_FOLDER")
    row.operator("kinora.copy_own_key", icon="COPYDOWN")
    layout.prop(preferences, "encoding")
    if not bpy.app.online_access:
        draw_wrapped(layout, context, "Allow Online Access in System > Network to reach other computers", icon="ERROR")


CLASSES = (
    KINORA_OT_backend_pair,
    KINORA_OT_backend_add,
    KINORA_OT_backend_edit,
    KINORA_OT_backend_forget,
    KINORA_OT_backend_choose,
    KINORA_OT_copy_own_key,
    KINORA_MT_backends,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
