"""The add-on's preferences: which backend does the work, here or on another machine."""

# Annotations must stay objects here: Blender reads the properties from them.
from dataclasses import dataclass
from pathlib import Path

import bpy

from .. import backends
from ..wire.errors import UserError

#: The add-on's id: `bl_ext.<repository>.kinora`, or the package's own name when loaded as a plain package.
ADDON_ID = __package__.rpartition(".")[0]

COMPACT_HELP = (
    "About a fifth of the bytes: depth as 16-bit logarithms, off by at most 0.01 % where the farthest is no more than "
    "100,000 times as far as the nearest, and everything else without loss"
)


@dataclass(frozen=True)
class BackendChoice:
    """Which backend does the work. `folder` None is the one installed last.

    `compact` fetches results from another machine in fewer bytes, with the depth error that the preference states.
    """

    remote: bool = False
    folder: Path | None = None
    connection_file: Path | None = None
    compact: bool = True

    def check(self) -> None:
        """Raise UserError when what must be chosen first is not."""
        if self.remote and self.connection_file is None:
            hint = "paste the pairing code of one in the add-on's preferences"
            raise UserError("No backend on another computer is chosen", hint)


class KINORA_AP_preferences(bpy.types.AddonPreferences):
    """Kinora in Edit > Preferences > Add-ons."""

    bl_idname = ADDON_ID

    backend: bpy.props.EnumProperty(
        name="Backend",
        description="Where clips are reconstructed",
        items=[
            ("LOCAL", "This Computer", "Reconstruct on this computer; nothing leaves it"),
            ("REMOTE", "Another Computer", "Reconstruct on another computer; the clip is sent there"),
        ],
    )
    backend_folder: bpy.props.StringProperty(
        name="Backend Folder",
        description="Folder that holds install_deps.py, where the backend was installed; "
        "when empty, the one that was installed last",
        subtype="DIR_PATH",
    )
    remote_backend: bpy.props.StringProperty(
        name="Backend", description="Name of the backend on another computer that is used", options={"HIDDEN"}
    )
    encoding: bpy.props.EnumProperty(
        name="Result Encoding",
        description="How results come from another computer; on this computer they are always exact",
        items=[
            ("COMPACT", "Compact", COMPACT_HELP),
            ("EXACT", "Exact", "Every number as the backend computed it"),
        ],
    )

    def choice(self) -> BackendChoice:
        """What the artist chose."""
        return BackendChoice(
            remote=self.backend == "REMOTE",
            folder=Path(bpy.path.abspath(self.backend_folder)) if self.backend_folder else None,
            connection_file=backends.known().get(self.remote_backend),
            compact=self.encoding == "COMPACT",
        )

    def draw(self, context) -> None:
        from .pairing import draw_remote
        from .panels import draw_backend
        from .session import current
        from .setup_panel import draw_setup, draw_weights

        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.row().prop(self, "backend", expand=True)
        if self.backend == "REMOTE":
            draw_remote(layout, context, self)
        else:
            layout.prop(self, "backend_folder", placeholder="Installed last")
            draw_setup(layout, context)
        layout.separator(type="LINE")
        draw_backend(layout, context)
        if current().state == "READY":
            layout.label(text=f"Runs on {current().note} at {current().connection.address}")
        layout.separator(type="LINE")
        draw_weights(layout, context, self.backend == "REMOTE")


def backend_choice(context) -> BackendChoice:
    """The backend of the preferences; the local one when Kinora is loaded as a plain package without preferences."""
    addon = context.preferences.addons.get(ADDON_ID)
    return addon.preferences.choice() if addon else BackendChoice()


def register() -> None:
    bpy.utils.register_class(KINORA_AP_preferences)


def unregister() -> None:
    bpy.utils.unregister_class(KINORA_AP_preferences)
