"""A live view becomes a partial capture: its frames are written to a folder, which is imported in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import bpy

from ..wire.capture import EngineStamp
from ..wire.errors import UserError
from ..wire.partial_capture import write_partial
from ..wire.settings import ENGINES
from .build import import_steps
from .earlier import PARTIAL_MARK
from .imported import import_of, imported_in
from .live import LiveView, find_live
from .options import ImportOptions
from .steps import Step, Steps, in_thread

#: What is added to the name of the folder that the whole capture would have.
SUFFIX = "_partial"
STAGE = "Keeping what has arrived"


def keep_steps(
    ticket: str, folder: Path, scene: bpy.types.Scene, options: ImportOptions
) -> Steps[bpy.types.Collection]:
    """Write what the live view of a job shows to `folder`, and import that in the view's place, in steps.

    A folder that holds a capture already was written by these steps before they had to start over. Raises UserError
    when the view is gone, or shows nothing of which a capture could be made.
    """
    view = _found(ticket)
    if not (folder / "capture.json").is_file():
        facts, objects, frames = view.facts, view.objects_of_frames(), []
        for done, ob in enumerate(objects):
            frames.append(view.read(ob))
            yield Step(STAGE, 0.2 * (done + 1) / len(objects))
        yield from in_thread(
            STAGE,
            (0.2, 0.5),
            lambda progress: write_partial(
                frames, folder, facts.get("source", ""), _stamp(facts), facts.get("settings", {}), progress
            ),
        )
    found = {imported.root.session_uid for imported in imported_in(scene)}
    first = _found(ticket).first_frame
    collection = yield from import_steps(folder, scene, replace(options, start_frame=first))
    imported = import_of(collection, scene)
    view = find_live(ticket)
    if view is not None:  # the artist may have removed it meanwhile
        view.hand_over(imported.root, imported.camera, move=imported.root.session_uid not in found)
    if PARTIAL_MARK not in collection.name:
        collection.name += PARTIAL_MARK
    return collection


def _found(ticket: str) -> LiveView:
    view = find_live(ticket)
    if view is None:
        raise UserError("The live view is gone", "nothing was kept of it")
    return view


def _stamp(facts: dict) -> EngineStamp:
    """What is known of the engine on this side; that it may be used commercially only where that is known."""
    engine = ENGINES.get(facts.get("engine", ""))
    if engine is None:
        return EngineStamp(facts.get("engine", "") or "unknown", "", "unknown", commercial_use=False)
    return EngineStamp(engine.name, "", engine.licence, engine.commercial_use)
