"""What the artist does with an imported camera: measure, smooth, switch frames off, markers."""

# Annotations must stay objects here: Blender reads the properties from them.

import bpy
import numpy as np

from ..scene.camera import SCENE_FRAMES
from ..scene.camera_edits import CameraEdits, edit_camera, switch_frames
from ..scene.imported import Imported, find_imported
from ..scene.markers import remove_markers, show_markers
from ..scene.smoothing import Smoothing
from ..scene.solve_quality import SolveQuality, measure
from ..wire.errors import UserError
from .acting import ImportOperator

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


CLASSES = (
    KINORA_OT_measure_camera,
    KINORA_OT_smooth_camera,
    KINORA_OT_reset_camera,
    KINORA_OT_switch_camera_frames,
    KINORA_OT_jump_to_frame,
    KINORA_OT_solver_markers,
)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
