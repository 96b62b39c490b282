"""Live View over a real server: the scene grows while the job runs, and outlives whatever happens to the job."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import pairwise

import bpy
import numpy as np
import pytest
from mathutils import Matrix

from backend.geometry.camera import unproject
from blender_addon.scene.imported import imported_in
from blender_addon.scene.live import find_live, live_views
from tests.chaos.proxy import Proxy
from tests.pipeline_for_tests import shown_world
from tests.scene.captures import shown
from tests.serving import wait_for

from .conftest import ROOT, SERVE, pump_until

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def ask(scene, tmp_path):
    """Press Reconstruct for a clip that makes the server's pipeline do `deed`; the job."""
    from blender_addon.ui.importing import views_of
    from blender_addon.ui.session import current

    for space in views_of(scene):
        space.shading.type = "MATERIAL"  # in Solid shading squares stand for the points

    def press(deed: str):
        clip = tmp_path / "street.mp4"
        clip.write_text(deed + f"\n{time.monotonic_ns()}", encoding="utf-8")  # another content, another job
        scene.kinora.clip_path = str(clip)
        assert bpy.ops.kinora.reconstruct() == {"FINISHED"}
        return current().jobs[-1]

    return press


def frames_shown(job) -> list[int]:
    view = find_live(job.ticket) if job.ticket else None
    return view.shown if view is not None else []


def assert_true(job, frame: int, frames: int) -> None:
    """The scene shows the frame of the synthetic world where it is, through the root that the artist may have moved."""
    world, _ = shown_world(frames)
    view = find_live(job.ticket)
    bpy.context.scene.frame_set(1 + 3 * frame)
    got = shown(view.player)
    points = unproject(world.depth[frame], world.intrinsics[frame], world.world_from_camera[frame])
    matrix = np.array(view.root.matrix_world)
    expected = points[world.depth[frame] > 0] @ matrix[:3, :3].T + matrix[:3, 3]
    assert np.allclose(got["position"], expected, atol=1e-4)
    assert np.array_equal(got["Color"][:, :3], world.rgb[frame][world.depth[frame] > 0])


def test_the_scene_grows_while_the_job_runs_and_the_import_takes_its_place(session, scene, ask):
    job = ask("show 4 0.7")
    pump_until(session, lambda: len(frames_shown(job)) >= 3)
    assert job.state == "RUNNING"
    assert_true(job, 1, 4)
    find_live(job.ticket).root.location.x += 5
    place = find_live(job.ticket).root.matrix_basis.copy()
    pump_until(session, lambda: not job.active)
    assert job.state == "DONE"
    assert not job.message
    assert not live_views(scene)
    (imported,) = imported_in(scene)
    assert np.allclose(imported.root.matrix_basis, place, atol=1e-6)
    assert not [d.name for d in bpy.data.user_map() if "Live" in d.name and not d.name.startswith("Kinora")]


def test_an_import_by_hand_takes_its_place_too(session, scene, ask):
    scene.kinora.import_when_done = False
    job = ask("show 2 0.5")
    pump_until(session, lambda: not job.active)
    (view,) = live_views(scene)
    assert not view.partial
    view.root.location.x += 5
    place = view.root.matrix_basis.copy()
    assert bpy.ops.kinora.import_capture(directory=scene.kinora.capture_path) == {"FINISHED"}
    assert not live_views(scene)
    (imported,) = imported_in(scene)
    assert np.allclose(imported.root.matrix_basis, place, atol=1e-6)


def test_undoing_the_import_brings_the_live_view_of_before_it_back(session, scene, ask):
    bpy.ops.ed.undo_push(message="Before")
    job = ask("show 2 0.5")
    pump_until(session, lambda: not job.active)
    assert imported_in(bpy.context.scene)
    bpy.ops.ed.undo()
    assert not imported_in(bpy.context.scene)
    bpy.ops.ed.redo()
    assert imported_in(bpy.context.scene)
    assert not live_views(bpy.context.scene)


