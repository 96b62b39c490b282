"""Plates: another clip or a single image is localised in an import, and becomes one more camera of it."""

# Annotations must stay objects here: Blender reads the properties from them.
import dataclasses
from dataclasses import replace
from pathlib import Path

import bpy
import numpy as np

from ..scene.camera import SCENE_FRAMES
from ..scene.identity import job_of
from ..scene.imported import Imported, find_imported
from ..scene.plate_facts import PlateFacts
from ..scene.plates import PlateOptions, import_plate, look_through, plate_cameras, remove_plate
from ..wire.errors import UserError
from ..wire.settings import ClipSettings, JobSettings, LensSettings, LocaliseSettings
from . import session
from .acting import ImportOperator
from .importing import look_through_camera
from .imports import chosen, folder_property
from .preferences import backend_choice
from .properties import absolute, existing, properties_of, read_group
from .reconstruction import LOCALISE, Reconstruction, SceneRef

#: What is asked of a plate in the file browser, by where it goes in the job.
RANGE = ("first_frame", "last_frame", "frame_step")
LENS = ("focal_mm", "sensor_width_mm", "k1", "k2")
HOW = tuple(f.name for f in dataclasses.fields(LocaliseSettings) if f.name != "reference")
ADVANCED = {f.name for f in dataclasses.fields(LocaliseSettings) if f.metadata.get("advanced")} | {"k1", "k2"}


def reference_job(imported: Imported) -> str:
    """The backend's id of the job that made what an import shows. Raises UserError when the backend has none."""
    now = session.current()
    known = job_of(imported.root) or _job_of_folder(imported.folder)
    if known is None:
        raise UserError(
            f"It is not known which job of the backend made {imported.name}",
            "connect to the backend that made it, or reconstruct its clip on this one; "
            "for any other capture there is 'python -m backend localise'",
        )
    job, backend = known
    if now.connection is not None and backend and backend != now.connection.server_public_key:
        raise UserError(
            f"Another backend made {imported.name}", "connect to that one, or reconstruct the clip on this one"
        )
    row = now.server.job(job)
    if now.state == "READY" and now.server.known and (row is None or row.state != "done"):
        raise UserError(
            f"The backend does not have the capture of {imported.name} any more",
            "reconstruct its clip there again, then localise the plate",
        )
    return job


def _job_of_folder(folder: Path) -> tuple[str, str] | None:
    """(job, backend) whose result was put into that folder last, by what this computer remembers of its jobs."""
    now = session.current()
    found = [(job.asked, job.server_job, job.backend) for job in now.jobs if job.folder == folder and job.server_job]
    for order in now.keeping.orders.values():
        row = now.server.job(order.job)
        if Path(order.out) == folder and row is not None and row.state == "done":
            found.append((row.created, order.job, order.backend))
    return max(found)[1:] if found else None


def near_frame(imported: Imported, scene: bpy.types.Scene) -> int:
    """Which frame of its capture an import shows now, counted from 0. Raises UserError before its first frame."""
    if imported.camera is None or SCENE_FRAMES not in imported.camera:
        raise UserError(f"The camera of {imported.name} was deleted", "give the near frame as a number")
    frames = np.array(imported.camera[SCENE_FRAMES])
    return max(0, int(np.searchsorted(frames, scene.frame_current, side="right")) - 1)


class KINORA_OT_localise_plate(ImportOperator, bpy.types.Operator):
    """Find the camera of another clip, or of one image, in the world of this capture, and add it there."""

    bl_idname = "kinora.localise_plate"
    bl_label = "Localise Plate"
    bl_description = (
        "Find where another clip, or one image, of the same place was shot, and add its camera to this capture. "
        "The backend that made the capture does it"
    )
    bl_options = set()  # adjusting it afterwards would send another job

    filepath: bpy.props.StringProperty(
        name="Plate", description="Video, image of a sequence or single image", subtype="FILE_PATH"
    )
    filter_movie: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_image: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    near_current: bpy.props.BoolProperty(
        name="Near Current Frame", description="The capture shows at the current frame what the plate begins with"
    )
    wait: bpy.props.BoolProperty(
        name="Wait", description="Block Blender until it is done: for scripts without a window", options={"SKIP_SAVE"}
    )

    def invoke(self, context, event):
        camera = find_imported(context).camera
        if camera is not None and not self.properties.is_property_set("sensor_width_mm"):
            self.sensor_width_mm = camera.data.sensor_width
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        layout = self.layout
        layout.use_property_split = True
        layout.use_property_decorate = False
        layout.prop(self, "still")
        for title, names in (
            ("Lens", LENS[:2]),
            ("Where to Look", ("near_current", "near_frame", "matcher")),
            ("Frames", (*RANGE, "zoom")),
            ("Camera", ("start_frame", "points")),
        ):
            column = layout.column()
            column.label(text=title)
            for name in names:
                row = column.row()
                row.active = not (name == "near_frame" and self.near_current) and not (
                    self.still and name in (*RANGE, "zoom", "start_frame")
                )
                row.prop(self, name)
        column = layout.column()
        column.label(text="Advanced")
        for name in (*LENS, *HOW):
            if name in ADVANCED:
                column.prop(self, name)

    def act_on(self, context, imported: Imported) -> str:
        scene, now = context.scene, session.current()
        if not self.filepath:
            raise UserError("No plate was chosen", "choose a clip or an image")
        plate = existing(absolute(self.filepath))
        settings = self._settings(imported, scene)
        taken = [job.out for job in now.jobs if job.active]
        out = scene.kinora.output(plate, taken)
        job = Reconstruction(
            SceneRef.of(scene),
            plate,
            out,
            settings,
            import_when_done=True,
            onto=imported.root.session_uid,
            plate=PlateOptions(start_frame=self.start_frame, points=self.points),
        )
        if any(job.same_work(other) for other in now.jobs if other.active):
            raise UserError(f"{plate.name} is being localised already with these settings", "cancel it there first")
        now.ask_for([job], backend_choice(context))
        if self.wait:
            now.wait([job])
            return f"{plate.name} has a camera in {imported.name}"
        return f"{plate.name} is being localised in {imported.name}"

    def _settings(self, imported: Imported, scene) -> JobSettings:
        how = read_group(LocaliseSettings, _Chosen(self, reference=reference_job(imported)))
        if self.near_current:
            how = replace(how, near_frame=near_frame(imported, scene))
        if 0 <= self.last_frame < self.first_frame:
            raise UserError("The last frame is before the first one", "set Last Frame to -1 for the end of the clip")
        clip = ClipSettings(**{name: getattr(self, name) for name in RANGE})
        return JobSettings(LOCALISE, clip, read_group(LensSettings, _Chosen(self)), how)


