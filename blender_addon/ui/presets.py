"""Presets of a job, by Blender's own system: what is set once for a show is one choice in the next scene.

What belongs to one clip alone - its path, range, masks, folder and name - is in no preset. Ours are in `presets/`.
"""

# Annotations must stay objects here: Blender reads the properties from them.
import dataclasses
from pathlib import Path

import bpy
from bl_operators.presets import AddPresetBase
from bl_ui.utils import PresetPanel

from ..scene.options import ImportOptions
from ..wire.settings import ENGINES, ClipSettings, LensSettings
from .properties import engine_property

OWN_PRESETS = Path(__file__).resolve().parents[1]
SUBFOLDER = "kinora/job"
OF_ONE_CLIP = {"first_frame", "last_frame", "collection_name", "plate_path"}
GROUPS = {
    "clip": ClipSettings,
    "lens": LensSettings,
    **{engine_property(name): info.settings for name, info in ENGINES.items()},
    "import_options": ImportOptions,
}


def preset_values() -> list[str]:
    """What a preset keeps, as the Python that sets it."""
    fields = [
        f"settings.{group}.{field.name}"
        for group, settings in GROUPS.items()
        for field in dataclasses.fields(settings)
        if field.name not in OF_ONE_CLIP
    ]
    return ["settings.engine", *fields, "settings.import_when_done"]


class KINORA_PT_presets(PresetPanel, bpy.types.Panel):
    """The list of presets."""

    bl_label = "Reconstruction Presets"
    preset_subdir = SUBFOLDER
    preset_operator = "script.execute_preset"
    preset_add_operator = "kinora.preset_add"


class KINORA_OT_preset_add(AddPresetBase, bpy.types.Operator):
    """Keep the settings of this scene as a preset, or remove one"""

    bl_idname = "kinora.preset_add"
    bl_label = "Add Reconstruction Preset"
    preset_menu = "KINORA_PT_presets"
    preset_defines = ["settings = bpy.context.scene.kinora"]
    preset_values = preset_values()
    preset_subdir = SUBFOLDER


CLASSES = (KINORA_PT_presets, KINORA_OT_preset_add)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.utils.register_preset_path(str(OWN_PRESETS))


def unregister() -> None:
    bpy.utils.unregister_preset_path(str(OWN_PRESETS))
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