def kept_of(session, scene):
    """The import that a job left that was cancelled now."""
    pump_until(session, lambda: not session.live.busy)
    (imported,) = imported_in(scene)
    return imported


def cancel(session, job) -> None:
    assert bpy.ops.kinora.cancel(job=job.uid) == {"FINISHED"}
    pump_until(session, lambda: not job.active)


def test_cancelled_it_keeps_what_has_arrived_as_a_capture_that_plays_and_exports(session, scene, ask, tmp_path):
    job = ask("show_on 6 0.1")
    pump_until(session, lambda: len(frames_shown(job)) >= 3)
    find_live(job.ticket).root.location.x += 5
    place = find_live(job.ticket).root.matrix_basis.copy()
    cancel(session, job)
    imported = kept_of(session, scene)
    assert not live_views(scene)
    assert job.state == "CANCELLED"
    assert np.allclose(imported.root.matrix_basis, place, atol=1e-6)  # it stands where the artist put it
    capture = imported.capture()
    assert imported.folder == job.folder == job.out.with_name(job.out.name + "_partial")
    assert not job.out.exists()
    assert capture.partial_of == 6
    assert 3 <= capture.frame_count <= 6
    assert job.kept == f"{capture.frame_count} frames were kept"
    assert imported.collection.name == "street Partial"
    world, _ = shown_world(6)
    for frame in range(capture.frame_count):
        assert np.allclose(capture.depth[frame], world.depth[frame], rtol=1e-5)
        scene.frame_set(1 + 3 * frame)
        expected = imported.root.matrix_world @ Matrix(world.world_from_camera[frame])
        assert (scene.camera.matrix_world.translation - expected.translation).length < 1e-4
    (player,) = imported.objects("player")
    assert len(shown(player)["position"])
    path = tmp_path / "camera.chan"
    assert bpy.ops.kinora.export(filepath=str(path), format="CHAN") == {"FINISHED"}
    assert len(path.read_text().splitlines()) >= 1 + 3 * (capture.frame_count - 1)
    assert bpy.ops.kinora.remove_import() == {"FINISHED"}
    assert not imported_in(scene)


def test_all_that_the_job_has_shown_is_kept_however_slowly_the_scene_takes_it(session, scene, ask):
    scene.kinora.live_rate = 0.2
    job = ask("show_on 12 0")
    pump_until(session, lambda: frames_shown(job))
    assert len(frames_shown(job)) <= 2
    cancel(session, job)
    assert kept_of(session, scene).capture().frame_count == 12


def test_a_job_that_fails_leaves_what_has_arrived_and_why(session, scene, ask):
    job = ask("show_and_fail 4 0.3")
    pump_until(session, lambda: not job.active)
    assert job.state == "FAILED"
    assert kept_of(session, scene).capture().frame_count >= 2
    assert job.message == "The camera never moves"


def test_the_whole_capture_takes_the_place_of_a_partial_one(session, scene, ask):
    job = ask("show_on 6 0")
    pump_until(session, lambda: len(frames_shown(job)) >= 2)
    cancel(session, job)
    partial = kept_of(session, scene)
    partial.root.location.x += 5
    cube = bpy.data.objects.new("mine", None)
    scene.collection.objects.link(cube)
    cube.parent = partial.root
    whole = ask("show 2 0")
    pump_until(session, lambda: not whole.active)
    assert not whole.message
    (imported,) = imported_in(scene)
    assert imported.capture().partial_of is None
    assert imported.folder == whole.out
    assert imported.collection.name == "street"
    assert cube.parent == imported.root
    assert not live_views(scene)


