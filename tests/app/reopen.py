"""Opens the file of the first session again and looks whether everything is there; run by `tests.app`."""

import importlib
import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))
from driving import MODULE, WORK, Driver, show_tab, view


def steps(driver: Driver):
    scene = bpy.context.scene
    imports = importlib.import_module(f"{MODULE}.scene.imported").imported_in(scene)
    # the cancelled job may have left a partial one
    (found,) = (one for one in imports if not one.root.get("kinora_partial_of"))
    assert found.camera is scene.camera
    assert found.capture().frame_count == 48
    assert abs(found.root.scale.x - 1) > 0.01, "the scale that was set is gone"
    view()[3].show_region_ui = True
    yield 1.5
    show_tab()
    scene.frame_set(40)
    yield 3.0
    driver.shot("reopened")
    depsgraph = bpy.context.evaluated_depsgraph_get()
    (player,) = found.objects("player")
    geometry = player.evaluated_get(depsgraph).evaluated_geometry()
    driver.say(f"reopened: {len(geometry.pointcloud.points)} moving points at frame 40, from {WORK.name}")
    assert len(geometry.pointcloud.points)


Driver("reopen", steps)
