"""Driving Blender from inside: steps that wait, pictures of the screen, how long the interface stood still.

Runs in Blender's Python, which has nothing but what Blender brings.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import traceback
from collections.abc import Callable, Generator
from pathlib import Path

import bpy

WORK = Path(os.environ["KINORA_HOME"]).parent
TICK_S = 0.1
#: How far down the panels of an import stand in the sidebar, in turns of the mouse wheel.
NOTCHES = 16
MODULE = "bl_ext.user_default.kinora"

#: What a step yields: seconds to wait, or a condition to wait for.
Wait = float | Callable[[], bool]


class Driver:
    """Runs a generator of waits from Blender's timer; at its end writes a report beside the pictures and quits."""

    def __init__(self, name: str, steps: Callable[[Driver], Generator[Wait, None, None]]) -> None:
        self.name = name
        self.lines: list[str] = []
        self.failed = ""
        # By how many ms each tick came late, what went on, and ms of the add-on's calls since the tick before.
        self.late: list[tuple[float, str, float]] = []
        self._ours = 0.0
        self._doing: Callable[[], str] = str
        self._steps = steps(self)
        self._until: float | Callable[[], bool] = time.monotonic() + 2.0
        self._deadline = time.monotonic() + 600
        self._due = 0.0
        bpy.app.timers.register(self._tick, first_interval=2.0)

    def say(self, line: str) -> None:
        """A line of the report."""
        self.lines.append(line)

    def shot(self, name: str) -> None:
        """A picture of the screen as it is drawn now."""
        path = WORK / "pictures" / f"{name}.png"
        subprocess.run(["import", "-window", "root", str(path)], check=True, capture_output=True)
        self._due = 0.0  # taking it held the interface up, which is not Kinora's doing

    def forget_gaps(self, doing: Callable[[], str] = str) -> None:
        """Begin measuring anew; `doing()` says what goes on."""
        self.late.clear()
        self.pumped: list[tuple[float, str]] = []  # ms of each call of the add-on's timer
        self._doing = doing
        now = session()
        pump = type(now).pump

        def measured() -> float | None:
            began, label = time.perf_counter(), doing()
            wait = pump(now)
            took = (time.perf_counter() - began) * 1000
            self.pumped.append((took, label))
            self._ours += took
            return wait

        now.pump = measured
        self._due = 0.0

    def say_gaps(self, what: str) -> None:
        """A line on how late the ticks came since `forget_gaps`."""
        longest = sorted(self.late)[:-6:-1]
        worst = ", ".join(f"{ms:.0f} ms in {doing or 'a job'} (Kinora {ours:.0f})" for ms, doing, ours in longest)
        late = sorted(ms for ms, _, _ in self.late)
        without = max(ms - min(ms, ours) for ms, _, ours in self.late)
        figures = f"the longest came {late[-1]:.0f} ms late, 99 % within {late[int(0.99 * len(late))]:.0f} ms"
        self.say(f"{what}: {len(late)} ticks of {TICK_S} s, {figures}, half within {late[len(late) // 2]:.0f} ms")
        self.say(f"  the longest, with Kinora's own calls since the tick before: {worst}")
        self.say(f"  without Kinora's own calls the longest would have been {without:.0f} ms at least")
        worst = ", ".join(f"{ms:.0f} ms in {doing or 'a job'}" for ms, doing in sorted(self.pumped)[:-6:-1])
        self.say(f"  of which Kinora's own calls at the most: {worst}")

    def _tick(self) -> float | None:
        now = time.perf_counter()
        if self._due:
            self.late.append((max(0.0, (now - self._due) * 1000), self._doing(), self._ours))
        self._ours = 0.0
        try:
            ready = self._until() if callable(self._until) else time.monotonic() >= self._until
            if not ready and time.monotonic() > self._deadline:
                raise TimeoutError("waited for ten minutes")
            if ready:
                step = next(self._steps)
                self._until = step if callable(step) else time.monotonic() + step
                self._deadline = time.monotonic() + 600
                self._due = 0.0  # what a step of ours takes is not counted
                return TICK_S
        except StopIteration:
            return self._finish()
        except Exception:
            self.failed = traceback.format_exc()
            self.shot("failed")
            return self._finish()
        self._due = time.perf_counter() + TICK_S
        return TICK_S

    def _finish(self) -> None:
        report = {"lines": self.lines, "failed": self.failed}
        (WORK / f"{self.name}.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        bpy.ops.wm.quit_blender()


def view() -> tuple:
    """The window, area, region and space of the first 3D view."""
    window = bpy.context.window_manager.windows[0]
    area = next(area for area in window.screen.areas if area.type == "VIEW_3D")
    region = next(region for region in area.regions if region.type == "WINDOW")
    return window, area, region, area.spaces.active


def in_view():
    """A context in which operators of the 3D view work."""
    window, area, region, _ = view()
    return bpy.context.temp_override(window=window, area=area, region=region)


def show_tab() -> None:
    """Open the sidebar on the Kinora tab; wait a second before calling it after `show_region_ui`."""
    _, area, _, space = view()
    space.show_region_ui = True
    sidebar = next(region for region in area.regions if region.type == "UI")
    sidebar.active_panel_category = "Kinora"
    area.tag_redraw()


def at_top(driver: Driver, panel: str, name: str, wait_s: float = 2.0) -> Generator[Wait, None, None]:
    """A picture with a panel of the add-on open and scrolled to, as a copy with a name of its own."""
    original = getattr(bpy.types, panel)
    about = {"bl_idname": f"{panel}_open", "bl_parent_id": "", "bl_options": set(), "bl_order": 5}
    copy = type(f"{panel}_open", (original,), about)
    bpy.utils.register_class(copy)
    window, area, _, _ = view()
    area.tag_redraw()
    yield 1.5
    sidebar = next(region for region in area.regions if region.type == "UI")
    with bpy.context.temp_override(window=window, area=area, region=sidebar):
        for _ in range(NOTCHES):
            bpy.ops.view2d.scroll_down()
    yield wait_s
    driver.shot(name)
    bpy.utils.unregister_class(copy)  # and the sidebar is at its top again


def session():
    """The add-on's session."""
    import importlib

    return importlib.import_module(f"{MODULE}.ui.session").current()
