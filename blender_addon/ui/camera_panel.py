"""The Camera panel: the error of the import as numbers and as a graph, and everything that changes the camera."""

from __future__ import annotations

import bpy
import bpy.utils.previews
import numpy as np

from ..scene.camera import PLATE_FRAMING, shows_plate
from ..scene.camera_edits import CameraEdits
from ..scene.imported import Imported
from ..scene.markers import has_markers
from ..scene.solve_graph import picture, with_current
from ..scene.solve_quality import ALERT_PX, FLAGS, SolveQuality
from .acting import ImportPanel
from .cameras import measured
from .lenses import plates_behind
from .panels import fact
from .text import draw_wrapped

#: Blender draws an icon as a square, so the graph is this many squares side by side.
TILES = 4
TILE_PX = 64
#: What a widget takes, and what the sidebar's borders take, before the interface scale.
UNIT_PX, BORDERS_PX = 20, 48


class _Graph:
    """The graph of one camera at a time, as icons that are drawn again only when what they show has changed."""

    def __init__(self) -> None:
        self.icons = None
        self._shown: tuple = ()
        self._bars: tuple = ()
        self._pixels = np.zeros((0, 0, 4), np.uint8)

    def tiles(self, quality: SolveQuality, switched_off: frozenset[int], frame: int) -> list[int]:
        """Icons from left to right; all 0 where Blender has no window to show them in."""
        bars = (quality.mean_px.tobytes(), quality.flags.tobytes(), quality.scene_frames.tobytes(), switched_off)
        if bars != self._bars:
            self._pixels = picture(quality, switched_off, (TILES * TILE_PX, TILE_PX))
            self._bars, self._shown = bars, ()
        if self._shown != (frame,):
            self._show(with_current(self._pixels, quality, frame))
            self._shown = (frame,)
        return [self.icons[str(i)].icon_id for i in range(TILES)]

    def _show(self, pixels: np.ndarray) -> None:
        if self.icons is None:
            self.icons = bpy.utils.previews.new()
            for i in range(TILES):
                self.icons.new(str(i)).image_size = (TILE_PX, TILE_PX)
        for i in range(TILES):
            tile = np.ascontiguousarray(pixels[:, i * TILE_PX : (i + 1) * TILE_PX])
            self.icons[str(i)].image_pixels.foreach_set(tile.view(np.int32).ravel())

    def close(self) -> None:
        if self.icons is not None:
            bpy.utils.previews.remove(self.icons)
        self.__init__()


_graph = _Graph()


class KINORA_PT_camera(ImportPanel, bpy.types.Panel):
    """How well the camera fits the plate, and what can be done about it"""

    bl_label = "Camera"
    bl_idname = "KINORA_PT_camera"
    bl_order = 20

    def draw_import(self, context, imported: Imported) -> None:
        layout, camera = self.layout, imported.camera
        if camera is None:
            draw_wrapped(layout, context, "The camera of this capture was deleted", icon="ERROR")
            return
        quality, edits = measured(imported), CameraEdits.read(camera)
        if quality is None:
            layout.operator("kinora.measure_camera", text="Measure", icon="FILE_REFRESH")
        else:
            draw_error(layout, context, quality, edits)
            draw_flags(layout, context, imported, quality)
        draw_edits(layout, context, quality, edits)
        draw_lens(layout, context, imported)


def draw_error(layout, context, quality: SolveQuality, edits: CameraEdits) -> None:
    """The reprojection error as a number, at this frame, and over all frames."""
    column = layout.column(align=True)
    if quality.measured:
        fact(column, "Reprojection", f"{quality.error_px:.2f} px", alert=quality.error_px > ALERT_PX)
        fact(column, "Median", f"{quality.median_error_px:.2f} px", alert=quality.median_error_px > ALERT_PX)
        text, alert = this_frame(quality, edits, context.scene.frame_current)
        fact(column, "This Frame", text, alert=alert)
        index = quality.index(context.scene.frame_current)
        if index is not None and quality.flags[index]:
            fact(column, "Solver", FLAGS[quality.flags[index]])
        row = layout.row(align=True)
        across_px = context.region.width / (context.preferences.system.ui_scale or 1.0)  # 0 without a window
        for icon in _graph.tiles(quality, edits.switched_off, context.scene.frame_current):
            row.template_icon(icon, scale=max(1.0, (across_px - BORDERS_PX) / UNIT_PX / TILES))
    else:
        draw_wrapped(layout, context, "The capture has no tracks to measure an error with", icon="INFO")
        fact(column, "Off the Capture", f"{quality.deviation_px:.2f} px", alert=quality.deviation_px > ALERT_PX)
    row = layout.row(align=True)
    if quality.measured:
        row.operator("kinora.jump_to_frame", text="Worst Frame").where = "WORST"
    row.operator("kinora.measure_camera", text="Measure Again", icon="FILE_REFRESH")


