"""Keyframes in bulk: whole curves at once, through action slots as Blender 4.5 to 5.2 all have them."""

from __future__ import annotations

import bpy
import numpy as np

_CONSTANT, _LINEAR = 0, 1


def key(
    datablock: bpy.types.ID,
    action: bpy.types.Action,
    data_path: str,
    frames: np.ndarray,
    values: np.ndarray,
    *,
    hold: bool = False,
) -> None:
    """Key `data_path` with (T,) or (T, K) values at (T,) frames; `hold` steps instead of interpolating."""
    animation = datablock.animation_data or datablock.animation_data_create()
    if animation.action is None:
        animation.action = action
        animation.action_slot = action.slots.new(id_type=datablock.id_type, name=datablock.name)
    layer = action.layers[0] if len(action.layers) else action.layers.new("Layer")
    strip = layer.strips[0] if len(layer.strips) else layer.strips.new(type="KEYFRAME")
    curves = strip.channelbag(animation.action_slot, ensure=True).fcurves
    columns = values[:, None] if values.ndim == 1 else values
    for index in range(columns.shape[1]):
        curve = curves.new(data_path, index=index)
        curve.keyframe_points.add(len(frames))
        points = np.stack([frames, columns[:, index]], axis=1).astype(np.float32)
        curve.keyframe_points.foreach_set("co", points.ravel())
        mode = np.full(len(frames), _CONSTANT if hold else _LINEAR, np.int32)
        curve.keyframe_points.foreach_set("interpolation", mode)
        curve.update()
