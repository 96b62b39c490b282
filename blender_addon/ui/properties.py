"""What the artist sets for a scene: property groups made from the settings dataclasses, kept in the .blend."""

# Annotations must stay objects here: Blender reads the properties from them.
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from ..scene.options import ImportOptions
from ..wire.errors import UserError
from ..wire.settings import ENGINES, ClipSettings, JobSettings, LensSettings, Settings
from .facts import KINORA_PG_facts, look

#: `unit` of a setting -> what Blender's own number fields call it.
UNITS = {
    "px": {"subtype": "PIXEL"},
    "mm": {"subtype": "DISTANCE_CAMERA", "unit": "CAMERA"},
    "factor": {"subtype": "FACTOR"},
}


def property_of(field: dataclasses.Field, default: Any = None):
    """The Blender property of a settings field: its label, help, default (or another one), limits, unit and choices."""
    meta = field.metadata
    about = {
        "name": meta.get("label", field.name.replace("_", " ").title()),
        "description": meta.get("help", ""),
        "default": field.default if default is None else default,
    }
    kind = type(field.default)
    if meta.get("choices"):
        return bpy.props.EnumProperty(items=list(meta["choices"]), **about)
    if kind is bool:
        return bpy.props.BoolProperty(**about)
    if kind is str:
        return bpy.props.StringProperty(**about)
    if kind not in (int, float):
        raise TypeError(f"{field.name}: no Blender property shows a {kind.__name__}")
    limits = {name: meta[key] for name, key in (("min", "minimum"), ("max", "maximum")) if meta.get(key) is not None}
    unit = UNITS.get(meta.get("unit", ""), {})
    if kind is int:
        return bpy.props.IntProperty(**about, **limits, subtype=unit.get("subtype", "NONE"))
    fine = max(abs(v) for v in (field.default, *limits.values())) <= 2
    return bpy.props.FloatProperty(**about, **limits, **unit, step=1 if fine else 10, precision=3 if fine else 2)


def properties_of(settings: type[Settings]) -> dict:
    """The annotations that give a Blender class one property for each field of `settings`."""
    return {f.name: property_of(f) for f in dataclasses.fields(settings)}


def group_of(settings: type[Settings], **defaults: Any) -> type[bpy.types.PropertyGroup]:
    """A PropertyGroup class with one property for each field of `settings`; `defaults` are what a panel begins with."""
    properties = {f.name: property_of(f, defaults.get(f.name)) for f in dataclasses.fields(settings)}
    about = {"__annotations__": properties, "__doc__": settings.__doc__, "__module__": __name__}
    return type(f"KINORA_PG_{settings.__name__}", (bpy.types.PropertyGroup,), about)


def read_group(settings: type[Settings], group) -> Settings:
    """The settings that the artist chose in `group`. Blender stores floats in 32 bits: 0.1 is read back as 0.1."""
    values = {f.name: getattr(group, f.name) for f in dataclasses.fields(settings)}
    return settings(**{k: float(str(np.float32(v))) if type(v) is float else v for k, v in values.items()})


def write_group(group, settings: Settings) -> None:
    """Show `settings` in `group`."""
    for f in dataclasses.fields(settings):
        setattr(group, f.name, getattr(settings, f.name))


def engine_property(engine: str) -> str:
    """Where the settings of an engine stand in the scene's settings."""
    return f"engine_{engine}"


def absolute(path: str) -> Path:
    """A path of a property as an absolute one. Raises UserError for `//...` in a file that was never saved."""
    if path.startswith("//") and not bpy.data.filepath:
        raise UserError(f"{path} is beside the .blend file, which is not saved yet", "save it or choose a full path")
    return Path(bpy.path.abspath(path)).absolute()


def _clip_changed(self, context) -> None:
    try:
        path = absolute(self.clip_path) if self.clip_path else None
    except UserError:  # Reconstruct says it
        path = None
    self.facts.show(path, look(path) if path else None)


def engine_items(self=None, context=None):
    return [(e.name, e.label, e.description) for e in ENGINES.values()]


RELATIVE = {"PATH_SUPPORTS_BLEND_RELATIVE"}  # a path may start with //
CLIP_GROUP, LENS_GROUP = group_of(ClipSettings), group_of(LensSettings)
IMPORT_GROUP = group_of(ImportOptions, existing="update")
ENGINE_GROUPS = {name: group_of(info.settings) for name, info in ENGINES.items()}