def this_frame(quality: SolveQuality, edits: CameraEdits, scene_frame: int) -> tuple[str, bool]:
    """What is known of the frame of the capture that is seen now, and whether it is alarming."""
    index = quality.index(scene_frame)
    if index is None:
        return "Before the clip", False
    error = quality.mean_px[index]
    text = f"{error:.2f} px" if np.isfinite(error) else "No tracks"
    return text + (", off" if index in edits.switched_off else ""), bool(error > ALERT_PX)


def draw_flags(layout, context, imported: Imported, quality: SolveQuality) -> None:
    """How many frames the solver flagged, the way to them, and their markers."""
    count = int((quality.flags > 0).sum())
    if not count:
        return
    row = layout.row(align=True)
    row.label(text=f"{count} of {len(quality.flags)} frames flagged", icon="MARKER_HLT")
    row.operator("kinora.jump_to_frame", text="", icon="TRIA_LEFT").where = "PREVIOUS"
    row.operator("kinora.jump_to_frame", text="", icon="TRIA_RIGHT").where = "NEXT"
    shown = has_markers(context.scene, imported.root)
    row.operator("kinora.solver_markers", text="", icon="PMARKER_ACT", depress=shown).show = not shown


def draw_edits(layout, context, quality: SolveQuality | None, edits: CameraEdits) -> None:
    """Smoothing, frames that are switched off, and the way back to the capture."""
    smoothing = edits.smoothing
    column = layout.column(align=True)
    strengths = f"{smoothing.location:g} / {smoothing.rotation:g} / {smoothing.lens:g} frames"
    smoothed = any(vars(smoothing).values())
    if smoothed:
        fact(column, "Smoothed", strengths)
    if edits.switched_off:
        fact(column, "Switched Off", f"{len(edits.switched_off)} frame{'s' * (len(edits.switched_off) > 1)}")
    row = layout.row(align=True)
    row.operator_context = "INVOKE_DEFAULT"
    row.operator("kinora.smooth_camera", text="Smooth...", icon="MOD_SMOOTH")
    reset = row.row(align=True)
    reset.enabled = smoothed or bool(edits.switched_off)
    reset.operator("kinora.reset_camera", text="Reset", icon="LOOP_BACK")
    index = quality.index(context.scene.frame_current) if quality is not None else None
    row = layout.row(align=True)
    row.enabled = index is not None
    off = index in edits.switched_off
    button = row.operator(
        "kinora.switch_camera_frames", text="Switch Frame On" if off else "Switch Frame Off", icon="KEYFRAME"
    )
    button.on, button.which = off, "CURRENT"
    row.menu("KINORA_MT_camera_frames", text="", icon="DOWNARROW_HLT")


class KINORA_MT_camera_frames(bpy.types.Menu):
    """Other ways to switch frames of the camera off and on"""

    bl_label = "Switch Frames"
    bl_idname = "KINORA_MT_camera_frames"

    def draw(self, context) -> None:
        for text, on, which in (
            ("Switch Flagged Frames Off", False, "FLAGGED"),
            ("Switch Frames Above 1 px Off", False, "WORSE"),
            ("Switch a Range Off...", False, "RANGE"),
            ("Switch All Frames On", True, "ALL"),
        ):
            self.layout.operator_context = "INVOKE_DEFAULT" if which == "RANGE" else "EXEC_DEFAULT"
            button = self.layout.operator("kinora.switch_camera_frames", text=text)
            button.on, button.which = on, which
            if which == "WORSE":
                button.limit_px = 1.0


def draw_lens(layout, context, imported: Imported) -> None:
    """Lens and sensor, and which plate is seen where the lens distorts."""
    camera = imported.camera
    data = camera.data
    column = layout.column(align=True)
    fact(column, "Lens", f"{data.lens:.2f} mm on {data.sensor_width:g} mm")
    layout.menu("KINORA_MT_camera_sensor", icon="CAMERA_DATA")
    if context.scene.camera == camera and PLATE_FRAMING in camera and not shows_plate(camera, context.scene):
        alert = layout.column()
        alert.alert = True
        draw_wrapped(alert, context, "The render has another shape than the plate", icon="ERROR")
        layout.operator("kinora.match_plate")
    plates = plates_behind(camera)
    lens = plates[0].clip.tracking.camera if plates else None
    if lens is None or lens.distortion_model != "BROWN" or not (lens.brown_k1 or lens.brown_k2):
        return
    fact(layout, "Distortion", f"K1 {lens.brown_k1:.4g}, K2 {lens.brown_k2:.4g}")
    row = layout.row(align=True)
    straight = plates[0].clip_user.use_render_undistorted
    for text, value in (("Undistorted", True), ("As Shot", False)):
        row.operator("kinora.plate_undistorted", text=text, depress=straight == value).undistorted = value
    if not straight:
        draw_wrapped(layout, context, "The plate is as shot: points do not lie on it near its edges", icon="INFO")
    layout.operator("kinora.write_st_maps", icon="EXPORT")


CLASSES = (KINORA_PT_camera, KINORA_MT_camera_frames)


def register() -> None:
    for cls in CLASSES:
        bpy.utils.register_class(cls)


def unregister() -> None:
    _graph.close()
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
