"""Steps: long work on Blender's data as a generator of small pieces, so that no window waits for it.

Whoever runs steps may do something else between two of them, and may give them up at any time. What only computes goes
to a thread (`in_thread`); what touches bpy stays in the thread that runs the steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterable
from functools import cache
from typing import NamedTuple, TypeVar

import bpy
import numpy as np

from ..wire.errors import Cancelled

Result = TypeVar("Result")
Progress = Callable[[str, float], None]


class Step(NamedTuple):
    """How far the work is. `waiting`: nothing was done, since a thread is not ready; come back in a moment.

    The step after a waiting one makes nothing either: it only looks whether the thread is ready.
    """

    stage: str
    fraction: float
    waiting: bool = False


Steps = Generator[Step, None, Result]


def finish(steps: Steps[Result], progress: Progress = lambda stage, fraction: None) -> Result:
    """Run steps to their end and return what comes of them. `progress` may raise to give them up."""
    try:
        while True:
            step = next(steps)
            progress(step.stage, step.fraction)
            if step.waiting:
                time.sleep(0.002)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()


def in_thread(
    stage: str, span: tuple[float, float], work: Callable[[Callable[[float], None]], Result]
) -> Steps[Result]:
    """Steps that wait for `work(progress)` in a thread: numbers only, no bpy. Its progress fills the `span`.

    Given up, the work ends at its next call of `progress`.
    """
    reached, abandoned = [0.0], threading.Event()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def progress(fraction: float) -> None:
        if abandoned.is_set():
            raise Cancelled("Cancelled")
        reached[0] = fraction

    def run() -> None:
        try:
            outcome.append(work(progress))
        except BaseException as error:  # raised again where the steps are run
            failure.append(error)

    yield Step(stage, span[0])
    thread = threading.Thread(target=run, name="kinora-numbers", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            yield Step(stage, span[0] + (span[1] - span[0]) * reached[0], waiting=True)
            thread.join(0.0)
    finally:
        abandoned.set()
    yield Step(stage, span[1])
    if failure:
        raise failure[0]
    return outcome[0]


def all_or_nothing(steps: Steps[Result]) -> Steps[Result]:
    """The same steps; given up or ended by an exception, every datablock that one of them made is removed again.

    What anybody else makes between two steps stays: Blender numbers its datablocks in the order they are made.
    """
    made: set[int] = set()
    waiting = False
    try:
        while True:
            before = None if waiting else _newest()
            try:
                step = next(steps)
            finally:
                if before is not None:
                    made.update(range(before + 1, _newest() + 1))
            waiting = step.waiting
            yield step
    except StopIteration as end:
        return end.value
    except BaseException:
        before = _newest()
        steps.close()
        made.update(range(before + 1, _newest() + 1))
        _remove(made)
        raise


def remove_all(datablocks: Iterable[bpy.types.ID]) -> None:
    """Remove datablocks, of which some may be gone already: Blender's own `batch_remove` crashes on those."""
    bpy.data.batch_remove([d for d in datablocks if _alive(d)])


def _alive(datablock: bpy.types.ID) -> bool:
    try:
        return bool(datablock.name_full)
    except ReferenceError:
        return False


def sweep() -> None:
    """Remove again what was given up earlier and an undo or redo has brought back."""
    if _given_up:
        _remove(_given_up)


#: Numbers of the datablocks of all work that was given up; Blender gives none of them to anything else.
_given_up: set[int] = set()


def _remove(made: set[int]) -> None:
    """Remove the datablocks with these numbers, but for node groups that somebody else has begun to use."""
    _given_up.update(made)
    users = bpy.data.user_map()
    doomed = {d for d in users if d.session_uid in made}
    while shared := {d for d in doomed if isinstance(d, bpy.types.NodeTree) and users[d] - doomed}:
        doomed -= shared
    bpy.data.batch_remove(doomed)


def _newest() -> int:
    """The highest number that a datablock of this file has."""
    newest = 0
    for kind in _kinds():
        datablocks = getattr(bpy.data, kind)
        if len(datablocks):
            numbers = np.empty(len(datablocks), np.int32)
            datablocks.foreach_get("session_uid", numbers)
            newest = max(newest, int(numbers.max()))
    return newest


@cache
def _kinds() -> list[str]:
    """Names of the collections of `bpy.data`."""
    return [kind.identifier for kind in bpy.data.bl_rna.properties if kind.type == "COLLECTION"]
