"""What a localised plate says of itself: which capture it was localised in, and how sure each of its frames is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..wire.bundle import IMAGE_SUFFIXES
from ..wire.capture import Capture, read_metadata
from ..wire.errors import UserError
from ..wire.messages import safe_name
from .identity import CLIP, IDENTITY, job_of

#: The entry of a capture's shot details that a plate has which was localised, and where a plate camera keeps it.
LOCALISED, RECORD = "localised", "kinora_localised"

#: What a folder of images is called at a backend that it was sent to.
UNNAMED = "clip"

#: What reading what another program wrote may raise.
ODD = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class PlateFacts:
    """What is known of a plate camera.

    Of T frames: `scene_frames`, whether it was `found` there (a camera between two that were is not), by how many
    `inliers`, and their `error_px` on the plate.
    `identity` is that of the capture which the import showed then.
    """

    source: str
    identity: str
    matcher: str
    scene_frames: np.ndarray
    found: np.ndarray
    inliers: np.ndarray
    error_px: np.ndarray
    notes: tuple[str, ...]

    def index(self, scene_frame: float) -> int | None:
        """Which frame of the plate is seen at a scene frame: the last one begun; None before the first."""
        index = int(np.searchsorted(self.scene_frames, scene_frame, side="right")) - 1
        return index if index >= 0 else None

    def write(self, camera: bpy.types.Object) -> None:
        """Keep this on the camera."""
        plain = {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in vars(self).items()}
        camera[RECORD] = plain | {"found": self.found.astype(int).tolist(), "notes": "\n".join(self.notes)}

    @classmethod
    def read(cls, camera: bpy.types.Object) -> PlateFacts | None:
        """What was kept, or None."""
        record = camera.get(RECORD)
        if record is None or not cls.__dataclass_fields__.keys() <= set(record.keys()):
            return None
        values = {name: record[name] for name in cls.__dataclass_fields__}
        values = {n: np.array(v) if hasattr(v, "to_list") else v for n, v in values.items()}
        notes = tuple(filter(None, values["notes"].split("\n")))
        return cls(**values | {"found": values["found"].astype(bool), "notes": notes})


@dataclass(frozen=True)
class Reference:
    """The capture that a plate was localised in: its clip, its engine, and the backend's id of its job if it has one.

    The clip is known by its name, as the wire has it: a capture that is fetched says where the clip is on the computer
    that fetched it.
    """

    clip: str
    engine: str
    job: str

    @classmethod
    def of(cls, details: Any, settings: Any) -> Reference | None:
        """By the details and settings of a capture; None for one that was not localised.

        Raises ValueError for what no plate has.
        """
        if not isinstance(details, dict) or LOCALISED not in details:
            return None
        try:
            told, how = details[LOCALISED]["reference"], settings.get("engine_settings", {})
            return cls(_wire_name(told["source"]), str(told["engine"]), str(how.get("reference", "")))
        except ODD as error:
            raise ValueError(f"what it was localised in is not told ({error})") from error

    def may_be(self, root: bpy.types.Object) -> bool:
        """Whether it is the capture that `root` shows, as far as both tell."""
        if self.job and (job_of(root) or ("", ""))[0] == self.job:
            return True
        same_clip = self.clip in (_wire_name(root.get(CLIP, "")), UNNAMED)
        return same_clip and self.engine == root.get("kinora_engine", "")


def _wire_name(source: str) -> str:
    """The name of a clip as it goes over the wire, from any system's path; an image stands for its sequence."""
    name = safe_name(re.split(r"[/\\]", str(source).rstrip("/\\"))[-1])
    image = Path(name).suffix.lower() in IMAGE_SUFFIXES
    return re.sub(r"\d+(?=\D*$)", "#", Path(name).stem) if image else name


def reference_of(folder: Path) -> Reference | None:
    """What the plate in a capture folder was localised in; None for any other capture.

    Raises UserError when it is no whole capture.
    """
    try:
        info = read_metadata(folder)
        return Reference.of(info["shot"]["details"], info["settings"])
    except (OSError, *ODD) as error:
        raise UserError(f"{folder} is not a capture ({error})", "choose the folder that holds capture.json") from error


def check_belongs(capture: Capture, root: bpy.types.Object) -> None:
    """Raise UserError unless the capture is a plate that was localised in the one that `root` shows."""
    try:
        reference = Reference.of(capture.shot.details, capture.settings)
    except ValueError as error:
        raise UserError(f"The capture {capture.folder} is damaged: {error}", "localise the plate again") from error
    if reference is None:
        raise UserError(
            f"{capture.folder.name} is no plate that was localised in a capture", "use Import Kinora Capture for it"
        )
    if not capture.has_camera.any():
        raise UserError(f"The plate {capture.clip.source} was found in no frame", "localise it again with a hint")
    if not reference.may_be(root):
        raise UserError(
            f"{capture.folder.name} was localised in a capture of {reference.clip} by {reference.engine}, "
            f"and {root.name} is another one",
            "select an object of that capture, or localise the plate in this one",
        )


def in_another_capture(capture: Capture, root: bpy.types.Object) -> bool:
    """Whether a plate was localised in the result of another job than the one that `root` shows."""
    reference, made_by = Reference.of(capture.shot.details, capture.settings), job_of(root)
    return bool(reference and reference.job and made_by and made_by[0] != reference.job)


def facts_of(capture: Capture, scene_frames: np.ndarray, root: bpy.types.Object, notes: list[str]) -> PlateFacts:
    """What is known of a plate whose (T,) frames are seen at `scene_frames`. Raises UserError when it is damaged."""
    about: dict[str, Any] = capture.shot.details[LOCALISED]
    try:
        frames = {int(frame["frame"]): frame for frame in about.get("frames", ())}
        told = [frames.get(i, {}) for i in range(capture.frame_count)]
        inliers = np.array([int(frame.get("inliers") or 0) for frame in told])
        errors = [frame.get("error_px") for frame in told]
        error_px = np.array([np.nan if error is None else float(error) for error in errors])
    except (*ODD, OverflowError) as error:
        raise UserError(f"The capture {capture.folder} is damaged ({error})", "localise the plate again") from error
    return PlateFacts(
        source=capture.clip.source,
        identity=root.get(IDENTITY, ""),
        matcher=str(about.get("matcher", "")),
        scene_frames=scene_frames,
        found=np.array([frame.registered for frame in capture.frames]),
        inliers=inliers,
        error_px=error_px,
        notes=tuple(notes),
    )
