"""What the artist sees: settings, preferences, operators and panels, and the session that ties them to a backend."""

from __future__ import annotations

from . import (
    acting,
    camera_panel,
    cameras,
    exporting,
    facts,
    footage,
    operators,
    panels,
    players,
    preferences,
    properties,
    queue,
    session,
    world,
)

#: In the order of registering: panels draw what the others define.
MODULES = (
    facts,
    properties,
    preferences,
    session,
    operators,
    footage,
    queue,
    panels,
    acting,
    cameras,
    camera_panel,
    players,
    world,
    exporting,
)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()
