"""A job as the artist's Blender knows it: what was asked, for which scene, how far it is, how it ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import bpy
import numpy as np

from ..wire.capture import read_capture
from ..wire.errors import UserError
from ..wire.settings import JobSettings

#: States in which a job still needs the backend or an import.
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
class Job:
    """One press of Reconstruct. `state` is one of ACTIVE, or DONE, FAILED or CANCELLED."""

    scene: SceneRef
    clip: Path
    out: Path
    settings: JobSettings
    masks: Path | None = None
    replace: bool = False
    ticket: str = ""  # given by the client once it has the job
    state: str = "WAITING"
    stage: str = ""
    fraction: float = 0.0
    eta_s: float | None = None
    queue_position: int = 0
    folder: Path | None = None
    message: str = ""  # why it failed, or what the artist must know of its end
    hint: str = ""
    announced: bool = False  # the panel has had time to say that the import comes now
    log: deque[str] = field(default_factory=lambda: deque(maxlen=500))

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def status(self) -> str:
        """One short line for the panel."""
        if self.state == "WAITING":
            return "Waiting for the backend"
        if self.state == "QUEUED":
            return f"Queued, {self.queue_position} before it" if self.queue_position > 0 else "Queued"
        if self.state == "CANCELLING":
            return "Cancelling"
        if self.state == "IMPORTING":
            return "Importing"
        return self.stage or "Starting"

    def fail(self, message: str, hint: str = "") -> None:
        self.state, self.message, self.hint = "FAILED", message, hint

    def report(self) -> str:
        """Everything that somebody who helps would ask for."""
        lines = [f"Clip: {self.clip}", f"Output: {self.out}", f"Engine: {self.settings.engine}", f"State: {self.state}"]
        lines += [f"Stage: {self.stage} ({self.fraction:.0%})"] if self.stage else []
        lines += [f"Message: {self.message}"] if self.message else []
        lines += [f"Hint: {self.hint}"] if self.hint else []
        return "\n".join([*lines, f"Settings: {self.settings.canonical().decode()}", "Log:", *self.log])


def duration(seconds: float) -> str:
    """'40 s', '3 min', '1 h 20 min'."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True)
class Summary:
    """What an artist wants to know of a finished capture before trusting it."""

    frames: int
    registered: int
    reprojection_error_px: float | None  # mean over the frames that have one
    solver_disagreement: float | None
    kind: str
    focal_mm: float | None  # on the sensor width of the settings, at the first frame with a camera
    focal_source: str
    engine: str
    commercial_use: bool
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Summary:
        """The summary of a capture folder. Raises UserError when it is not a whole capture."""
        capture = read_capture(folder)
        errors = [f.reprojection_error_px for f in capture.frames if f.reprojection_error_px is not None]
        sensor_mm = capture.settings.get("lens", {}).get("sensor_width_mm")
        focal_px = capture.plate_intrinsics[capture.has_camera, 0]
        focal_mm = float(focal_px[0] / capture.clip.plate_size[0] * sensor_mm) if sensor_mm and len(focal_px) else None
        return cls(
            frames=capture.frame_count,
            registered=sum(f.registered for f in capture.frames),
            reprojection_error_px=float(np.mean(errors)) if errors else None,
            solver_disagreement=capture.shot.solver_disagreement,
            kind=capture.shot.kind,
            focal_mm=focal_mm,
            focal_source=capture.shot.focal_source,
            engine=capture.engine.name,
            commercial_use=capture.engine.commercial_use,
            warnings=capture.shot.warnings,
        )


def job_of(scene: bpy.types.Scene) -> Job:
    """What the settings of a scene ask for. Raises UserError when something that it needs is missing."""
    settings = scene.kinora
    clip, masks = settings.source(), settings.masks()
    out = settings.output()
    if out is None:
        raise UserError("There is no output folder", "choose one")
    return Job(SceneRef.of(scene), clip, out, settings.job_settings(), masks, settings.replace)