class KINORA_PG_scene(bpy.types.PropertyGroup):
    """The settings of a scene's reconstruction."""

    clip_path: bpy.props.StringProperty(
        name="Clip",
        description="Video to reconstruct, or one image of a sequence, or a folder of images",
        subtype="FILE_PATH",
        update=_clip_changed,
        options=RELATIVE,
    )
    facts: bpy.props.PointerProperty(type=KINORA_PG_facts)
    engine: bpy.props.EnumProperty(
        name="Engine", description="What reconstructs the clip", items=engine_items(), default="classical"
    )
    masks_path: bpy.props.StringProperty(
        name="Known Masks",
        description="Folder of masks of what moves, white on black, one image for each frame that is used; optional",
        subtype="DIR_PATH",
        options=RELATIVE,
    )
    output_path: bpy.props.StringProperty(
        name="Folder",
        description="Folder that the capture is written to; "
        "when empty, a folder named after the clip in a kinora folder beside the .blend file, or beside the clip",
        subtype="DIR_PATH",
        options=RELATIVE,
    )
    replace: bpy.props.BoolProperty(
        name="Replace Earlier",
        description="Replace a capture that is already in the folder, once the new one is whole; "
        "otherwise a new folder with the next number is made",
    )
    import_when_done: bpy.props.BoolProperty(
        name="Import When Done", description="Bring the capture into this scene as soon as it is finished", default=True
    )
    live: bpy.props.BoolProperty(
        name="Live View",
        description="Show cameras and points in this scene while the job runs; the finished capture takes their place",
        default=True,
    )
    live_rate: bpy.props.FloatProperty(
        name="Frame Rate",
        description="Most frames that are fetched and added to the scene in a second while a job runs; "
        "fewer leave more of the computer and of the line to the job",
        default=10.0,
        min=0.1,
        max=10.0,
    )
    live_keep: bpy.props.BoolProperty(
        name="Keep Partial",
        description="When a job is cancelled or fails, write the frames that it has shown as a capture, "
        "in a folder that is marked partial, and import it in place of the live view",
        default=True,
    )
    capture_path: bpy.props.StringProperty(options={"HIDDEN", *RELATIVE}, subtype="DIR_PATH")
    tickets: bpy.props.StringProperty(options={"HIDDEN"})  # ids of the newest jobs that were asked for
    clip: bpy.props.PointerProperty(type=CLIP_GROUP)
    lens: bpy.props.PointerProperty(type=LENS_GROUP)
    import_options: bpy.props.PointerProperty(type=IMPORT_GROUP)

    def engine_group(self):
        """The settings of the chosen engine."""
        return getattr(self, engine_property(self.engine))

    def job_settings(self) -> JobSettings:
        """Everything that decides the result, as it goes over the wire. Raises UserError when it does not fit."""
        clip = read_group(ClipSettings, self.clip)
        if clip.last_frame != -1 and clip.last_frame < clip.first_frame:
            raise UserError("The last frame is before the first one", "set Last Frame to -1 for the end of the clip")
        return JobSettings(
            engine=self.engine,
            clip=clip,
            lens=read_group(LensSettings, self.lens),
            engine_settings=read_group(ENGINES[self.engine].settings, self.engine_group()),
        )

    def source(self) -> Path:
        """The clip as an absolute path. Raises UserError when it is not there."""
        if not self.clip_path:
            raise UserError("No clip is chosen", "choose a video or a folder of images")
        return existing(absolute(self.clip_path))

    def masks(self) -> Path | None:
        """The folder of known masks as an absolute path, or None. Raises UserError when it is not there."""
        if not self.masks_path:
            return None
        path = absolute(self.masks_path)
        if not path.is_dir():
            raise UserError(f"The masks folder {path} does not exist", "choose the folder again or clear it")
        return path

    def output(self, clip: Path | None = None, taken: Collection[Path] = ()) -> Path | None:
        """Where the next capture will be written; None while there is no clip to name it after.

        `clip` is another clip than the scene's, in a folder of its own then; `taken` are folders that jobs under way
        will write. A folder that already holds something is left alone, and the next free number is taken, unless the
        artist asked to replace it. Raises UserError when it cannot be said yet.
        """
        source = clip or (absolute(self.clip_path) if self.clip_path else None)
        if self.output_path:
            folder = absolute(self.output_path)
            if clip is not None:
                folder /= name_of(clip)
        elif source is not None:
            beside = Path(bpy.data.filepath).parent if bpy.data.filepath else source.parent
            folder = beside / "kinora" / name_of(source)
        else:
            return None
        return free_folder(folder, taken, self.replace)


def free_folder(folder: Path, taken: Collection[Path], replace: bool) -> Path:
    """The folder, or the next one with a number that nobody writes to and, unless it may be replaced, holds nothing."""
    number = 2
    free = folder
    while free in taken or (not replace and free.is_dir() and any(free.iterdir())):
        free = folder.with_name(f"{folder.name}_{number:03d}")
        number += 1
    return free


def name_of(clip: Path) -> str:
    """What a clip's capture is called."""
    return clip.name if clip.is_dir() else clip.stem


def existing(clip: Path) -> Path:
    """The clip. Raises UserError when it is not there."""
    if not clip.exists():
        raise UserError(f"The clip {clip} does not exist", "choose the file again")
    return clip


for _name, _group in ENGINE_GROUPS.items():
    KINORA_PG_scene.__annotations__[engine_property(_name)] = bpy.props.PointerProperty(type=_group)

CLASSES = (CLIP_GROUP, LENS_GROUP, IMPORT_GROUP, *ENGINE_GROUPS.values(), KINORA_PG_scene)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.Scene.kinora = bpy.props.PointerProperty(type=KINORA_PG_scene, name="Kinora")


def unregister() -> None:
    del bpy.types.Scene.kinora
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
