"""Kinora, 4D capture for Blender: the extension. Importing does nothing; Blender calls register()."""


def register() -> None:
    from . import ui

    ui.register()


def unregister() -> None:
    from . import ui

    ui.unregister()
