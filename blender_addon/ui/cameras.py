"""What the artist does with an imported camera: measure, smooth, switch frames off, sensor, distortion, markers."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy
import numpy as np

from ..scene.camera import PLATE_FRAMING, SCENE_FRAMES
from ..scene.camera_edits import CameraEdits, edit_camera, set_sensor, switch_frames
from ..scene.distortion import write_st_maps
from ..scene.imported import Imported, find_imported
from ..scene.lens_nodes import lens_group
from ..scene.markers import remove_markers, show_markers
from ..scene.sensors import Sensor, known_sensors
from ..scene.smoothing import Smoothing
from ..scene.solve_quality import SolveQuality, measure
from ..wire.errors import UserError
from .acting import ActionOperator, ImportOperator
from .properties import RELATIVE, absolute

NOT_MEASURED = "Press Measure Again first"


class CameraOperator(ImportOperator):
    """An operator on the camera of an import."""

    @classmethod
    def allowed_on(cls, context, imported: Imported) -> str:
        camera = imported.camera
        if camera is None:
            return "The camera of this capture was deleted"
        if not camera.is_editable or not camera.data.is_editable:
            return "The camera of this capture is linked from another file"
        return "" if SCENE_FRAMES in camera else "Import the capture again: an earlier Kinora made this camera"


def measured(imported: Imported) -> SolveQuality | None:
    """What is known of the camera of an import, or None."""
    camera = imported.camera
    return SolveQuality.read(camera) if camera is not None else None


def told(quality: SolveQuality) -> str:
    """One line for the status bar about how good the camera is."""
    if quality.measured:
        return f"Reprojection error {quality.error_px:.2f} px"
    return f"The camera is at most {quality.deviation_px:.2f} px off the capture's own"


class KINORA_OT_measure_camera(CameraOperator, bpy.types.Operator):
    """Measure how far the tracks of the capture are from where this camera sees their points, at every frame"""

    bl_idname = "kinora.measure_camera"
    bl_label = "Measure Again"

    def act_on(self, context, imported: Imported) -> str:
        quality = measure(imported.camera, imported.root, imported.capture())
        quality.write(imported.camera)
        return told(quality)


class KINORA_OT_smooth_camera(CameraOperator, bpy.types.Operator):
    """Smooth the camera of the capture."""

    bl_idname = "kinora.smooth_camera"
    bl_label = "Smooth Camera"
    bl_description = (
        "Smooth the camera of the capture. It is always made from the capture, so it can be changed and taken back. "
        "Keys that were edited by hand are replaced"
    )

    location: bpy.props.FloatProperty(
        name="Location",
        description="How far the position is smoothed, in frames; 0 leaves it exactly as it was solved",
        default=2.0,
        min=0.0,
        soft_max=20.0,
        max=200.0,
        step=50,
        precision=1,
    )
    rotation: bpy.props.FloatProperty(
        name="Rotation",
        description="How far the rotation is smoothed, in frames; 0 leaves it exactly as it was solved",
        default=2.0,
        min=0.0,
        soft_max=20.0,
        max=200.0,
        step=50,
        precision=1,
    )
    lens: bpy.props.FloatProperty(
        name="Lens",
        description="How far focal length and shift are smoothed, in frames; 0 leaves them exactly as they were solved",
        default=0.0,
        min=0.0,
        soft_max=20.0,
        max=200.0,
        step=50,
        precision=1,
    )

    def invoke(self, context, event):
        smoothing = CameraEdits.read(find_imported(context).camera).smoothing
        if any(vars(smoothing).values()):
            for name, strength in vars(smoothing).items():
                setattr(self, name, strength)
        return context.window_manager.invoke_props_dialog(self)

    def draw(self, context) -> None:
        column = self.layout.column(heading="Frames")
        column.use_property_split = True
        column.use_property_decorate = False
        for name in ("location", "rotation", "lens"):
            column.prop(self, name)

    def act_on(self, context, imported: Imported) -> str:
        edits = CameraEdits.read(imported.camera)
        edits = CameraEdits(Smoothing(self.location, self.rotation, self.lens), edits.switched_off)
        return told(edit_camera(imported, imported.capture(), edits, context.scene))


class KINORA_OT_reset_camera(CameraOperator, bpy.types.Operator):
    """Give the camera exactly the keys of the capture again: no smoothing, every frame switched on"""

    bl_idname = "kinora.reset_camera"
    bl_label = "Reset Camera"

    def act_on(self, context, imported: Imported) -> str:
        return told(edit_camera(imported, imported.capture(), CameraEdits(), context.scene))


class KINORA_OT_switch_camera_frames(CameraOperator, bpy.types.Operator):
    """Take the keys of bad frames out, so that the camera moves straight across them, or put them back"""

    bl_idname = "kinora.switch_camera_frames"
    bl_label = "Switch Camera Frames"

    on: bpy.props.BoolProperty(name="On", description="Put the keys back instead of taking them out")
    which: bpy.props.EnumProperty(
        name="Frames",
        description="Which frames of the capture are meant",
        items=(
            ("CURRENT", "Current", "The frame of the capture that is seen now"),
            ("RANGE", "Range", "From First to Last"),
            ("FLAGGED", "Flagged", "Frames that the solver interpolated or had low confidence in"),
            ("WORSE", "Worse Than", "Frames whose reprojection error is above a limit"),
            ("ALL", "All", "Every frame"),
        ),
    )
    first: bpy.props.IntProperty(name="First", description="First scene frame of a range", default=1)
    last: bpy.props.IntProperty(name="Last", description="Last scene frame of a range", default=1)
    limit_px: bpy.props.FloatProperty(
        name="Limit",
        description="Reprojection error of the worst frame that stays, in pixels of the plate",
        default=1.0,
        min=0.0,
        subtype="PIXEL",
    )

    def draw(self, context) -> None:
        column = self.layout.column()
        column.use_property_split = True
        column.use_property_decorate = False
        shown = {"RANGE": ("first", "last"), "WORSE": ("limit_px",)}.get(self.which, ())
        for name in ("on", "which", *shown):
            column.prop(self, name)

    def chosen(self, context, imported: Imported) -> np.ndarray:
        """Indices of the frames of the capture that are meant."""
        frames = np.array(imported.camera[SCENE_FRAMES])
        if self.which == "ALL":
            return np.arange(len(frames))
        if self.which == "RANGE":
            return np.flatnonzero((frames >= self.first) & (frames <= self.last))
        quality = measured(imported)
        if quality is None:
            raise UserError("The camera was not measured yet", NOT_MEASURED)
        if self.which == "CURRENT":
            index = quality.index(context.scene.frame_current)
            return np.array([] if index is None else [index])
        if self.which == "FLAGGED":
            return np.flatnonzero(quality.flags)
        return np.flatnonzero(quality.mean_px > self.limit_px)

    def act_on(self, context, imported: Imported) -> str:
        before = CameraEdits.read(imported.camera)
        after = switch_frames(before, self.chosen(context, imported), self.on)
        changed = len(before.switched_off ^ after.switched_off)
        if not changed:
            raise UserError("No frame of the capture is meant", "choose other frames")
        quality = edit_camera(imported, imported.capture(), after, context.scene)
        return f"{changed} frame{'s' * (changed > 1)} switched {'on' if self.on else 'off'}. {told(quality)}"


class KINORA_OT_jump_to_frame(CameraOperator, bpy.types.Operator):
    """Go to the frame with the largest reprojection error, or to the next one that the solver flagged"""

    bl_idname = "kinora.jump_to_frame"
    bl_label = "Jump to Frame"
    bl_options = {"REGISTER", "UNDO_GROUPED"}

    where: bpy.props.EnumProperty(
        name="Where",
        description="Which frame is wanted",
        items=(
            ("WORST", "Worst", "The frame with the largest reprojection error"),
            ("NEXT", "Next Flagged", "The next frame that the solver flagged"),
            ("PREVIOUS", "Previous Flagged", "The frame before that the solver flagged"),
        ),
    )

    def act_on(self, context, imported: Imported) -> None:
        quality = measured(imported)
        if quality is None:
            raise UserError("The camera was not measured yet", NOT_MEASURED)
        now = context.scene.frame_current
        flagged = quality.scene_frames[quality.flags > 0]
        if self.where == "WORST":
            if not quality.measured:
                raise UserError("The capture has no tracks to measure an error with")
            context.scene.frame_set(int(quality.scene_frames[np.nanargmax(quality.mean_px)]))
            return
        found = flagged[flagged > now][:1] if self.where == "NEXT" else flagged[flagged < now][-1:]
        if not found.size:
            raise UserError(f"No frame {'after' if self.where == 'NEXT' else 'before'} this one is flagged")
        context.scene.frame_set(int(found[0]))


class KINORA_OT_solver_markers(CameraOperator, bpy.types.Operator):
    """Show on the timeline where the solver found no camera, interpolated it or was not sure, or hide it again"""

    bl_idname = "kinora.solver_markers"
    bl_label = "Solver Markers"

    show: bpy.props.BoolProperty(name="Show", description="Make the markers, otherwise remove them", default=True)

    def act_on(self, context, imported: Imported) -> str:
        if not self.show:
            return f"{remove_markers(context.scene, imported.root)} markers removed"
        quality = measured(imported)
        if quality is None:
            raise UserError("The camera was not measured yet", NOT_MEASURED)
        return f"{show_markers(context.scene, imported.root, quality)} markers"


class KINORA_OT_camera_sensor(CameraOperator, bpy.types.Operator):
    """Give the imported camera a known sensor. Its lens follows, so that it sees exactly what it saw"""

    bl_idname = "kinora.camera_sensor"
    bl_label = "Known Sensor"

    preset: bpy.props.StringProperty(name="Preset", description="File name of a camera preset, without its suffix")

    def act_on(self, context, imported: Imported) -> str:
        sensor = _sensor(self.preset)
        width, height = imported.capture().clip.plate_size
        set_sensor(imported.camera, *sensor.across(portrait=height > width))
        return f"{sensor.label}: {imported.camera.data.lens:.2f} mm"


class KINORA_OT_job_sensor(ActionOperator, bpy.types.Operator):
    """Take the sensor of a known camera for the next reconstruction; the focal length too, when the preset states it"""

    bl_idname = "kinora.job_sensor"
    bl_label = "Known Sensor"

    preset: bpy.props.StringProperty(name="Preset", description="File name of a camera preset, without its suffix")
    portrait: bpy.props.BoolProperty(
        name="Portrait", description="The camera was turned on its side: the plate is as wide as the sensor is high"
    )

    def act(self, context) -> str:
        sensor = _sensor(self.preset)
        lens = context.scene.kinora.lens
        lens.sensor_width_mm = sensor.across(self.portrait)[0]
        if sensor.lens_mm:
            lens.focal_mm = sensor.lens_mm
        return f"{sensor.label}: {lens.sensor_width_mm:g} mm wide"


class KINORA_OT_match_plate(CameraOperator, bpy.types.Operator):
    """Give the scene's render the size and the pixel aspect of the plate, so that this camera sees all of it"""

    bl_idname = "kinora.match_plate"
    bl_label = "Match Render to Plate"

    def act_on(self, context, imported: Imported) -> None:
        render = context.scene.render
        width, height, render.pixel_aspect_x, render.pixel_aspect_y = imported.camera[PLATE_FRAMING]
        render.resolution_x, render.resolution_y = round(width), round(height)


