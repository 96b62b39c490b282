"""The Plate Cameras panel: which plates were localised in an import, and how well each was found."""

from __future__ import annotations

import bpy
import numpy as np

from ..scene.identity import IDENTITY
from ..scene.imported import Imported
from ..scene.plate_facts import PlateFacts
from ..scene.plates import plate_cameras
from ..scene.solve_quality import ALERT_PX
from . import session
from .acting import ImportPanel
from .panels import fact
from .text import draw_wrapped, sentence


class KINORA_PT_plates(ImportPanel, bpy.types.Panel):
    """The cameras of plates that were localised in the capture, and how well each was found."""

    bl_label = "Plate Cameras"
    bl_idname = "KINORA_PT_plates"
    bl_order = 25

    def draw_import(self, context, imported: Imported) -> None:
        layout = self.layout
        row = layout.row(align=True)
        row.operator("kinora.localise_plate", text="Localise Plate...", icon="CAMERA_DATA")
        row.operator("kinora.import_plate", text="", icon="IMPORT")
        for job in session.current().jobs:
            if job.active and job.localises:
                row = layout.row(align=True)
                row.label(text=f"{job.clip.name}: {job.status}", icon="SORTTIME")
                row.operator("kinora.cancel", text="", icon="X").job = job.uid
        for camera in plate_cameras(imported):
            box = layout.box()
            row = box.row(align=True)
            row.label(text=camera.name, icon="OUTLINER_OB_CAMERA")
            view = row.operator(
                "kinora.view_plate", text="", icon="VIEW_CAMERA", depress=context.scene.camera == camera
            )
            view.camera = camera.name
            row.operator("kinora.remove_plate", text="", icon="TRASH").camera = camera.name
            facts = PlateFacts.read(camera)
            if facts is not None:
                draw_facts(box, context, imported, facts)


def draw_facts(layout, context, imported: Imported, facts: PlateFacts) -> None:
    """How many frames were found, and how sure they are: over all, and at this frame."""
    column = layout.column(align=True)
    found, count = int(facts.found.sum()), len(facts.found)
    if count > 1:
        fact(column, "Frames Found", f"{found} of {count}", alert=found < count)
    index = facts.index(context.scene.frame_current) if count > 1 else 0
    errors = facts.error_px[facts.found & np.isfinite(facts.error_px)]
    inliers = f"{int(np.median(facts.inliers[facts.found]))}"
    if index is not None and not facts.found[index]:
        fact(column, "This Frame", "Not found", alert=True)
    elif index is not None and count > 1:
        inliers = f"{facts.inliers[index]}, median {inliers}"
    fact(column, "Inliers", inliers)
    if errors.size:
        here = facts.error_px[index] if index is not None and count > 1 else np.nan
        text = f"{here:.2f} px, mean {errors.mean():.2f}" if np.isfinite(here) else f"{errors.mean():.2f} px"
        fact(column, "Reprojection", text, alert=bool(errors.mean() > 2 * ALERT_PX))
    if facts.identity and facts.identity != imported.root.get(IDENTITY):
        warning = "The capture was updated since this plate was localised; localise it again if it does not fit"
        draw_wrapped(layout, context, warning, icon="ERROR")
    for note in facts.notes:
        draw_wrapped(layout, context, sentence(note), icon="INFO")


def register() -> None:
    bpy.utils.register_class(KINORA_PT_plates)


def unregister() -> None:
    bpy.utils.unregister_class(KINORA_PT_plates)
