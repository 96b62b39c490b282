"""Known sensors, from the camera presets of this Blender and of its user, read and never run."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import bpy


@dataclass(frozen=True)
class Sensor:
    """`identifier` is the preset's file without its suffix, `label` its name in Blender's own menu; sizes in mm.

    `lens_mm` is the focal length that some presets of users state, and 0 of the others.
    """

    identifier: str
    label: str
    width_mm: float
    height_mm: float
    lens_mm: float = 0.0

    def across(self, portrait: bool) -> tuple[float, float]:
        """(width, height) in mm as the plate shows them; a portrait plate comes from a camera turned on its side."""
        return (self.height_mm, self.width_mm) if portrait else (self.width_mm, self.height_mm)


def known_sensors() -> list[Sensor]:
    """Every camera preset that states a sensor, in order of the labels; of two with one name the user's own."""
    found = {}
    for folder in bpy.utils.preset_paths("camera"):
        for path in sorted(Path(folder).glob("*.py")):
            values = _assignments(path)
            width, height = values.get("sensor_width", 0.0), values.get("sensor_height", 0.0)
            if width > 0 and height > 0:
                label = bpy.path.display_name(path.stem, has_ext=False, title_case=False)
                found[path.stem] = Sensor(path.stem, label, width, height, values.get("lens", 0.0))
    return sorted(found.values(), key=lambda sensor: sensor.label.lower())


def _assignments(path: Path) -> dict[str, float]:
    """Attribute -> number of every `something.attribute = number` of a preset; nothing of a file that is not one."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return {}
    values = {}
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Attribute)
            and isinstance(node.value, ast.Constant)
            and type(node.value.value) in (int, float)
        ):
            values[node.targets[0].attr] = float(node.value.value)
    return values
