"""What an artist does in a first session with Kinora, step by step with a picture of each; run by `tests.app`."""

import importlib
import os
import sys
import time
from pathlib import Path

import bpy
from mathutils import Vector

sys.path.insert(0, str(Path(__file__).parent))
from driving import MODULE, WORK, Driver, at_top, in_view, session, show_tab, view


def kinora(name: str):
    """A module of the installed add-on."""
    return importlib.import_module(f"{MODULE}.{name}")


def install(driver: Driver):
    """Blender's own command has installed and enabled the extension."""
    assert MODULE in bpy.context.preferences.addons, "the extension is not enabled"
    bpy.ops.wm.save_as_mainfile(filepath=str(WORK / "shot" / "shot.blend"))  # so that paths are short in the pictures
    for ob in list(bpy.context.scene.objects):
        bpy.data.objects.remove(ob)
    bpy.context.preferences.active_section = "ADDONS"
    bpy.context.window_manager.addon_search = "Kinora"
    area = view()[1]
    area.type = "PREFERENCES"
    yield 2.0
    bpy.ops.preferences.addon_expand(module=MODULE)
    area.tag_redraw()
    yield 2.0
    driver.shot("preferences")
    yield from pair(driver, area)
    area.type = "VIEW_3D"
    yield 1.0
    view()[3].show_region_ui = True
    yield 1.5
    show_tab()
    yield 1.0


def pair(driver: Driver, area: bpy.types.Area):
    """Know two backends on other computers by their pairing codes, and forget them again."""
    import zmq

    settings = bpy.context.preferences.addons[MODULE].preferences
    Connection = kinora("wire.connection").Connection
    names = ("gpu-box", "farm")
    for name in names:
        (server, _), pair = zmq.curve_keypair(), zmq.curve_keypair()
        keys = [key.decode() for key in (server, *pair)]
        bpy.ops.kinora.backend_pair(code=Connection(f"tcp://{name}:5555", *keys).to_code())
    settings.backend = "REMOTE"
    area.tag_redraw()
    yield 2.0
    driver.shot("backends")
    for name in names:
        bpy.ops.kinora.backend_forget(name=name)
    settings.backend = "LOCAL"


def start(driver: Driver):
    """Start the backend."""
    bpy.ops.kinora.backend_start()
    yield lambda: session().state == "READY"
    yield 0.5


def drop(driver: Driver):
    """What Blender calls when the clip is dropped on the view."""
    with in_view():
        clip = WORK / "shot" / "courtyard.mp4"
        bpy.ops.kinora.open_clip("INVOKE_DEFAULT", directory=str(clip.parent), files=[{"name": clip.name}])
    yield 6.0
    if bpy.data.filepath:  # short in the pictures
        bpy.context.scene.kinora.clip_path = bpy.path.relpath(bpy.context.scene.kinora.clip_path)
    show_tab()
    yield 2.0
    driver.shot("clip")


def unseen(driver: Driver):
    """A whole job in a scene of its own, in a window with nothing to draw: what Kinora holds up, not the drawing."""
    window, area, _, _ = view()
    shot = window.scene
    other = bpy.data.scenes.new("Other")
    other.kinora.clip_path = shot.kinora.clip_path
    other.kinora.clip.last_frame = 44  # not the job that is done already
    window.scene = other
    area.type = "TEXT_EDITOR"
    with bpy.context.temp_override(window=window, area=area):
        bpy.ops.screen.screen_full_area()
    yield 1.0
    bpy.ops.kinora.reconstruct()
    job = session().jobs[-1]
    driver.forget_gaps(doing=lambda: job.status)
    yield lambda: not job.active
    assert job.state == "DONE", (job.state, job.message, job.hint)
    assert kinora("scene.imported").imported_in(other)
    driver.say_gaps("interface, a whole job in a window with nothing to draw")
    with bpy.context.temp_override(window=window, area=window.screen.areas[0]):
        bpy.ops.screen.back_to_previous()
    yield 1.0
    next(area for area in window.screen.areas if area.type == "TEXT_EDITOR").type = "VIEW_3D"
    window.scene = shot
    bpy.data.scenes.remove(other)
    bpy.ops.outliner.orphans_purge(do_recursive=True)
    yield 1.0


def reconstruct(driver: Driver):
    """Reconstruct with the classical engine, and see it grow; how long the interface stood still meanwhile."""
    scene = bpy.context.scene
    driver.forget_gaps()
    bpy.ops.kinora.reconstruct()
    job = session().jobs[-1]
    yield lambda: job.fraction > 0.75 or not job.active
    driver.shot("running")
    yield lambda: not job.active
    assert job.state == "DONE", (job.state, job.message, job.hint)
    yield 0.5
    driver.say_gaps("interface, a whole job in the 3D view")
    assert scene.camera is not None
    for _ in range(15):  # without a graphics card Blender takes its time for the shaders
        view()[1].tag_redraw()
        yield 2.0
    driver.shot("imported")


