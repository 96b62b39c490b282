"""What an artist does in a first session with Kinora, step by step with a picture of each; run by `tests.app`."""

import sys
from pathlib import Path

import bpy

sys.path.insert(0, str(Path(__file__).parent))
from driving import MODULE, WORK, Driver, session, show_tab, view


def steps(driver: Driver):
    """Install is done; start the backend, reconstruct, look, tune, place, cancel, save."""
    bpy.context.preferences.view.show_splash = False
    scene = bpy.context.scene
    for ob in list(scene.objects):
        bpy.data.objects.remove(ob)
    assert MODULE in bpy.context.preferences.addons, "the extension is not enabled"
    view()[3].show_region_ui = True
    yield 1.5
    show_tab()
    yield 1.0
    driver.shot("panel")

    bpy.ops.kinora.backend_start()
    yield lambda: session().state == "READY"
    yield 0.5
    driver.shot("backend")

    scene.kinora.clip_path = str(WORK / "shot" / "courtyard.mp4")
    yield 1.5
    driver.shot("clip")

    driver.forget_gaps()
    bpy.ops.kinora.reconstruct()
    job = session().jobs[-1]
    yield lambda: job.fraction > 0.5 or not job.active
    driver.shot("running")
    yield lambda: not job.active
    assert job.state == "DONE", (job.state, job.message, job.hint)
    yield 1.0
    late = sorted(driver.late_ms)
    driver.say(
        f"a job of {job.folder.name}: {len(late)} ticks, the longest wait {late[-1]:.0f} ms, "
        f"99 % below {late[int(0.99 * len(late))]:.0f} ms, median {late[len(late) // 2]:.0f} ms"
    )
    driver.shot("imported")
    bpy.ops.wm.save_as_mainfile(filepath=str(WORK / "shot" / "shot.blend"))


Driver("session", steps)
