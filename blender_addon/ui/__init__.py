"""What the artist sees: settings, preferences, operators and panels, and the session that ties them to a backend."""

from __future__ import annotations

from . import acting, operators, panels, preferences, properties, session

#: In the order of registering: panels draw what the others define.
MODULES = (properties, preferences, session, operators, panels, acting)


def register() -> None:
    for module in MODULES:
        module.register()


def unregister() -> None:
    for module in reversed(MODULES):
        module.unregister()