def play(driver: Driver):
    """Play through the camera; how many frames a second the screen shows."""
    shown = []
    counter = lambda scene, depsgraph=None: shown.append(time.perf_counter())  # noqa: E731
    bpy.app.handlers.frame_change_post.append(counter)
    ended = time.monotonic() + 60
    with in_view():
        bpy.ops.screen.animation_play()
    yield lambda: len(shown) > 30 or time.monotonic() > ended
    with in_view():
        bpy.ops.screen.animation_cancel(restore_frame=False)
    bpy.app.handlers.frame_change_post.remove(counter)
    assert len(shown) > 2, "nothing was played"
    driver.say(f"playback: {(len(shown) - 1) / (shown[-1] - shown[0]):.1f} frames a second, without a graphics card")
    bpy.context.scene.frame_set(24)


def from_aside() -> None:
    """Look at the capture from beside its camera."""
    region_3d = view()[3].region_3d
    region_3d.view_perspective = "PERSP"
    camera = bpy.context.scene.camera.matrix_world
    ahead = camera.translation + camera.to_3x3() @ Vector((0, 0, -1)) * region_3d.view_distance * 0.5
    region_3d.view_location = ahead
    region_3d.view_rotation = (camera.to_quaternion().to_matrix().to_4x4()).to_quaternion()
    with in_view():
        bpy.ops.view3d.view_orbit(angle=0.6, type="ORBITLEFT")
        bpy.ops.view3d.view_orbit(angle=0.35, type="ORBITUP")


def tune(driver: Driver):
    """Change the sliders of the points."""
    from_aside()
    yield 1.0
    found = kinora("scene.imported").imported_in(bpy.context.scene)[0]
    nodes = kinora("scene.nodes")
    for role in ("player", "static"):
        for ob in found.objects(role):
            modifier = next(m for m in ob.modifiers if m.type == "NODES")
            nodes.set_input(modifier, "Point Size", 2.5)
            nodes.set_input(modifier, "Min Confidence", 0.15)  # the cards of movers have 0.2
            if role == "player":
                nodes.set_input(modifier, "Ghosts Before", 3)
                nodes.set_input(modifier, "Ghost Step", 6)
    bpy.context.view_layer.objects.active = found.root
    yield from at_top(driver, "KINORA_PT_points", "points", wait_s=4.0)


def place(driver: Driver):
    """Set the floor by three points of the capture, and the scale by a known length."""
    found = kinora("scene.imported").imported_in(bpy.context.scene)[0]
    (static,) = found.objects("static")
    depsgraph = bpy.context.evaluated_depsgraph_get()
    geometry = static.evaluated_get(depsgraph).evaluated_geometry()
    points = [static.matrix_world @ p.co for p in geometry.pointcloud.points]
    low = sorted(points, key=lambda p: p.z)[: len(points) // 10]
    floor = [min(low, key=lambda p: p.x), max(low, key=lambda p: p.x), max(low, key=lambda p: p.y)]
    assert bpy.ops.kinora.set_floor(points=[tuple(p) for p in floor]) == {"FINISHED"}
    before = found.root.scale.x
    length = (floor[1] - floor[0]).length
    assert bpy.ops.kinora.set_scale(points=[tuple(p) for p in floor[:2]], length=2 * length) == {"FINISHED"}
    driver.say(f"world: scale {before:.2f} -> {found.root.scale.x:.2f}")
    yield from at_top(driver, "KINORA_PT_world", "world")
    view()[3].region_3d.view_perspective = "CAMERA"
    yield from at_top(driver, "KINORA_PT_camera", "camera", wait_s=4.0)


def cancel(driver: Driver):
    """Ask for a second job and cancel it; the first import stays."""
    scene = bpy.context.scene
    count = len(scene.objects)
    scene.kinora.clip.frame_step = 2
    bpy.ops.kinora.reconstruct()
    job = session().jobs[-1]
    yield lambda: job.fraction > 0.1 or not job.active
    bpy.ops.kinora.cancel()
    yield lambda: not job.active and not session().live.busy
    assert job.state == "CANCELLED", job.state
    yield 1.0
    assert len(scene.objects) >= count
    driver.shot("cancelled")


def idle(driver: Driver):
    """How late the ticks are by drawing alone: the view turns, and nothing else happens."""
    driver.forget_gaps()
    for _ in range(8):
        with in_view():
            bpy.ops.view3d.view_orbit(angle=0.02, type="ORBITLEFT")
        yield lambda ticks=[]: ticks.append(0) or len(ticks) > 2
    driver.say_gaps("interface, nothing but turning the view")


def save(driver: Driver):
    """Save and quit."""
    bpy.ops.wm.save_as_mainfile(filepath=str(WORK / "shot" / "shot.blend"))
    yield 0.5


def steps(driver: Driver):
    every = (install, start, drop, unseen, reconstruct, play, tune, idle, place, cancel, save)
    wanted = os.environ.get("KINORA_APP_STEPS", "").split()
    for step in (step for step in every if not wanted or step.__name__ in wanted):
        began = time.perf_counter()
        yield from step(driver)
        driver.say(f"{step.__name__}: {time.perf_counter() - began:.0f} s")


Driver("session", steps)