class _Chosen:
    """An operator's properties, and what is not one of them."""

    def __init__(self, operator: bpy.types.Operator, **others: str) -> None:
        self._operator, self._others = operator, others

    def __getattr__(self, name: str):
        return self._others[name] if name in self._others else getattr(self._operator, name)


def _asked() -> dict:
    """The properties of the settings that a plate is localised with."""
    groups = (
        (ClipSettings, RANGE),
        (LensSettings, LENS),
        (LocaliseSettings, HOW),
        (PlateOptions, ("start_frame", "points")),
    )
    return {name: properties_of(settings)[name] for settings, names in groups for name in names}


KINORA_OT_localise_plate.__annotations__.update(_asked())


class KINORA_OT_import_plate(ImportOperator, bpy.types.Operator):
    """Bring the camera of a plate that was localised in this capture into the scene, from its folder"""

    bl_idname = "kinora.import_plate"
    bl_label = "Import Plate Camera"

    directory: folder_property("Folder of the localised plate")
    filter_glob: bpy.props.StringProperty(default="capture.json", options={"HIDDEN"})

    def invoke(self, context, event):
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def draw(self, context):
        self.layout.use_property_split = True
        self.layout.use_property_decorate = False
        for name in properties_of(PlateOptions):
            self.layout.prop(self, name)

    def act_on(self, context, imported: Imported) -> str:
        folder = chosen(self.directory)
        camera = import_plate(folder, imported, context.scene, read_group(PlateOptions, self))
        for note in PlateFacts.read(camera).notes:
            self.report({"WARNING"}, note)
        return f"{camera.name} is in {imported.name}"


KINORA_OT_import_plate.__annotations__.update(properties_of(PlateOptions))


class PlateOperator(ImportOperator):
    """An operator on one plate camera: the named one, else the active object, else the import's only one."""

    camera: bpy.props.StringProperty(
        name="Camera", description="Name of the plate camera; empty takes the active object, or the only one"
    )

    @classmethod
    def allowed_on(cls, context, imported: Imported) -> str:
        return "" if plate_cameras(imported) else "Localise a plate in this capture first"

    def act_on(self, context, imported: Imported) -> str:
        cameras, active = plate_cameras(imported), context.view_layer.objects.active
        meant = (
            [ob for ob in cameras if ob.name == self.camera] if self.camera else [ob for ob in cameras if ob == active]
        )
        if not meant and not self.camera and len(cameras) == 1:
            meant = cameras
        if not meant:
            raise UserError(
                f"{imported.name} has no plate camera {self.camera}" if self.camera else "No plate camera is meant",
                "select the one that is meant",
            )
        return self.act_on_camera(context, meant[0])

    def act_on_camera(self, context, camera: bpy.types.Object) -> str:
        raise NotImplementedError


class KINORA_OT_view_plate(PlateOperator, bpy.types.Operator):
    """Make this camera the scene's, give the render the shape of its plate, and look through it"""

    bl_idname = "kinora.view_plate"
    bl_label = "View Plate Camera"

    def act_on_camera(self, context, camera: bpy.types.Object) -> str:
        look_through(camera, context.scene)
        look_through_camera(context.scene)
        return f"The scene is seen through {camera.name}"


class KINORA_OT_remove_plate(PlateOperator, bpy.types.Operator):
    """Take this plate camera out of the file, with its pictures and markers. Its capture on the disk stays"""

    bl_idname = "kinora.remove_plate"
    bl_label = "Remove Plate Camera"

    def act_on_camera(self, context, camera: bpy.types.Object) -> str:
        name = camera.name
        remove_plate(camera)
        return f"Removed {name}"


def _menu_import(self, context):
    self.layout.operator(KINORA_OT_import_plate.bl_idname, text="Kinora Plate Camera")


CLASSES = (
    KINORA_OT_localise_plate,
    KINORA_OT_import_plate,
    KINORA_OT_view_plate,
    KINORA_OT_remove_plate,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_menu_import)


def unregister() -> None:
    bpy.types.TOPBAR_MT_file_import.remove(_menu_import)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
