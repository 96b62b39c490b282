"""Rescues: live views of jobs that ended without a capture become partial captures, a little at every pump."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import bpy

from ..scene.earlier import PARTIAL_OF
from ..scene.imported import import_of, imported_in
from ..scene.live import FOLDER, LiveView, find_live
from ..scene.live_capture import SUFFIX, keep_steps
from ..scene.options import ImportOptions
from ..scene.steps import Steps
from ..wire.errors import UserError
from .arriving import Arrival
from .importing import hands_off, look_through_camera, push_undo
from .properties import free_folder, read_group
from .reconstruction import Reconstruction, SceneRef

log = logging.getLogger(__name__)

#: Fewer frames are not kept unasked.
LEAST = 2


@dataclass
class Rescue:
    """One view that is being kept. `kept(frames, folder)` and `failed(error)` are told what came of it."""

    ticket: str
    folder: Path
    scene: SceneRef
    kept: Callable[[int, Path], None]
    failed: Callable[[UserError], None]
    arrival: Arrival = field(init=False)
    options: ImportOptions = field(init=False)

    def __post_init__(self) -> None:
        self.arrival = Arrival(self.folder, self.scene, self._begin)

    def _begin(self, scene: bpy.types.Scene) -> Steps[bpy.types.ID]:
        options = read_group(ImportOptions, scene.kinora.import_options)
        whole = any(not imported.root.get(PARTIAL_OF) for imported in imported_in(scene))
        view = find_live(self.ticket)
        source = view.facts.get("source", "") if view is not None else ""
        self.options = replace(
            options,
            set_scene=options.set_scene and not whole,  # the scene is about that one
            plate_path=options.plate_path or (source if Path(source).is_absolute() else ""),
        )
        return keep_steps(self.ticket, self.folder, scene, self.options)


class Rescues:
    """The views that are being kept, one after the other."""

    def __init__(self) -> None:
        self.problem = ""  # why the last one could not be kept that no job speaks for
        self._waiting: deque[Rescue] = deque()

    @property
    def busy(self) -> bool:
        """One is under way."""
        return bool(self._waiting)

    @property
    def fraction(self) -> float:
        """How far the first one is."""
        return self._waiting[0].arrival.fraction if self._waiting else 0.0

    def begin_for(self, job: Reconstruction, scene: bpy.types.Scene) -> None:
        """Keep what has arrived of a job that ended, when the artist wants that and it is worth it."""
        view = find_live(job.ticket)
        if view is None or not scene.kinora.live_keep or len(view.shown) < LEAST:
            return

        def kept(frames: int, folder: Path) -> None:
            job.folder, job.kept = folder, f"{frames} frames were kept"
            if job.scene.find() is not None and not job.scene.find().kinora.capture_path:
                job.scene.find().kinora.capture_path = str(folder)

        def failed(error: UserError) -> None:
            if not job.message:
                job.message, job.hint = error.message, error.hint

        self.begin(view, scene, kept, failed)

    def begin(
        self,
        view: LiveView,
        scene: bpy.types.Scene,
        kept: Callable[[int, Path], None] = lambda frames, folder: None,
        failed: Callable[[UserError], None] | None = None,
    ) -> None:
        """Keep a view, unless it is being kept. Raises UserError when it does not know where."""
        if any(rescue.ticket == view.ticket for rescue in self._waiting):
            return
        whole = view.collection.get(FOLDER, "")
        if not whole:
            raise UserError(f"{view.collection.name} does not know a folder for a capture", "reconstruct it again")
        taken = [rescue.folder for rescue in self._waiting]
        folder = free_folder(Path(whole).with_name(Path(whole).name + SUFFIX), taken, replace=False)
        self.problem = ""
        self._waiting.append(Rescue(view.ticket, folder, SceneRef.of(scene), kept, failed or self._say))

    def work(self, seconds: float) -> None:
        """Go on with the first one for about so long, while the artist's hands are off its scene."""
        if not self._waiting:
            return
        rescue = self._waiting[0]
        scene = rescue.scene.find()
        if scene is not None and not hands_off(scene):
            return
        try:
            made = rescue.arrival.work(seconds)
            if made is None:
                return
            frames = import_of(made, scene).capture().frame_count
            if rescue.options.set_scene:
                look_through_camera(scene)
            push_undo("Keep What Has Arrived")
            rescue.kept(frames, rescue.folder)
        except UserError as error:
            rescue.failed(error)
        except Exception as error:
            log.exception("a live view could not be kept")
            rescue.failed(UserError(f"What has arrived could not be kept ({error})", "see the system console"))
        self._waiting.popleft()

    def leave(self) -> None:
        """Stop; nothing half built stays."""
        for rescue in self._waiting:
            rescue.arrival.give_up()
        self._waiting.clear()

    def _say(self, error: UserError) -> None:
        self.problem = str(error)