class KINORA_OT_plate_undistorted(CameraOperator, bpy.types.Operator):
    """Show the plate behind the camera as the camera sees the scene, without the lens distortion, or as it was shot"""

    bl_idname = "kinora.plate_undistorted"
    bl_label = "Undistorted Plate"

    undistorted: bpy.props.BoolProperty(
        name="Undistorted", description="Without lens distortion, as the camera and the points are", default=True
    )

    def act_on(self, context, imported: Imported) -> None:
        backgrounds = plates_behind(imported.camera)
        if not backgrounds:
            raise UserError("No plate stands behind the camera", "import the capture with Show Plate")
        for background in backgrounds:
            background.clip_user.use_render_undistorted = self.undistorted


class KINORA_OT_write_st_maps(CameraOperator, bpy.types.Operator):
    """Write the plate's lens distortion as two pictures for compositing."""

    bl_idname = "kinora.write_st_maps"
    bl_label = "Write ST Maps"
    bl_description = (
        "Write the plate's lens distortion as two 32-bit EXR pictures for compositing: one makes the plate straight, "
        "the other bends a render like the plate"
    )

    directory: bpy.props.StringProperty(
        name="Folder",
        description="Folder for the two pictures; the capture's own when empty",
        subtype="DIR_PATH",
        options=RELATIVE,
    )

    add_group: bpy.props.BoolProperty(
        name="Add Node Group",
        description="Add a group that applies the two pictures, for the compositor; it is under Add, Group",
        default=True,
    )

    def act_on(self, context, imported: Imported) -> str:
        capture = imported.capture()
        folder = absolute(self.directory) if self.directory else Path(capture.folder)
        paths = write_st_maps(capture, folder)
        if self.add_group:
            lens_group(imported, *paths)
        return f"Wrote {paths[0].name} and {paths[1].name} to {folder}"


