"""Changes to the artist's datablocks that are all made or all taken back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bpy


class Changes:
    """A context that undoes every change in reverse when it ends with an exception, else does what was left for last.

    What cannot be undone (removing) is given to `last`, and must not fail.
    """

    def __init__(self) -> None:
        self._opposites: list[Callable[[], Any]] = []
        self._last: list[Callable[[], Any]] = []

    def __enter__(self) -> Changes:
        return self

    def __exit__(self, kind: type | None, *exc: object) -> None:
        if kind is None:
            for action in self._last:
                action()
        else:
            for opposite in reversed(self._opposites):
                opposite()

    def do(self, action: Callable[[], Any], opposite: Callable[[], Any]) -> Any:
        """Do something that `opposite` takes back; returns what the action returns."""
        self._opposites.append(opposite)
        return action()

    def last(self, action: Callable[[], Any]) -> None:
        """Do something once everything else has been done."""
        self._last.append(action)

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Assign a property of a datablock or of a part of one, if it is another value than now."""
        old = frozen(getattr(owner, name))
        if old != frozen(value):
            self.do(lambda: setattr(owner, name, value), lambda: setattr(owner, name, old))

    def item(self, datablock: bpy.types.ID, key: str, value: Any) -> None:
        """Assign a custom property."""
        old, new = own(datablock.get(key)), own(value)
        if old != new:
            self.do(lambda: put(datablock, key, new), lambda: put(datablock, key, old))

    def keep_items(self, datablock: bpy.types.ID) -> None:
        """Take back what others do to the custom properties that a datablock has now."""
        for key in list(datablock.keys()):
            old = own(datablock[key])
            self.do(lambda: None, lambda key=key, old=old: put(datablock, key, old))


def put(datablock: bpy.types.ID, key: str, value: Any) -> None:
    """Write a custom property, whatever type it had; None takes it away."""
    datablock.pop(key, None)  # an array of another length is not written over
    if value is not None:
        datablock[key] = value


def own(value: Any) -> Any:
    """A custom property's value that does not follow its datablock."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return value.to_list() if hasattr(value, "to_list") else value


def frozen(value: Any) -> Any:
    """A value that does not follow its owner: vectors and arrays of Blender are views."""
    if isinstance(value, str | bytes | bpy.types.bpy_struct) or not hasattr(value, "__len__"):
        return value
    return tuple(frozen(v) for v in value)
