"""Lens and plate of a camera: known sensors, the render's frame, distortion as it is seen and as ST maps."""

# Annotations must stay objects here: Blender reads the properties from them.
from pathlib import Path

import bpy

from ..scene.camera import PLATE_FRAMING
from ..scene.camera_edits import set_sensor
from ..scene.distortion import write_st_maps
from ..scene.imported import Imported
from ..scene.lens_nodes import lens_group
from ..scene.sensors import Sensor, known_sensors
from ..wire.errors import UserError
from .acting import ActionOperator
from .cameras import CameraOperator
from .properties import RELATIVE, absolute


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
