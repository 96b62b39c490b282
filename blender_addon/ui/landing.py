"""Landing: the capture of a finished job is imported into its scene, a little of it at every pump."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import bpy

from ..scene.imported import import_of
from ..scene.live import give_way
from ..scene.options import ImportOptions
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
        """Go on importing the capture of a job that is IMPORTING, while the artist's hands are off its scene."""
        if not hands_off(scene):
            return
        try:
            if not self._landed(job, scene):
                return
        except UserError as error:
            job.message, job.hint = error.message, error.hint
        except Exception as error:
            log.exception("import failed")
            job.message, job.hint = f"The import failed: {error}", "see the system console"
        self._arrival = None
        job.state = "DONE"
        push_undo("Import Kinora Capture")

    def leave(self) -> None:
        """Stop importing; nothing of it stays."""
        if self._arrival is not None:
            self._arrival.give_up()
            self._arrival = None

    def _landed(self, job: Reconstruction, scene: bpy.types.Scene) -> bool:
        if self._arrival is None:
            options = read_group(ImportOptions, scene.kinora.import_options)
            plate = str(job.clip) if job.clip.is_absolute() else ""
            options = replace(options, plate_path=options.plate_path or plate)
            self._arrival = Arrival(job.folder, job.scene, options)
        collection = self._arrival.work(self.seconds)
        job.stage_fraction = self._arrival.fraction
        if collection is None:
            return False
        give_way(import_of(collection, scene), job.folder, self._arrival.found)
        if self._arrival.options.set_scene:
            look_through_camera(scene)
        return True
