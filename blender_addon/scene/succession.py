"""An object that takes the place of another: its collections, parent, transform, looks, keys and drivers.

For players that are made anew, whose nodes have inputs of the same names.
"""

from __future__ import annotations

import bpy

from .nodes import find_modifier, input_names, input_path

#: What an artist sets on an object, whatever it shows.
_LOOKS = (
    *("hide_viewport", "hide_render", "hide_select", "show_in_front", "color", "pass_index"),
    *("visible_camera", "visible_diffuse", "visible_glossy", "visible_transmission", "visible_volume_scatter"),
    *("visible_shadow", "is_holdout", "is_shadow_catcher"),
)
_TRANSFORM = ("parent", "parent_type", "parent_bone", "matrix_parent_inverse", "rotation_mode", "matrix_basis")


def succeed(new: bpy.types.Object, old: bpy.types.Object, *, same_place: bool) -> None:
    """Link a new object where the old one is and give it what was set on that; `same_place` takes the transform too."""
    for collection in old.users_collection:
        collection.objects.link(new)
    for name in _LOOKS + (_TRANSFORM if same_place else ()):
        setattr(new, name, getattr(old, name))
    if same_place:
        for constraint in old.constraints:
            new.constraints.copy(constraint)
    if old.animation_data is not None:
        _animate(new, old, same_place)


def _animate(new: bpy.types.Object, old: bpy.types.Object, same_place: bool) -> None:
    """Copy the keys and drivers of the inputs that both have; with `same_place` also those of the object itself."""
    paths = _common_paths(new, old)

    def carried(path: str) -> str | None:
        return paths.get(path) or (path if same_place and not path.startswith("modifiers[") else None)

    theirs, ours = old.animation_data, new.animation_data_create()
    if theirs.action is not None and theirs.action_slot is not None:
        ours.action = theirs.action.copy()
        ours.action_slot = ours.action.slots[theirs.action_slot.identifier]
        for strip in (strip for layer in ours.action.layers for strip in layer.strips):
            bag = strip.channelbag(ours.action_slot)
            for curve in list(bag.fcurves) if bag is not None else ():
                path = carried(curve.data_path)
                if path is None:
                    bag.fcurves.remove(curve)
                elif path != curve.data_path:
                    curve.data_path = path
    for driver in theirs.drivers:
        if (path := carried(driver.data_path)) is not None:
            ours.drivers.from_existing(src_driver=driver).data_path = path


def _common_paths(new: bpy.types.Object, old: bpy.types.Object) -> dict[str, str]:
    """Data path of an input of the old object -> that of the new one's input of the same name."""
    before, after = find_modifier(old), find_modifier(new)
    if before is None:
        return {}
    common = set(input_names(before)) & set(input_names(after))
    return {input_path(before, name): input_path(after, name) for name in common}