def test_a_partial_capture_leaves_a_whole_one_alone(session, scene, ask):
    first = ask("show 2 0")
    pump_until(session, lambda: not first.active)
    (whole,) = imported_in(scene)
    camera = scene.camera
    job = ask("show_on 6 0")
    pump_until(session, lambda: len(frames_shown(job)) >= 2)
    cancel(session, job)
    pump_until(session, lambda: not session.live.busy)
    partial = [one for one in imported_in(scene) if one.root != whole.root]
    assert [one.capture().partial_of for one in partial] == [6]
    assert whole.capture().partial_of is None
    assert scene.camera == camera


def test_it_can_be_kept_later_also_in_another_session(session, scene, ask, tmp_path):
    scene.kinora.live_keep = False
    job = ask("show_on 6 0.1")
    with pytest.raises(RuntimeError, match="no live view of a job that has ended"):
        bpy.ops.kinora.keep_live()
    pump_until(session, lambda: len(frames_shown(job)) >= 3)
    cancel(session, job)
    pump_until(session, lambda: not session.live.busy)
    (view,) = live_views(scene)
    assert view.partial
    assert_true(job, 2, 6)
    count = len(view.shown)
    bpy.ops.wm.save_as_mainfile(filepath=str(tmp_path / "later.blend"))
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    bpy.ops.wm.open_mainfile(filepath=str(tmp_path / "later.blend"))
    assert bpy.ops.kinora.keep_live(wait=True) == {"FINISHED"}
    assert not live_views(bpy.context.scene)
    (imported,) = imported_in(bpy.context.scene)
    assert imported.capture().frame_count == count


def test_live_views_are_removed_by_hand(session, scene, ask):
    scene.kinora.live_keep = False
    job = ask("show_on 6 0.1")
    pump_until(session, lambda: len(frames_shown(job)) >= 1)
    cancel(session, job)
    pump_until(session, lambda: not session.live.busy)
    assert bpy.ops.kinora.remove_live() == {"FINISHED"}
    assert not live_views(scene)
    with pytest.raises(RuntimeError, match="no live view"):
        bpy.ops.kinora.remove_live()


def test_what_the_artist_deletes_stays_deleted(session, scene, ask):
    job = ask("show_on 30 0.05")
    pump_until(session, lambda: len(frames_shown(job)) >= 2)
    find_live(job.ticket).remove()
    for _ in range(40):
        session.pump()
        time.sleep(0.02)
    assert not live_views(scene)
    assert job.state == "RUNNING"
    bpy.ops.kinora.cancel()
    pump_until(session, lambda: not job.active)


def test_undo_while_it_grows_loses_nothing(session, scene, ask):
    bpy.ops.ed.undo_push(message="Empty")
    bpy.context.scene.frame_current = 2
    bpy.ops.ed.undo_push(message="Two")
    job = ask("show_on 5 0.05")
    pump_until(session, lambda: len(frames_shown(job)) == 5)
    bpy.ops.ed.undo()  # to before there was a view at all
    assert not live_views(bpy.context.scene)
    pump_until(session, lambda: len(frames_shown(job)) == 5)
    assert_true(job, 4, 5)
    bpy.ops.kinora.cancel()
    pump_until(session, lambda: not job.active)


def test_switched_off_nothing_is_shown_and_switched_on_it_is(session, scene, ask):
    scene.kinora.live = False
    job = ask("show_on 3 0")
    pump_until(session, lambda: job.state == "RUNNING")
    for _ in range(40):
        session.pump()
        time.sleep(0.02)
    assert not live_views(scene)
    scene.kinora.live = True
    pump_until(session, lambda: len(frames_shown(job)) == 3)
    bpy.ops.kinora.cancel()
    pump_until(session, lambda: not job.active)


def test_no_more_frames_are_added_than_the_rate_allows(session, scene, ask):
    scene.kinora.live_rate = 4.0
    job = ask("show_on 8 0")
    counts, times = [], []

    def seen() -> bool:
        times.append(time.monotonic())
        counts.append(len(frames_shown(job)))
        return counts[-1] == 8

    pump_until(session, seen)
    first = np.flatnonzero(counts)[0]
    pauses = np.diff(times, prepend=times[0])
    late = np.maximum.accumulate(pauses)[first:]  # who pumps once in 3 s has as many due then
    assert np.all(np.array(counts[first:]) <= 4.0 * (np.array(times[first:]) - times[first] + late) + 2)
    assert times[-1] - times[first] > 6 / 4 - 2 * pauses.max()
    cancel(session, job)