def plates_behind(camera: bpy.types.Object) -> list[bpy.types.CameraBackgroundImage]:
    """The backgrounds of a camera that show a movie clip."""
    return [b for b in camera.data.background_images if b.source == "MOVIE_CLIP" and b.clip is not None]


def _sensor(preset: str) -> Sensor:
    for sensor in known_sensors():
        if sensor.identifier == preset:
            return sensor
    raise UserError(f"Blender has no camera preset '{preset}'", "choose one from the menu")


class KINORA_MT_camera_sensor(bpy.types.Menu):
    """Known sensors, for the imported camera"""

    bl_label = "Known Sensor"
    operator = "kinora.camera_sensor"

    def draw(self, context) -> None:
        for sensor in known_sensors():
            text = f"{sensor.label}   {sensor.width_mm:g} × {sensor.height_mm:g} mm"
            self.layout.operator(self.operator, text=text).preset = sensor.identifier


class KINORA_MT_job_sensor(bpy.types.Menu):
    """Known sensors, for the next reconstruction"""

    bl_label = "Known Sensor"
    operator = "kinora.job_sensor"
    draw = KINORA_MT_camera_sensor.draw


def _draw_job_sensor(self, context) -> None:
    self.layout.menu(KINORA_MT_job_sensor.__name__)


CLASSES = (
    KINORA_OT_measure_camera,
    KINORA_OT_smooth_camera,
    KINORA_OT_reset_camera,
    KINORA_OT_switch_camera_frames,
    KINORA_OT_jump_to_frame,
    KINORA_OT_solver_markers,
    KINORA_OT_camera_sensor,
    KINORA_OT_job_sensor,
    KINORA_OT_match_plate,
    KINORA_OT_plate_undistorted,
    KINORA_OT_write_st_maps,
    KINORA_MT_camera_sensor,
    KINORA_MT_job_sensor,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.KINORA_PT_lens.append(_draw_job_sensor)


def unregister() -> None:
    bpy.types.KINORA_PT_lens.remove(_draw_job_sensor)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
