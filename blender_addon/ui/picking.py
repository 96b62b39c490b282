"""Picking points of a capture with the mouse: what operators that need places in the world start from a button."""

# Annotations must stay objects here: Blender reads properties from the classes that derive from these.
import math

import blf
import bpy
import gpu
import numpy as np
from bpy_extras.view3d_utils import location_3d_to_region_2d
from gpu_extras.batch import batch_for_shader
from mathutils import Vector

from ..scene.imported import find_imported
from ..scene.picking import pick, shown_points
from .acting import ImportOperator

RADIUS_PX = 14
FOUND, CHOSEN = (1.0, 1.0, 1.0, 0.9), (1.0, 0.55, 0.1, 1.0)
#: What the artist may do between two clicks: look around and step through time.
NAVIGATION = {
    "MIDDLEMOUSE",
    "WHEELUPMOUSE",
    "WHEELDOWNMOUSE",
    "WHEELINMOUSE",
    "WHEELOUTMOUSE",
    "TRACKPADPAN",
    "TRACKPADZOOM",
    "MOUSEROTATE",
    "MOUSESMARTZOOM",
    "NDOF_MOTION",
    "LEFT_ARROW",
    "RIGHT_ARROW",
    *(f"NUMPAD_{n}" for n in range(10)),
    "NUMPAD_PERIOD",
}


class PickOperator(ImportOperator):
    """An operator with a property that takes world points: from a script, or picked one by one in a 3D view.

    Derive with bpy.types.Operator, define the property named by `picked` with `point_property`, and give `prompts`, a
    line of text for each point to pick. `given` says whether points were given or picked when it is executed.
    """

    picked = "points"
    prompts: tuple[str, ...] = ()

    @property
    def given(self) -> bool:
        return self.properties.is_property_set(self.picked)

    def invoke(self, context, event):
        area = context.area
        if self.given or not self.prompts or area is None or area.type != "VIEW_3D":
            return self.execute(context)
        region = next((r for r in area.regions if r.type == "WINDOW"), None)
        if region is None:
            return self.execute(context)
        self.view = _View(area, region, find_imported(context).root)
        self.view.start(self.prompts[0], self.bl_label)
        context.window_manager.modal_handler_add(self)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        view = self.view
        if event.type in {"ESC", "RIGHTMOUSE"} or not view.alive(context):
            view.stop()
            return {"CANCELLED"}
        if event.type in NAVIGATION:
            return {"PASS_THROUGH"}
        if event.type == "MOUSEMOVE":
            view.find(context, event)
            return {"RUNNING_MODAL"}
        if event.type == "BACK_SPACE" and event.value == "PRESS" and view.chosen:
            view.chosen.pop()
        if event.type == "LEFTMOUSE" and event.value == "PRESS":
            if not view.holds(event):
                return {"PASS_THROUGH"}
            view.find(context, event)
            if view.found is None:
                self.report({"WARNING"}, "There is no point of the capture under the mouse")
            else:
                view.chosen.append(view.found)
        if len(view.chosen) == len(self.prompts):
            view.stop()
            setattr(self, self.picked, view.chosen if len(self.prompts) > 1 else view.chosen[0])
            return self.execute(context)
        view.say(self.prompts[len(view.chosen)], self.bl_label)
        return {"RUNNING_MODAL"}

    def cancel(self, context):
        self.view.stop()


def point_property(count: int, about: str):
    """`count` world points, three numbers each in Blender units; one point is a plain vector."""
    return bpy.props.FloatVectorProperty(
        name="Points" if count > 1 else "Point",
        description=about,
        size=(count, 3) if count > 1 else 3,
        subtype="XYZ",
        unit="LENGTH",
        options={"HIDDEN", "SKIP_SAVE"},
    )


