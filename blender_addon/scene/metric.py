"""Metric scale: how long a unit of an import is, as far as its capture says, and standing the import in metres."""

from __future__ import annotations

import bpy
import numpy as np

from ..wire.capture import Capture
from ..wire.errors import UserError
from .imported import Imported
from .world import scale_about_origin, size_of, world_matrix

#: Where the root keeps [metres a unit, least, most]; empty while nobody has measured it.
SCALE = "kinora_scale"

#: Sizes that differ by less are the same.
SAME = 1e-4


def remember_scale(root: bpy.types.Object, capture: Capture) -> None:
    """Keep what the capture says of its unit."""
    scale = capture.scale
    known = (1.0, 1.0, 1.0) if capture.metric else (scale.metres_per_unit, scale.low, scale.high) if scale else ()
    root[SCALE] = ",".join(f"{value:.9g}" for value in known)


def metres_per_unit(imported: Imported) -> tuple[float, float, float] | None:
    """(most likely, least, most) metres of a unit of the capture; None while that is not known."""
    values = [float(v) for v in imported.root.get(SCALE, "").split(",") if v]
    if not values and imported.root.get("kinora_metric"):  # imported by an earlier version
        values = [1.0, 1.0, 1.0]
    return (values[0], values[1], values[2]) if len(values) == 3 else None


def in_metres(imported: Imported, scene: bpy.types.Scene) -> bool:
    """Whether the import stands in metres, by the unit scale of the scene. For drawing: nothing is evaluated."""
    known, root = metres_per_unit(imported), imported.root
    matrix = root.matrix_world if root.parent or root.constraints else root.matrix_basis
    size = size_of(np.array(matrix, np.float64))
    return known is not None and abs(size * scene.unit_settings.scale_length / known[0] - 1) < SAME


def use_metric_scale(imported: Imported, scene: bpy.types.Scene, view_layer: bpy.types.ViewLayer) -> float:
    """Scale an import about the world's origin until it stands in metres; the factor.

    Raises UserError when nothing says how long its unit is.
    """
    known = metres_per_unit(imported)
    if known is None:
        raise UserError(f"The scale of {imported.name} is not known", "use Set Scale with a length that you know")
    wanted = known[0] / scene.unit_settings.scale_length
    factor = wanted / size_of(world_matrix(imported.root, view_layer))
    scale_about_origin(imported, factor, view_layer)
    return factor
