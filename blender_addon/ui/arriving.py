"""A capture that arrives: imported between redraws, a few milliseconds at a time, whole or not at all.

Whatever replaces the file's data under it, or writes it down half done, makes it start over: undo, loading, saving.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import bpy

from ..scene.imported import imported_in
from ..scene.steps import Steps, sweep
from ..wire.errors import UserError
from .reconstruction import SceneRef

log = logging.getLogger(__name__)

_STARTS = 5  # it is begun so often before it is an error that its data vanish

_under_way: weakref.WeakSet[Arrival] = weakref.WeakSet()


class Arrival:
    """One import under way. Keep it, call `work` until it returns what came; or `give_up`, and nothing stays.

    `begin(scene)` gives its steps, each time that it starts; `folder` is that of the capture.
    """

    def __init__(self, folder: Path, scene: SceneRef, begin: Callable[[bpy.types.Scene], Steps[bpy.types.ID]]) -> None:
        self.folder, self.scene, self._begin = folder, scene, begin
        self.fraction = 0.0
        self.found: frozenset[int] = frozenset()  # roots of the imports that were there before
        self._steps: Steps[bpy.types.ID] | None = None
        self._starts = 0
        _under_way.add(self)

    def work(self, seconds: float) -> bpy.types.ID | None:
        """Go on for about so long, a step at least; the collection or object once it is done, None before.

        Raises UserError when it cannot be imported.
        """
        end = time.perf_counter() + seconds
        if self._steps is None:
            scene = self.scene.find()
            if scene is None:
                raise UserError("The scene is not open", f"import the capture from {self.folder}")
            self._starts += 1
            self.found = frozenset(imported.root.session_uid for imported in imported_in(scene))
            self._steps = self._begin(scene)
        try:
            while True:
                step = next(self._steps)
                self.fraction = step.fraction
                if step.waiting or time.perf_counter() >= end:
                    break
        except StopIteration as done:
            self._steps = None
            return done.value
        except ReferenceError:  # someone removed what was built, as Purge does
            self._steps = None
            if self._starts >= _STARTS:
                raise
            log.info("the import of %s starts over", self.folder.name)
        except BaseException:
            self._steps = None
            raise
        return None

    def give_up(self) -> None:
        """Remove what was built so far; `work` would start over."""
        steps, self._steps = self._steps, None
        self.fraction = 0.0
        if steps is not None:
            steps.close()


@bpy.app.handlers.persistent
def _upheaval(*_) -> None:
    for arrival in list(_under_way):
        arrival.give_up()


@bpy.app.handlers.persistent
def _sweep(*_) -> None:
    """A step of undo that was made while something was half built has it in it."""
    sweep()


_HANDLERS = {_upheaval: ("undo_pre", "redo_pre", "load_pre", "save_pre"), _sweep: ("undo_post", "redo_post")}


def register() -> None:
    for handler, names in _HANDLERS.items():
        for name in names:
            getattr(bpy.app.handlers, name).append(handler)


def unregister() -> None:
    for handler, names in _HANDLERS.items():
        for name in names:
            getattr(bpy.app.handlers, name).remove(handler)
    _upheaval()