def test_nothing_grows_while_the_artist_edits(session, scene, ask):
    if not bpy.context.window_manager.windows:
        pytest.skip("this Blender has no window at all")
    bpy.ops.mesh.primitive_cube_add()
    bpy.ops.object.mode_set(mode="EDIT")
    job = ask("show_on 3 0")
    pump_until(session, lambda: job.state == "RUNNING")
    for _ in range(30):
        session.pump()
        time.sleep(0.02)
    assert not live_views(scene)
    bpy.ops.object.mode_set(mode="OBJECT")
    pump_until(session, lambda: len(frames_shown(job)) == 3)
    bpy.ops.kinora.cancel()
    pump_until(session, lambda: not job.active)


class OwnServer:
    """A server of the test's own, which it may kill and start again at the same address."""

    def __init__(self, home) -> None:
        self.home, self.port, self.process = home, "0", None

    def start(self) -> None:
        file = self.home / "connection.json"
        file.unlink(missing_ok=True)  # a killed server leaves it
        serve = SERVE.replace('["serve"]', f'["serve", "--port", "{self.port}"]')
        self.process = subprocess.Popen([sys.executable, "-c", serve], cwd=ROOT, stdout=subprocess.PIPE)
        wait_for(file.is_file)
        self.port = json.loads(file.read_text(encoding="utf-8"))["address"].rpartition(":")[2]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_server(home):
    own = OwnServer(home)
    own.start()
    yield own
    own.kill()


def test_a_backend_killed_in_mid_stream_leaves_what_has_arrived_and_a_new_one_goes_on(own_server, session, scene, ask):
    job = ask("show_on 12 0.1")
    pump_until(session, lambda: len(frames_shown(job)) >= 3)
    own_server.kill()
    pump_until(session, lambda: session.state == "LOST")
    for _ in range(10):
        session.pump()
    arrived = frames_shown(job)
    assert 3 <= len(arrived) <= 12
    assert_true(job, arrived[-1], 12)
    own_server.start()  # it begins the job again
    pump_until(session, lambda: session.state == "READY" and frames_shown(job) == list(range(12)))
    assert_true(job, 11, 12)
    session.cancel(job)
    pump_until(session, lambda: not job.active)


def test_leaving_a_backend_keeps_what_has_arrived(own_server, session, scene, ask):
    job = ask("show_on 12 0.1")
    pump_until(session, lambda: len(frames_shown(job)) >= 3)
    session.stop_backend()
    session.pump()
    assert job.state == "AWAY"
    (view,) = live_views(scene)
    assert view.partial
    assert_true(job, view.shown[-1], 12)


def test_a_line_that_breaks_and_heals_leaves_no_hole_and_takes_nothing_back(own_server, home, session, scene, ask):
    """The scene only ever grows while the line is cut twice under a running job, and ends with every frame once."""
    with Proxy(int(own_server.port)) as line:
        file = home / "connection.json"
        told = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(told | {"address": line.address}), encoding="utf-8")
        job, seen = ask("show_on 16 0.15"), []

        def grown(count: int) -> bool:
            seen.append(frames_shown(job))
            return len(seen[-1]) >= count

        for count in (3, 7):
            pump_until(session, lambda count=count: grown(count))
            line.cut()
        pump_until(session, lambda: grown(16))
        assert all(set(before) <= set(after) for before, after in pairwise(seen))
        assert seen[-1] == list(range(16))
        assert_true(job, 15, 16)
        assert job.state == "RUNNING"
        cancel(session, job)
        assert kept_of(session, scene).capture().frame_count == 16
