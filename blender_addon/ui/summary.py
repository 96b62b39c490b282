"""A summary of a capture: the figures that an artist judges a solve by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..wire.capture import read_capture


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
