"""What an artist changed about an imported camera: smoothing, frames switched off, the sensor.

The capture stays the source of truth: the edits are parameters on the camera, and its keys are made from the capture
again whenever they change, so that nothing adds up and everything can be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError
from .camera import SCENE_FRAMES, key_path, settle
from .camera_path import camera_path
from .imported import Imported
from .keys import keyed
from .markers import has_markers, show_markers
from .smoothing import Smoothing, smooth
from .solve_quality import SolveQuality, measure

_SMOOTHING, _SWITCHED_OFF = "kinora_smoothing", "kinora_switched_off"
#: Blender's shortest lens.
_LEAST_LENS_MM = 1.0


@dataclass(frozen=True)
class CameraEdits:
    """Smoothing, and the frames of the capture, from 0, that get no keys."""

    smoothing: Smoothing = Smoothing()  # noqa: RUF009, it is frozen
    switched_off: frozenset[int] = frozenset()

    @classmethod
    def read(cls, camera: bpy.types.Object) -> CameraEdits:
        """The edits of a camera; none when it was never edited."""
        return cls(Smoothing(*map(float, camera.get(_SMOOTHING, ()))), frozenset(camera.get(_SWITCHED_OFF, ())))

    def write(self, camera: bpy.types.Object) -> None:
        """Keep the edits on the camera, which does not change its keys."""
        strengths = [self.smoothing.location, self.smoothing.rotation, self.smoothing.lens]
        for name, values in ((_SMOOTHING, strengths if any(strengths) else []), (_SWITCHED_OFF, self.switched_off)):
            camera.pop(name, None)
            if values:
                camera[name] = list(values) if name == _SMOOTHING else sorted(values)


def apply_edits(camera: bpy.types.Object, capture: Capture, edits: CameraEdits) -> None:
    """Key the camera from the capture, edited; without edits exactly as it was imported.

    Keys that were changed by hand are replaced. Raises UserError when no key would be left, or when the camera cannot
    be edited or was not made from this capture; nothing has changed then.
    """
    if not camera.is_editable or not camera.data.is_editable:
        raise UserError(f"{camera.name} is linked from another file", "make it local first")
    scene_frames = np.array(camera.get(SCENE_FRAMES, ()))
    if len(scene_frames) != capture.frame_count:
        raise UserError(
            f"{camera.name} was not made from the capture {capture.folder.name} as it is now", "import it again"
        )
    left_out = np.isin(np.arange(capture.frame_count), list(edits.switched_off))
    if not (capture.has_camera & ~left_out).any():
        raise UserError("No frame would have a camera", "leave at least one frame switched on")
    path = camera_path(capture, scene_frames, camera.data.sensor_width, left_out)
    key_path(camera, smooth(path, edits.smoothing))
    edits.write(camera)


def edit_camera(imported: Imported, capture: Capture, edits: CameraEdits, scene: bpy.types.Scene) -> SolveQuality:
    """`apply_edits` to the camera of an import, shown at the scene's frame, and what that does to its error."""
    camera = imported.camera
    apply_edits(camera, capture, edits)
    settle(camera, scene.frame_current)
    quality = measure(camera, imported.root, capture)
    quality.write(camera)
    return quality


def renew_camera(imported: Imported, capture: Capture, scene: bpy.types.Scene) -> None:
    """After an update of the capture: key the camera from it with the edits and the sensor that the artist chose.

    Frames that are off stay off where the new capture still has others.
    """
    edits = CameraEdits.read(imported.camera)
    edits = replace(edits, switched_off=edits.switched_off & set(range(capture.frame_count)))
    if not set(np.flatnonzero(capture.has_camera)) - edits.switched_off:
        edits = replace(edits, switched_off=frozenset())
    quality = edit_camera(imported, capture, edits, scene)
    if has_markers(scene, imported.root):
        show_markers(scene, imported.root, quality)


def switch_frames(edits: CameraEdits, frames: Iterable[int], on: bool) -> CameraEdits:
    """The edits with these frames of the capture switched on or off."""
    chosen = frozenset(int(f) for f in frames)
    return replace(edits, switched_off=edits.switched_off - chosen if on else edits.switched_off | chosen)


def set_sensor(camera: bpy.types.Object, width_mm: float, height_mm: float) -> None:
    """Give the camera another sensor and scale its lens with it, keys too: it sees exactly what it saw.

    Raises UserError when Blender has no lens that short.
    """
    data = camera.data
    if not data.is_editable:
        raise UserError(f"{camera.name} is linked from another file", "make it local first")
    ratio = width_mm / data.sensor_width
    curves = keyed(data, "lens")
    lenses = [data.lens, *(point.co.y for curve in curves for point in curve.keyframe_points)]
    if min(lenses) * ratio < _LEAST_LENS_MM:
        raise UserError(
            f"On a sensor {width_mm:g} mm wide the lens would be {min(lenses) * ratio:.2f} mm, and Blender's shortest "
            f"is {_LEAST_LENS_MM:g} mm",
            "choose a wider sensor",
        )
    data.sensor_width, data.sensor_height = width_mm, height_mm
    data.lens *= ratio
    for curve in curves:
        points = np.empty(len(curve.keyframe_points) * 2, np.float32)
        for part in ("co", "handle_left", "handle_right"):
            curve.keyframe_points.foreach_get(part, points)
            points[1::2] *= ratio
            curve.keyframe_points.foreach_set(part, points)
        curve.update()
