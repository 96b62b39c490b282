"""What the artist sees: settings, preferences, operators and panels, and the session that ties them to a backend."""

from __future__ import annotations

from . import (
    acting,
    arriving,
    camera_panel,
    cameras,
    clip_look,
    elements,
    exporting,
    facts,
    footage,
    imports,
    lenses,
    live,
    masks,
    operators,
    pairing,
    panels,
    plate_panel,
    plates,
    players,
    preferences,
    presets,
    properties,
    queue,
    queue_actions,
    queue_rows,
    session,
    setup,
    storage,
    world,
)

#: In the order of registering: panels draw what the others define.
MODULES = (
    facts,
    properties,
    preferences,
    queue_rows,
    session,
    arriving,
    operators,
    footage,
    clip_look,
    queue,
    queue_actions,
    presets,
    setup,
    pairing,
    panels,
    live,
    acting,
    imports,
    cameras,
    lenses,
    camera_panel,
    plates,
    plate_panel,
    players,
    storage,
    world,
    elements,
    masks,
    exporting,
)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()
