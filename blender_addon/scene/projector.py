"""The plate on objects of the artist's: as the camera sees them at every frame, or for good from where it stands."""

from __future__ import annotations

from collections.abc import Iterable

import bpy
import numpy as np

from ..wire.errors import UserError
from .belongings import pictures
from .images import Timing
from .imported import PROJECTED, Imported, mark
from .projection import projection_material, show_when
from .stored import inputs_of, start_frame

#: The role of a camera that stays where it projects from.
PROJECTOR = "projector"


def project_plate(imported: Imported, targets: Iterable[bpy.types.Object], scene_frame: int, hold: bool) -> None:
    """Give meshes a material that shows the plate as the camera projects it, in place of their active material.

    `hold` keeps what is projected at `scene_frame`, which the scene must be at: a camera that does not move is left
    there for it. Raises UserError when the capture or its pictures are gone, or the camera was deleted.
    """
    capture, camera = imported.capture(), imported.camera
    if camera is None:
        raise UserError(f"{imported.name} has no camera", "import the capture again")
    image = _pictures(imported)
    timing = Timing(start_frame(imported, capture), capture.clip.clip_frames)
    name = f"{imported.name} Plate"
    if hold:
        name = f"{name} {scene_frame}"
        number = max(0, int(np.searchsorted(timing.scene_frames, scene_frame, side="right")) - 1)
        material = projection_material(name, capture, _standing(imported, camera, scene_frame), image)
        show_when(material, number)
    else:
        material = projection_material(name, capture, camera, image)
        show_when(material, timing)
    for ob in targets:
        ob.active_material = material


def _pictures(imported: Imported) -> bpy.types.Image:
    """The sequence of the capture's own frames, without the lens's distortion."""
    image = pictures(imported.root).get("Frames")
    for ob in imported.objects(PROJECTED) if image is None else ():
        image = image or inputs_of(ob).get("Plate")
    if image is None:
        raise UserError(f"{imported.name} has no pictures of its frames", "add Depth-Projected points, which have them")
    return image


def _standing(imported: Imported, camera: bpy.types.Object, scene_frame: int) -> bpy.types.Object:
    """A camera that stays as the import's is now."""
    data = camera.data.copy()
    data.animation_data_clear()
    data.show_background_images = False
    still = bpy.data.objects.new(f"{camera.name} {scene_frame}", data)
    imported.collection.objects.link(still)
    still.parent = imported.root
    still.matrix_world = camera.matrix_world
    mark(still, PROJECTOR, imported.root)
    return still
