"""Landing: the capture of a finished job is imported into its scene, a little of it at every pump."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial

import bpy

from ..scene.build import import_steps
from ..scene.identity import job_of, remember_job
from ..scene.imported import Imported, import_of, imported_in
from ..scene.live import give_way
from ..scene.options import ImportOptions
from ..scene.plate_facts import Reference, reference_of
from ..scene.plates import plate_steps
from ..scene.steps import Steps
from ..wire.errors import UserError
from .arriving import Arrival
from .importing import hands_off, look_through_camera, push_undo
from .properties import read_group
from .reconstruction import Reconstruction

log = logging.getLogger(__name__)

IMPORT_S = 0.015  # about how long one pump imports, or, where the window itself is slow to draw,
IMPORT_SHARE, IMPORT_MOST_S = 0.25, 0.5  # such a part of the time since the last pump, and no longer than this


class Landing:
    """The one import that is under way, if any."""

    def __init__(self) -> None:
        self.seconds = IMPORT_S  # for the import of this pump
        self._arrival: Arrival | None = None
        self._reference: Reference | None = None  # what it was localised in
        self._options = ImportOptions()
        self._landed: tuple[Reconstruction, int] | None = None  # what is in its scene, but not in a step for Ctrl-Z yet
        self._rested = time.perf_counter()  # when the last pump ended

    @property
    def busy(self) -> bool:
        """An import is under way."""
        return self._arrival is not None

    def begin_pump(self) -> None:
        """Say how long this pump may import."""
        away = time.perf_counter() - self._rested
        self.seconds = min(max(IMPORT_S, IMPORT_SHARE * away), IMPORT_MOST_S)

    def end_pump(self) -> None:
        self._rested = time.perf_counter()

    def work(self, job: Reconstruction, scene: bpy.types.Scene) -> None:
        """Go on importing the capture of a job that is IMPORTING, while the artist's hands are off its scene.

        The step for Ctrl-Z takes Blender as long as all that went before in a pump: it has one of its own.
        """
        if not hands_off(scene):
            return
        if self.landed(job):
            self._settle(job)
            return
        try:
            made = self._go_on(job, scene)
            if made is not None:
                self._landed = job, made.session_uid
            return
        except UserError as error:
            job.message, job.hint = error.message, error.hint
        except Exception as error:
            log.exception("import failed")
            job.message, job.hint = f"The import failed: {error}", "see the system console"
        self._arrival = None
        job.state = "DONE"

    def landed(self, job: Reconstruction) -> bool:
        """The job's import is whole and in its scene: it cannot be given up any more."""
        return self._landed is not None and self._landed[0] is job

    def leave(self) -> None:
        """Stop importing; nothing of it stays."""
        if self._arrival is not None:
            self._arrival.give_up()
        self._arrival = self._landed = None

    def _settle(self, job: Reconstruction) -> None:
        """End the import with a step for Ctrl-Z; one that an undo has taken away since it landed starts over."""
        _, uid = self._landed
        self._arrival = self._landed = None
        if any(made.session_uid == uid for made in (*bpy.data.collections, *bpy.data.objects)):
            job.state = "DONE"
            push_undo("Localise Plate" if job.localises else "Import Kinora Capture")

    def _go_on(self, job: Reconstruction, scene: bpy.types.Scene) -> bpy.types.ID | None:
        """What the import made, once it is whole and in its scene."""
        if self._arrival is None:
            self._reference = reference_of(job.folder)
            begin = self._capture_steps if self._reference is None else self._plate_steps
            self._arrival = Arrival(job.folder, job.scene, partial(begin, job))
        made = self._arrival.work(self.seconds)
        job.stage_fraction = self._arrival.fraction
        if isinstance(made, bpy.types.Collection):
            imported = import_of(made, scene)
            remember_job(imported.root, job.server_job, job.backend)
            give_way(imported, job.folder, self._arrival.found)
            if self._options.set_scene:
                look_through_camera(scene)
        return made

    def _capture_steps(self, job: Reconstruction, scene: bpy.types.Scene) -> Steps[bpy.types.Collection]:
        options = read_group(ImportOptions, scene.kinora.import_options)
        self._options = replace(options, plate_path=options.plate_path or _footage(job))
        return import_steps(job.folder, scene, self._options)

    def _plate_steps(self, job: Reconstruction, scene: bpy.types.Scene) -> Steps[bpy.types.Object]:
        imported = owner_of(self._reference, scene, job)
        return plate_steps(job.folder, imported, scene, replace(job.plate, plate_path=_footage(job)))


def _footage(job: Reconstruction) -> str:
    """Where the footage of a job is on this computer; '' when that is not known."""
    return str(job.clip) if job.clip.is_absolute() else ""


def owner_of(reference: Reference, scene: bpy.types.Scene, job: Reconstruction) -> Imported:
    """The import of a scene that a localised plate belongs to. Raises UserError when none or several may be meant."""
    may_be = [imported for imported in imported_in(scene) if reference.may_be(imported.root)]
    for narrower in (
        [one for one in may_be if one.root.session_uid == job.onto],
        [one for one in may_be if reference.job and (job_of(one.root) or ("", ""))[0] == reference.job],
    ):
        may_be = narrower or may_be
    if len(may_be) == 1:
        return may_be[0]
    if may_be:
        raise UserError(
            f"The plate may belong to each of {len(may_be)} imports", f"select one and import {job.folder} there"
        )
    raise UserError(
        "The capture that the plate was localised in is not in this scene",
        f"import it, then use Import Plate Camera with {job.folder}",
    )
