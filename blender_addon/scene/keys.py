"""Keyframes in bulk: whole curves at once, through action slots as Blender 4.5 to 5.2 all have them."""

from __future__ import annotations

import bpy
import numpy as np

_CONSTANT, _LINEAR = 0, 1


def key(
    datablock: bpy.types.ID,
    action: bpy.types.Action | None,
    data_path: str,
    frames: np.ndarray,
    values: np.ndarray,
    *,
    hold: bool = False,
) -> None:
    """Key `data_path` with (T,) or (T, K) values at (T,) frames; `hold` steps instead of interpolating.

    `action` is for a datablock that has none yet; None makes one. Keys that are there are replaced, and their curve
    kept, with what the artist did to it.
    """
    curves = _curves(datablock, action)
    columns = values[:, None] if values.ndim == 1 else values
    for index in range(columns.shape[1]):
        curve = curves.find(data_path, index=index) or curves.new(data_path, index=index)
        curve.keyframe_points.clear()
        curve.keyframe_points.add(len(frames))
        points = np.stack([frames, columns[:, index]], axis=1).astype(np.float32)
        curve.keyframe_points.foreach_set("co", points.ravel())
        mode = np.full(len(frames), _CONSTANT if hold else _LINEAR, np.int32)
        curve.keyframe_points.foreach_set("interpolation", mode)
        curve.update()


def keyed(datablock: bpy.types.ID, data_path: str) -> list[bpy.types.FCurve]:
    """The curves of a property, one for each of its indices that is keyed; none when it is not."""
    animation = datablock.animation_data
    if animation is None or animation.action is None or animation.action_slot is None:
        return []
    bags = [
        strip.channelbag(animation.action_slot)
        for layer in animation.action.layers
        for strip in layer.strips
        if strip.type == "KEYFRAME"
    ]
    return [curve for bag in bags if bag is not None for curve in bag.fcurves if curve.data_path == data_path]


def unkey(datablock: bpy.types.ID, data_path: str) -> None:
    """Take every key of a property away; its value stays as it is now."""
    for curve in keyed(datablock, data_path):
        _curves(datablock, None).remove(curve)


def _curves(datablock: bpy.types.ID, action: bpy.types.Action | None) -> bpy.types.bpy_prop_collection:
    """The curves of a datablock, in its own action or, while it has none, in `action`."""
    animation = datablock.animation_data or datablock.animation_data_create()
    if animation.action is None:
        animation.action = action or bpy.data.actions.new(datablock.name)
    action = animation.action
    if animation.action_slot is None:
        animation.action_slot = action.slots.new(id_type=datablock.id_type, name=datablock.name)
    layer = action.layers[0] if len(action.layers) else action.layers.new("Layer")
    strip = layer.strips[0] if len(layer.strips) else layer.strips.new(type="KEYFRAME")
    return strip.channelbag(animation.action_slot, ensure=True).fcurves
