"""How well the imported camera sees the solved tracks: the reprojection error of the import, frame by frame.

The tracks' points go through Blender's own evaluated camera, so this is the error of what the artist has, after
smoothing and edits, and not only that of the solve.
"""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from ..wire.capture import Capture
from .camera import SCENE_FRAMES, disagreement_px, plate_framing, projections, to_plate
from .keys import key, unkey

#: Mean distance in plate pixels above which a frame, or a shot, is shown in red.
ALERT_PX = 0.5
#: What the solver said of a frame; frames hold indices into this, and the higher one counts.
FLAGS = ("", "Low Confidence", "Interpolated", "No Camera")
#: The custom property of the camera that is keyed with the error of every frame, for the Graph Editor.
CURVE = "Reprojection Error"

_RECORD = "kinora_solve"


@dataclass(frozen=True)
class SolveQuality:
    """Of T frames of a capture: `scene_frames` and `flags` (T,) int, `mean_px` and `median_px` (T,) plate pixels.

    The errors are NaN where no track was seen, and `error_px` and `median_error_px`, over all `observations`, where the
    capture has no tracks. `deviation_px` is how far the camera is from the capture's own at most, in plate pixels.
    """

    scene_frames: np.ndarray
    flags: np.ndarray
    mean_px: np.ndarray
    median_px: np.ndarray
    error_px: float
    median_error_px: float
    observations: int
    deviation_px: float

    @property
    def measured(self) -> bool:
        """Whether the capture has tracks to measure with."""
        return self.observations > 0

    def index(self, scene_frame: float) -> int | None:
        """Which frame of the capture is seen at a scene frame: the last one begun; None before the first."""
        index = int(np.searchsorted(self.scene_frames, scene_frame, side="right")) - 1
        return index if index >= 0 else None

    def write(self, camera: bpy.types.Object) -> None:
        """Keep this on the camera, and key the error of every frame there."""
        camera[_RECORD] = {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()
        }
        seen = np.isfinite(self.mean_px)
        if not seen.any():
            unkey(camera, f'["{CURVE}"]')
            camera.pop(CURVE, None)
            return
        camera[CURVE] = float(self.mean_px[seen][0])
        about = "Mean distance between the tracks and where this camera sees their points, in pixels of the plate"
        camera.id_properties_ui(CURVE).update(description=about, min=0.0, precision=3)
        key(camera, None, f'["{CURVE}"]', self.scene_frames[seen], self.mean_px[seen])

    @classmethod
    def read(cls, camera: bpy.types.Object) -> SolveQuality | None:
        """What was measured last, or None."""
        record = camera.get(_RECORD)
        if record is None or not cls.__dataclass_fields__.keys() <= set(record.keys()):
            return None
        values = {name: record[name] for name in cls.__dataclass_fields__}
        return cls(**{k: np.array(v) if hasattr(v, "to_list") else v for k, v in values.items()})


def measure(camera: bpy.types.Object, root: bpy.types.Object, capture: Capture) -> SolveQuality:
    """Measure the camera as it is now, at every frame, without a change to the artist's scene."""
    scene_frames = np.array(camera[SCENE_FRAMES])
    clip_from_capture = projections(camera, root, plate_framing(capture), scene_frames)
    return solve_quality(capture, scene_frames, clip_from_capture)


def solve_quality(capture: Capture, scene_frames: np.ndarray, clip_from_capture: np.ndarray) -> SolveQuality:
    """The same through known (T, 4, 4) `projections` for the plate's framing; frames where those are NaN are left out.

    A point behind the camera is as wrong as the plate is wide.
    """
    frame_errors = _errors(capture, clip_from_capture)
    all_errors = np.concatenate(frame_errors)
    return SolveQuality(
        scene_frames=np.asarray(scene_frames),
        flags=solver_flags(capture),
        mean_px=np.array([e.mean() if e.size else np.nan for e in frame_errors]),
        median_px=np.array([np.median(e) if e.size else np.nan for e in frame_errors]),
        error_px=float(all_errors.mean()) if all_errors.size else float("nan"),
        median_error_px=float(np.median(all_errors)) if all_errors.size else float("nan"),
        observations=len(all_errors),
        deviation_px=disagreement_px(clip_from_capture, capture),
    )


def solver_flags(capture: Capture) -> np.ndarray:
    """(T,) index into FLAGS of what the solver said of each frame."""
    low = np.array([f.low_confidence for f in capture.frames])
    interpolated = np.array([f.interpolated for f in capture.frames])
    return np.select([~capture.has_camera, interpolated, low], [3, 2, 1], 0)


def _errors(capture: Capture, clip_from_capture: np.ndarray) -> list[np.ndarray]:
    """For each frame the distances in plate pixels of its observations."""
    tracks, size = capture.tracks, capture.clip.plate_size
    if tracks is None:
        return [np.empty(0)] * capture.frame_count
    order = np.argsort(tracks.frame, kind="stable")
    ends = np.searchsorted(tracks.frame[order], np.arange(capture.frame_count + 1))
    points = np.asarray(tracks.points_world, np.float64)
    errors = []
    for i in range(capture.frame_count):
        rows = order[ends[i] : ends[i + 1]]
        if not rows.size or not np.isfinite(clip_from_capture[i]).all():
            errors.append(np.empty(0))
            continue
        off = to_plate(clip_from_capture[i], points[tracks.point[rows]], size) - tracks.plate_xy[rows]
        errors.append(np.nan_to_num(np.hypot(*off.T), nan=float(np.hypot(*size))))
    return errors