class _View:
    """The 3D view that points are picked in, what was picked, and the marks drawn there."""

    def __init__(self, area, region, root) -> None:
        self.area, self.region, self.root_name = area, region, root.name
        self.chosen: list[np.ndarray] = []
        self.found: np.ndarray | None = None
        self._frame, self._points = None, np.empty((0, 3), np.float32)
        self._handle = None

    def start(self, prompt: str, title: str) -> None:
        self._handle = bpy.types.SpaceView3D.draw_handler_add(self._draw, (), "WINDOW", "POST_PIXEL")
        self.say(prompt, title)

    def stop(self) -> None:
        if self._handle is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handle, "WINDOW")
            self._handle = None
            self.area.header_text_set(None)
            self.area.tag_redraw()

    def say(self, prompt: str, title: str) -> None:
        self.area.header_text_set(f"{title}: {prompt}    |    Backspace: last point again    |    Esc: cancel")
        self.area.tag_redraw()

    def alive(self, context) -> bool:
        """Whether the view and the import are still there."""
        return (
            context.screen is not None
            and self.area in context.screen.areas[:]
            and self.area.type == "VIEW_3D"
            and self.root_name in context.scene.objects
        )

    def _mouse(self, event) -> tuple[int, int]:
        return event.mouse_x - self.region.x, event.mouse_y - self.region.y

    def holds(self, event) -> bool:
        """Whether the mouse is over the view itself, not over its header or sidebar."""
        regions = [r for r in self.area.regions if r.type != "WINDOW" and r.width > 1 and r.height > 1]
        over = any(
            r.x <= event.mouse_x < r.x + r.width and r.y <= event.mouse_y < r.y + r.height
            for r in regions
            if r.type in {"UI", "HEADER", "TOOL_HEADER"}
        )
        x, y = self._mouse(event)
        return 0 <= x < self.region.width and 0 <= y < self.region.height and not over

    def find(self, context, event) -> None:
        """Look for the point under the mouse."""
        imported = find_imported(context)
        if imported is None:
            self.found = None
            return
        if self._frame != context.scene.frame_current:
            self._frame = context.scene.frame_current
            self._points = shown_points(imported, context.evaluated_depsgraph_get())
        matrix = np.array(self.area.spaces.active.region_3d.perspective_matrix, np.float32)
        size = self.region.width, self.region.height
        self.found = pick(self._points, matrix, size, self._mouse(event), RADIUS_PX)
        self.area.tag_redraw()

    def _draw(self) -> None:
        if bpy.context.area != self.area:
            return
        places = [(p, CHOSEN) for p in self.chosen] + ([(self.found, FOUND)] if self.found is not None else [])
        seen = [
            (location_3d_to_region_2d(self.region, self.area.spaces.active.region_3d, Vector(p)), colour)
            for p, colour in places
        ]
        scale = bpy.context.preferences.system.ui_scale
        shader = gpu.shader.from_builtin("UNIFORM_COLOR")
        gpu.state.blend_set("ALPHA")
        gpu.state.line_width_set(2 * scale)
        line = [at for at, colour in seen if colour == CHOSEN and at is not None]
        if len(line) > 1:
            shader.uniform_float("color", (*CHOSEN[:3], 0.5))
            batch_for_shader(shader, "LINE_STRIP", {"pos": [(p.x, p.y) for p in line]}).draw(shader)
        for number, (at, colour) in enumerate(seen, 1):
            if at is None:
                continue
            shader.uniform_float("color", colour)
            batch_for_shader(shader, "LINE_LOOP", {"pos": _circle(at, 7 * scale)}).draw(shader)
            if colour == CHOSEN:
                blf.size(0, 13 * scale)
                blf.color(0, *colour)
                blf.position(0, at.x + 10 * scale, at.y + 8 * scale, 0)
                blf.draw(0, str(number))
        gpu.state.line_width_set(1)
        gpu.state.blend_set("NONE")


def _circle(centre: Vector, radius: float) -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / 24 for i in range(24)]
    return [(centre.x + radius * math.cos(a), centre.y + radius * math.sin(a)) for a in turns]
