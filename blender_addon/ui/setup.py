"""The local backend's set-up, check and weights in the preferences, by programs that run beside Blender."""

# Annotations must stay objects here: Blender reads the properties from them.
import json
import logging
import time
from pathlib import Path
from typing import Any

import bpy

from .. import installer
from ..installer import Child
from ..launcher import installed
from ..wire.errors import UserError
from ..wire.settings import ENGINES
from .acting import ActionOperator
from .preferences import ADDON_ID, backend_choice
from .session import redraw
from .text import draw_wrapped, sentence

log = logging.getLogger(__name__)

TICK_S, LOOK_S = 0.2, 3.0
MARKS = ("ok", "--", "!!")  # of the doctor's lines: well, worth knowing, wrong


class Work:
    """What runs for the preferences: one long work at a time, a short look beside it, and what these found."""

    def __init__(self) -> None:
        self.long: Child | None = None
        self.looks: dict[str, Child] = {}  # by what is looked for
        self.weights: list[dict[str, Any]] = []
        self.findings: list[tuple[str, str, str]] = []  # of the doctor: a mark of MARKS, what, in words
        self.note = ""  # why a look found nothing
        self._installed, self._asked = False, 0.0
        self._unseen = False  # the long work may have ended without being noticed
        self._repo: Path | None = None  # whose weights were listed

    @property
    def busy(self) -> bool:
        return self.long is not None and self.long.running

    @property
    def installed(self) -> bool:
        """Whether a backend is set up here; what draws asks often, and the disk is looked at every few seconds."""
        if time.monotonic() - self._asked > LOOK_S:
            self._installed, self._asked = installer.is_installed(), time.monotonic()
        return self._installed

    def begin(self, child: Child) -> None:
        """Show this work from now on."""
        self.long, self._unseen = child, True
        wake()

    def list_weights(self, repo: Path | None = None) -> None:
        """Look which weights there are; returns at once. Raises UserError when no backend is installed."""
        self._repo = repo
        self._look("weights", "list", "--json", repo=repo)

    def examine(self, repo: Path | None = None) -> None:
        """Have the backend's doctor look at this machine; returns at once. Raises UserError."""
        self._look("doctor", repo=repo)

    def pump(self) -> float | None:
        """Take what looks found; seconds until the next call, None when nothing runs."""
        redraw()
        self._asked = 0.0
        for kind in [kind for kind, look in self.looks.items() if not look.running]:
            self._found(kind, self.looks.pop(kind))
        if self._unseen and not self.busy:
            self._unseen = False
            if self.weights:  # some may be here now
                self.list_weights(self._repo)
        return TICK_S if self.busy or self.looks else None

    def close(self) -> None:
        """Leave no child behind."""
        for child in (self.long, *self.looks.values()):
            if child is not None:
                child.end()

    def _look(self, *words: str, repo: Path | None) -> None:
        if words[0] not in self.looks:
            self.looks[words[0]] = installer.run_backend(words[0], *words, repo=repo)
            wake()

    def _found(self, kind: str, look: Child) -> None:
        if kind == "doctor":  # it fails when something is wrong, and says what
            rows = [line.split(maxsplit=2) for line in look.lines if line[:2] in MARKS]
            self.findings = [(row[0], row[1], row[2]) for row in rows if len(row) == 3]
            self.findings = self.findings or [("!!", "backend", look.error or "the check said nothing")]
        elif look.error:
            self.note = look.error
        else:
            self.note, rows = "", json.loads(look.lines[-1])
            self.weights = [row for row in rows if row["engine"] in ENGINES]


_work = Work()


def work() -> Work:
    """What runs for the preferences of this Blender."""
    return _work


def check_online() -> None:
    """Raise UserError when Blender is set to stay offline."""
    if not bpy.app.online_access:
        raise UserError("Blender is set to stay offline", "allow online access in Preferences > System > Network first")


class KINORA_OT_setup_backend(ActionOperator, bpy.types.Operator):
    """Install the backend from Kinora's source folder; its packages go into an environment there, 2 to 8 GB"""

    bl_idname = "kinora.setup_backend"
    bl_label = "Set Up Backend"
    bl_options = {"REGISTER"}

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Folder that holds install_deps.py; empty for the one of the preferences, or that was set up last",
        subtype="DIR_PATH",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def allowed(cls, context):
        return "Something is being installed already" if work().busy else ""

    def act(self, context):
        check_online()
        folder = Path(bpy.path.abspath(self.directory)) if self.directory else backend_choice(context).folder
        if folder is None and not installer.is_installed():
            raise UserError("No folder is chosen", "choose the folder of Kinora's source as Backend Folder")
        work().begin(installer.set_up(folder or installed()[1]))


class KINORA_OT_setup_cancel(ActionOperator, bpy.types.Operator):
    """Stop what is being installed; what is there stays, and the next time goes on from it"""

    bl_idname = "kinora.setup_cancel"
    bl_label = "Cancel"
    bl_options = {"REGISTER"}

    @classmethod
    def allowed(cls, context):
        return "" if work().busy else "Nothing is being installed"

    def act(self, context):
        work().long.cancel()


