"""What an import found: kept as custom properties on the collection and its root, for artists and farms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import bpy

from ..wire.capture import Capture


@dataclass(frozen=True)
class ImportReport:
    """Facts of one import. Frames are scene frames; `notes` are sentences about what is missing or uncertain."""

    folder: str
    engine: str
    engine_version: str
    licence: str
    commercial_use: bool
    metric: bool
    shot: str
    points: int
    frames_without_camera: tuple[int, ...]
    max_camera_error_px: float
    notes: tuple[str, ...]

    def write(self, *datablocks: bpy.types.ID) -> None:
        """Store every field as a custom property `kinora_...`."""
        for datablock in datablocks:
            for name, value in vars(self).items():
                datablock[f"kinora_{name}"] = _plain(name, value)

    @classmethod
    def read(cls, datablock: bpy.types.ID) -> ImportReport:
        """The report of an imported collection or its root. Raises KeyError when it is not one."""
        values = {name: datablock[f"kinora_{name}"] for name in cls.__dataclass_fields__}
        for name in ("metric", "commercial_use"):
            values[name] = bool(values[name])
        frames, notes = values["frames_without_camera"], values["notes"]
        return cls(
            **values
            | {
                "frames_without_camera": tuple(int(f) for f in frames.split(",") if f.strip()),
                "notes": tuple(notes.split("\n")) if notes else (),
            }
        )


def _plain(name: str, value: Any) -> Any:
    if name == "notes":
        return "\n".join(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value


def capture_notes(capture: Capture, frames_without_camera: Iterable[int], points: int) -> list[str]:
    """What an artist must know before trusting this capture."""
    notes = list(capture.shot.warnings)
    missing = list(frames_without_camera)
    if missing:
        notes.append(
            f"{len(missing)} of {capture.frame_count} frames have no camera and no points; the camera moves straight "
            f"across them (scene frame {', '.join(map(str, missing[:10]))}{' ...' if len(missing) > 10 else ''})"
        )
    interpolated = sum(f.interpolated for f in capture.frames)
    if interpolated:
        notes.append(f"{interpolated} of {capture.frame_count} cameras are interpolated from their neighbours")
    if not points:
        notes.append("The capture has no depth, so there are no points")
    if not capture.engine.commercial_use:
        notes.append(f"Made with {capture.engine.name} under {capture.engine.licence}: not for commercial use")
    elif capture.scale and not all(weights.get("commercial_use") for weights in capture.scale.weights):
        notes.append(f"Its scale was measured with weights of {capture.scale.source}: not for commercial use")
    return notes
