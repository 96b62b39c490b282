"""A reconstruction as the artist's Blender knows it: what was asked, for which scene, how far it is, how it ended."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import bpy

from ..scene.plates import PlateOptions
from ..wire.errors import UserError
from ..wire.settings import JobSettings
from .properties import existing

#: The task that localises a plate, by its name in the settings.
LOCALISE = "localise"
#: States in which a reconstruction still needs the backend or an import.
ACTIVE = ("WAITING", "QUEUED", "RUNNING", "CANCELLING", "IMPORTING")


@dataclass(frozen=True)
class SceneRef:
    """A scene that can be found again after undo, renaming and reloading its file, without holding on to it."""

    uid: int
    name: str
    blend: str

    @classmethod
    def of(cls, scene: bpy.types.Scene) -> SceneRef:
        return cls(scene.session_uid, scene.name, bpy.data.filepath)

    def find(self) -> bpy.types.Scene | None:
        """The scene, or None when it was deleted or another file is open."""
        for scene in bpy.data.scenes:
            if scene.session_uid == self.uid:
                return scene
        if self.blend and bpy.data.filepath == self.blend:  # the same file, opened again
            return bpy.data.scenes.get(self.name)
        return None


@dataclass
class Reconstruction:
    """One press of Reconstruct, or a job of the backend that is followed from here (`settings` None: not known here).

    `state` is one of ACTIVE, or AWAY (it goes on at a backend that was left), DONE, FAILED or CANCELLED.
    """

    scene: SceneRef
    clip: Path
    out: Path
    settings: JobSettings | None
    masks: Path | None = None
    replace: bool = False
    import_when_done: bool | None = None  # None: as the scene says then
    onto: int = 0  # session_uid of the root that a localised plate belongs to; 0: found by what it was localised in
    plate: PlateOptions = PlateOptions()  # noqa: RUF009, it is frozen
    uid: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    ticket: str = ""  # given by the client once it has the job
    server_job: str = ""  # the backend's id, once it has the job
    backend: str = ""  # its public key
    state: str = "WAITING"
    stage: str = ""
    stage_fraction: float = 0.0
    fraction: float = 0.0
    eta_s: float | None = None
    where: str = ""  # device and machine that it runs on
    transfer: str = ""  # how much of what has been sent or fetched, and how fast
    queue_position: int = 0
    asked: float = field(default_factory=time.time)
    folder: Path | None = None
    kept: str = ""  # what is left of one that ended without a capture
    message: str = ""  # why it failed, or what the artist must know of its end
    hint: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def localises(self) -> bool:
        """It puts a plate into the world of an earlier capture."""
        return self.settings is not None and self.settings.engine == LOCALISE

    @property
    def notice(self) -> str:
        """What was tried again, or what the artist was warned of, last, while it is under way; '' for nothing."""
        said = (line.partition(": ") for line in reversed(self.log))
        return next((text for level, _, text in said if level in ("retry", "warning")), "") if self.active else ""

    def same_work(self, other: Reconstruction) -> bool:
        """Whether another job asks for the very same."""
        mine, theirs = ((job.clip, job.masks, job.settings) for job in (self, other))
        return mine == theirs and self.settings is not None

    @property
    def stoppable(self) -> bool:
        """It can be cancelled, and was not yet."""
        return self.state in {"WAITING", "QUEUED", "RUNNING", "IMPORTING"}

    @property
    def status(self) -> str:
        """One short line for the panel."""
        if self.state == "WAITING":
            return "Waiting for the backend"
        if self.state == "QUEUED":
            return f"Queued, {self.queue_position} before it" if self.queue_position > 0 else "Queued"
        if self.state == "CANCELLING":
            return "Cancelling"
        if self.state == "AWAY":
            return "Goes on at the backend"
        if self.state == "IMPORTING":
            return f"Importing, {self.stage_fraction:.0%}"
        return f"{self.stage}, {self.stage_fraction:.0%}" if self.stage else "Starting"

    def fail(self, message: str, hint: str = "") -> None:
        self.state, self.message, self.hint = "FAILED", message, hint

    def leave(self, message: str, hint: str) -> None:
        """The backend was left or is gone: what it has goes on there, what was not sent has failed."""
        if self.server_job:
            self.state = "AWAY"
        else:
            self.fail(message, hint)

    def follow(self) -> None:
        """Wait to be followed again."""
        self.state, self.ticket, self.message, self.hint = "WAITING", "", "", ""

    def report(self) -> str:
        """Everything that somebody who helps would ask for."""
        lines = [f"Clip: {self.clip}", f"Output: {self.out}", f"State: {self.state}"]
        lines += [f"Job: {self.server_job}"] if self.server_job else []
        lines += [f"Engine: {self.settings.engine}"] if self.settings else []
        lines += [f"Stage: {self.stage} ({self.fraction:.0%})"] if self.stage else []
        lines += [f"Message: {self.message}"] if self.message else []
        lines += [f"Hint: {self.hint}"] if self.hint else []
        lines += [f"Settings: {self.settings.canonical().decode()}"] if self.settings else []
        return "\n".join([*lines, "Log:", *self.log])


def reconstruction_of(scene: bpy.types.Scene, clip: Path | None = None, taken: Collection[Path] = ()) -> Reconstruction:
    """What the settings of a scene ask for, of its clip or of another one; `taken` are folders of other jobs.

    Raises UserError when something that it needs is missing.
    """
    settings = scene.kinora
    source = settings.source() if clip is None else existing(clip.absolute())
    out = settings.output(clip and source, taken)
    if out is None:
        raise UserError("There is no output folder", "choose one")
    masks = settings.masks()
    return Reconstruction(SceneRef.of(scene), source, out, settings.job_settings(), masks, settings.replace)