class KINORA_OT_copy_setup_log(ActionOperator, bpy.types.Operator):
    """Copy everything that was said while installing to the clipboard"""

    bl_idname = "kinora.copy_setup_log"
    bl_label = "Copy Log"
    bl_options = {"REGISTER"}

    @classmethod
    def allowed(cls, context):
        return "" if work().long is not None else "Nothing was installed yet"

    def act(self, context):
        context.window_manager.clipboard = work().long.text()
        return "Log copied to the clipboard"


class KINORA_OT_examine(ActionOperator, bpy.types.Operator):
    """Look what the backend finds on this computer: its packages, the device it computes with, free disk"""

    bl_idname = "kinora.examine"
    bl_label = "Check Backend"
    bl_options = {"REGISTER"}

    def act(self, context):
        work().examine(backend_choice(context).folder)


class KINORA_OT_list_weights(ActionOperator, bpy.types.Operator):
    """Look which weights the engines can use and which of them are on this computer"""

    bl_idname = "kinora.list_weights"
    bl_label = "List Weights"
    bl_options = {"REGISTER"}

    def act(self, context):
        work().list_weights(backend_choice(context).folder)


class KINORA_OT_get_weights(ActionOperator, bpy.types.Operator):
    """Download the weights of a network for the backend on this computer, after you have seen their licence"""

    bl_idname = "kinora.get_weights"
    bl_label = "Get Weights"
    bl_options = {"REGISTER"}

    name: bpy.props.StringProperty(name="Name", description="Which weights, such as monst3r", options={"SKIP_SAVE"})
    accept: bpy.props.BoolProperty(
        name="I Accept the Licence",
        description="Weights whose licence forbids commercial use are got only once it is accepted",
        options={"SKIP_SAVE"},
    )

    @classmethod
    def allowed(cls, context):
        return "Something is being installed already" if work().busy else ""

    def row(self) -> dict[str, Any] | None:
        """What the backend says of these weights; None while it was not asked."""
        return next((row for row in work().weights if row["name"] == self.name), None)

    def invoke(self, context, event):
        return context.window_manager.invoke_props_dialog(self, width=440, confirm_text="Download")

    def draw(self, context):
        layout, row = self.layout, self.row()
        if row is None:
            layout.label(text=f"The backend does not know weights '{self.name}'", icon="ERROR")
            return
        layout.label(text=f"{row['title']}, {row['size']}")
        layout.label(text=f"Licence {row['licence']}", icon="INFO" if row["commercial_use"] else "ERROR")
        for line in (row["terms"], row["note"]):
            if line:
                draw_wrapped(layout, context, sentence(line), width_px=400)
        layout.operator("wm.url_open", text="Read the Licence", icon="URL").url = row["url"]
        if row["to_accept"]:
            layout.prop(self, "accept")

    def act(self, context):
        if not self.name:
            raise UserError("No weights are named", "give the name of one, such as monst3r")
        check_online()
        row = self.row()
        if row is not None and row["to_accept"] and not self.accept:
            raise UserError(
                f"The licence of {row['title']} was not accepted", f"tick the box to accept {row['licence']}"
            )
        if row is not None and row["page"]:
            raise UserError(f"{row['title']} is not downloaded by itself", f"see {row['page']}")
        words = ["weights", "get", self.name, *(["--accept-licence"] if self.accept else [])]
        title = f"Getting {row['title'] if row else self.name}"
        work().begin(installer.run_backend(title, *words, repo=backend_choice(context).folder))


class KINORA_OT_open_preferences(ActionOperator, bpy.types.Operator):
    """Open Kinora's preferences: the backend, its set-up and its weights"""

    bl_idname = "kinora.open_preferences"
    bl_label = "Kinora Preferences"
    bl_options = {"REGISTER"}

    def act(self, context):
        if ADDON_ID not in context.preferences.addons:
            raise UserError("Kinora is loaded without preferences", "enable it in Preferences > Add-ons")
        if work().installed and not work().weights and not backend_choice(context).remote:
            work().list_weights(backend_choice(context).folder)
        bpy.ops.preferences.addon_show(module=ADDON_ID)


def wake() -> None:
    """Have the timer look soon."""
    if not bpy.app.timers.is_registered(_tick):
        bpy.app.timers.register(_tick, first_interval=TICK_S, persistent=True)


def _tick() -> float | None:
    try:
        return work().pump()
    except Exception:  # a timer that raises is dropped by Blender, and the log would stand still
        log.exception("the preferences' work failed")
        return None


CLASSES = (
    KINORA_OT_setup_backend,
    KINORA_OT_setup_cancel,
    KINORA_OT_copy_setup_log,
    KINORA_OT_examine,
    KINORA_OT_list_weights,
    KINORA_OT_get_weights,
    KINORA_OT_open_preferences,
)


def register() -> None:
    global _work
    _work = Work()
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    work().close()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
