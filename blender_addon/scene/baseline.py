"""What an import set by itself, remembered with it: whatever differs from it later is the artist's choice and stays.

`merged` is the rule of Update Existing for a single value. Values are remembered as Blender returns them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import bpy
import numpy as np

from . import nodes
from .changes import frozen
from .options import ImportOptions

BASELINE = "kinora_baseline"
OPTIONS = "kinora_options"

#: What an import sets, besides what moves.
CAMERA_DATA = ("sensor_fit", "sensor_width", "sensor_height", "clip_start", "clip_end", "display_size")
SCENE = ("frame_start", "frame_end")
RENDER = ("fps", "fps_base", "resolution_x", "resolution_y", "pixel_aspect_x", "pixel_aspect_y")

_MISSING = object()


def merged(baseline: dict[str, Any], name: str, mine: Any, theirs: Any) -> Any:
    """What the artist has (`mine`) where it is no longer what the earlier import set, else what the new one has."""
    return theirs if baseline.get(name, _MISSING) in (_MISSING, _plain(mine)) else mine


def remember(datablock: bpy.types.ID, values: dict[str, Any]) -> None:
    """Keep what an import set on, or for, a datablock."""
    datablock[BASELINE] = json.dumps({name: _plain(value) for name, value in values.items()})


def remembered(datablock: bpy.types.ID) -> dict[str, Any]:
    """What the last import set; empty for a datablock that no import has set."""
    return json.loads(datablock.get(BASELINE, "{}"))


def camera_values(data: bpy.types.Camera) -> dict[str, Any]:
    """What an import sets on a camera, as it is now."""
    return {name: getattr(data, name) for name in CAMERA_DATA}


def scene_values(scene: bpy.types.Scene) -> dict[str, Any]:
    """What an import sets on a scene, as it is now."""
    return {name: getattr(scene, name) for name in SCENE} | {name: getattr(scene.render, name) for name in RENDER}


def set_scene_values(scene: bpy.types.Scene, values: dict[str, Any], changes: Any) -> None:
    """Set what `scene_values` reads, through `changes` (a Changes)."""
    for name, value in values.items():
        changes.set(scene if name in SCENE else scene.render, name, value)


def modifier_values(ob: bpy.types.Object) -> dict[str, Any]:
    """Every input of the object's Geometry Nodes, as `modifier/input`."""
    return {
        f"{family(modifier)}/{name}": nodes.get_input(modifier, name)
        for modifier in ob.modifiers
        if modifier.type == "NODES" and modifier.node_group is not None
        for name in nodes.input_names(modifier)
    }


def family(modifier: bpy.types.Modifier) -> str:
    """The name that versions of one node group share; empty for a modifier without one."""
    group = getattr(modifier, "node_group", None)
    return group.name.split(".")[0] if group else ""


def write_options(root: bpy.types.Object, options: ImportOptions) -> None:
    """Keep what the import was asked for with its root."""
    root[OPTIONS] = json.dumps(asdict(options))


def read_options(root: bpy.types.Object) -> ImportOptions:
    """What the import of `root` was asked for; what this version does not know any more is left out."""
    known = ImportOptions.__dataclass_fields__
    return ImportOptions(**{k: v for k, v in json.loads(root.get(OPTIONS, "{}")).items() if k in known})


def _plain(value: Any) -> Any:
    """A value as JSON gives it back; a datablock as whether there is one."""
    if isinstance(value, bpy.types.ID):
        return True
    if isinstance(value, float):
        return float(np.float32(value))  # as Blender keeps it
    value = frozen(value)
    return [_plain(v) for v in value] if isinstance(value, tuple) else value
