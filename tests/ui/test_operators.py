"""What buttons say when they are greyed out, the import operator, and starting and stopping a backend."""

from __future__ import annotations

import bpy
import pytest

from blender_addon.scene.report import ImportReport

from .conftest import pump_until


def test_a_greyed_out_button_says_why(scene, session):
    for operator, why in (
        (bpy.ops.kinora.reconstruct, "Choose a clip first"),
        (bpy.ops.kinora.cancel, "Nothing is being reconstructed"),
        (bpy.ops.kinora.backend_stop, "not running"),
        (bpy.ops.kinora.copy_report, "Nothing was reconstructed"),
    ):
        assert not operator.poll()
        with pytest.raises(RuntimeError, match=why):
            operator()


def test_tooltips_are_sentences_without_a_full_stop(addon):
    for name in (n for n in dir(bpy.ops.kinora) if not n.startswith("_")):
        tooltip = getattr(bpy.ops.kinora, name).get_rna_type().description
        assert tooltip[0].isupper(), name
        assert not tooltip.endswith("."), name
        assert "\n" not in tooltip, name


def test_a_missing_clip_is_an_error_of_the_operator(scene, session):
    scene.kinora.clip_path = "/nowhere/street.mp4"
    with pytest.raises(RuntimeError, match=r"street\.mp4 does not exist; choose the file again"):
        bpy.ops.kinora.reconstruct()
    assert session.jobs == []


def test_import_takes_every_import_option(scene, capture_folder):
    done = bpy.ops.kinora.import_capture(directory=str(capture_folder), collection_name="Street", start_frame=101)
    assert done == {"FINISHED"}
    collection = scene.collection.children["Street"]
    assert ImportReport.read(collection).folder == str(capture_folder)
    assert (scene.frame_start, scene.frame_end) == (101, 104)
    assert scene.kinora.capture_path == str(capture_folder)


def test_import_of_what_is_no_capture_says_so(scene, tmp_path):
    with pytest.raises(RuntimeError, match=r"is not a capture; choose the folder that holds capture\.json"):
        bpy.ops.kinora.import_capture(directory=str(tmp_path))
    assert not scene.collection.children


def test_no_backend_installed_says_what_to_run(session, home):
    (home / "backend.json").unlink()
    bpy.ops.kinora.backend_start()
    assert session.state == "STARTING"
    pump_until(session, lambda: session.state == "OFF")
    assert "No backend is installed" in session.note
    assert "install_deps.py" in session.hint


def test_a_job_without_a_backend_fails_with_the_reason(session, scene, home, clip):
    (home / "backend.json").unlink()
    scene.kinora.clip_path = str(clip)
    bpy.ops.kinora.reconstruct()
    job = session.job(scene)
    pump_until(session, lambda: not job.active)
    assert job.state == "FAILED"
    assert "No backend is installed" in job.message


@pytest.mark.slow
def test_a_backend_that_was_started_here_ends_with_the_session(session, scene, home, clip):
    """The real backend in its own process: it starts, refuses a text file called .mp4, and goes when we go."""
    bpy.ops.kinora.backend_start()
    assert not bpy.ops.kinora.backend_start.poll()
    pump_until(session, lambda: session.state == "READY")
    assert session.started_here
    process = session._backend.local.process
    scene.kinora.clip_path = str(clip)
    bpy.ops.kinora.reconstruct()
    job = session.job(scene)
    pump_until(session, lambda: not job.active)
    assert job.state == "FAILED"
    assert "street.mp4" in job.message
    assert job.hint
    session.close()
    assert process.poll() is not None


@pytest.mark.slow
def test_stop_ends_the_backend_and_start_brings_it_back(session, home):
    for _ in range(2):
        bpy.ops.kinora.backend_start()
        pump_until(session, lambda: session.state == "READY")
        process = session._backend.local.process
        bpy.ops.kinora.backend_stop()
        assert session.state == "OFF"
        process.wait(20)


def test_a_backend_given_up_while_it_starts_is_stopped(session, home):
    bpy.ops.kinora.backend_start()
    opening = session._opening
    bpy.ops.kinora.backend_stop()
    opening._thread.join(20)
    assert opening.result() is None
    from blender_addon import launcher

    assert launcher.find_running() is None


def test_a_remote_backend_needs_online_access(session, home, tmp_path):
    from blender_addon.ui.preferences import BackendChoice
    from blender_addon.wire.connection import Connection

    file = tmp_path / "gpu.json"
    Connection("tcp://192.0.2.7:5555", "k" * 40, "k" * 40, "k" * 40).write(file)
    assert not bpy.app.online_access
    session.start_backend(BackendChoice(remote=True, connection_file=file))
    pump_until(session, lambda: session.state == "OFF")
    assert "offline" in session.note
    assert "System" in session.hint
