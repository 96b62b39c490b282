"""The queue as it is shown: jobs of this Blender and of the backend in one list, with what can be done about each."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import bpy
import pytest

from blender_addon.server_job import Listing, ServerJob, Usage
from blender_addon.ui import queue, queue_rows
from blender_addon.ui.reconstruction import Reconstruction, SceneRef
from blender_addon.wire.settings import JobSettings, LocaliseSettings

from .test_panels import Recorder, in_sidebar, squeezed

NOON = time.mktime((2026, 11, 21, 12, 0, 0, 0, 0, -1))


@pytest.fixture
def local(scene):
    """A job of this Blender; each is asked for a second later than the one before."""
    made = []

    def make(name: str, state: str, **more) -> Reconstruction:
        asked = NOON + len(made)
        job = Reconstruction(
            SceneRef.of(scene), Path(name), Path("out"), JobSettings(), state=state, asked=asked, **more
        )
        made.append(replace(job, uid=f"uid-{name}"))
        return made[-1]

    return make


def there(name: str, state: str, **more) -> ServerJob:
    """A job that the backend lists."""
    return ServerJob(
        **{"job": f"id-{name}", "created": NOON - 3600, "engine": "classical", **more}, state=state, name=name
    )


def shown(session) -> list[str]:
    return [row.name for row in queue_rows.rows(session)]


def drawn(*names: str) -> str:
    """Everything that the queue shows, its lines too."""
    seen: list[str] = []
    with in_sidebar():
        for line in bpy.context.window_manager.kinora_queue.rows:
            layout = Recorder(seen)
            queue.KINORA_UL_queue.draw_item(None, bpy.context, layout, None, line, 0, None, "")
        bpy.types.KINORA_PT_queue.draw(SimpleNamespace(layout=Recorder(seen)), bpy.context)
    return " ".join(seen)


def choose(session, name: str) -> None:
    """Click on the line of a job."""
    manager = bpy.context.window_manager
    queue_rows.sync(session)
    manager.kinora_queue.index = [line.name for line in manager.kinora_queue.rows].index(name)


def test_what_runs_comes_first_then_what_waits_in_its_order_then_what_ended_the_newest_first(session, local):
    session.jobs = [
        local("failed.mp4", "FAILED"),
        local("third.mp4", "QUEUED", queue_position=3),
        local("running.mp4", "RUNNING"),
        local("done.mp4", "DONE"),
    ]
    earlier = there("earlier.mp4", "done", ended=NOON)
    first, second = there("first.mp4", "queued", position=1), there("second.mp4", "queued", position=2)
    session.server.listing = Listing((second, earlier, first))
    assert shown(session) == [
        *("running.mp4", "first.mp4", "second.mp4", "third.mp4"),
        *("done.mp4", "failed.mp4", "earlier.mp4"),
    ]


def test_a_job_that_both_know_is_one_line(session, local):
    session.jobs = [local("a.mp4", "RUNNING", server_job="id-a.mp4", fraction=0.4, eta_s=95.0)]
    session.server.listing = Listing((there("a.mp4", "running"), there("b.mp4", "running")))
    choose(session, "a.mp4")
    text = drawn()
    assert text.count("a.mp4") == 1
    assert "a.mp4 40% []" in text
    assert "b.mp4 [] []" in text, "it can be followed, and cancelled"
    assert "40%, 2 min left" in text, "the whole of it for the job that is chosen"


def test_a_localised_plate_is_imported_as_a_camera(session, local, tmp_path):
    settings = JobSettings("localise", engine_settings=LocaliseSettings(reference="a" * 32))
    job = replace(local("plate.mp4", "DONE", folder=tmp_path / "plate"), settings=settings)
    session.jobs = [job]
    made = {}

    class Line(Recorder):
        def operator(self, name, **keywords):
            made[name] = SimpleNamespace()
            return made[name]

        def row(self, **keywords):
            return self

    with in_sidebar():
        queue.draw_row(Line([]), bpy.context, queue_rows.rows(session)[0])
    assert "kinora.import_capture" not in made
    assert made["kinora.import_plate"].directory == str(tmp_path / "plate")
    choose(session, "plate.mp4")
    assert "Localise," in squeezed(drawn())


def test_every_line_has_what_is_done_about_it(session, local, tmp_path):
    session.jobs = [
        local("waits.mp4", "QUEUED", queue_position=2),
        local("broken.mp4", "FAILED", message="no"),
        local("ready.mp4", "DONE", folder=tmp_path),
    ]
    session.server.listing = Listing((there("old.mp4", "done"), there("gone.mp4", "cancelled")))
    queue_rows.sync(session)
    text = drawn()
    for line in (
        "waits.mp4 #2 []",  # cancel
        "ready.mp4 [] []",  # import, remove
        "broken.mp4 [] []",  # error, remove
        "old.mp4 []",  # fetch
        "gone.mp4 ",
    ):
        assert line in text


def test_the_chosen_job_is_described(session, local):
    told = there("shot.mp4", "done", created=time.time(), bytes=1_230_000_000, priority=5, attempt=2, pinned=True)
    session.server.listing = Listing((there("other.mp4", "done"), told))
    choose(session, "shot.mp4")
    text = squeezed(drawn())
    assert f"Classic,{queue.when(time.time())}".replace(" ", "") in text
    assert "1.2GB,priority+5,attempt2,pinned" in text


def test_what_is_tried_again_is_told_in_its_line(session, local):
    job = local("shot.mp4", "RUNNING", where="NVIDIA H200 on farm-3")
    job.log += ["info: looking", "retry: out of GPU memory; goes on with smaller windows", "info: going on"]
    session.jobs = [job]
    choose(session, "shot.mp4")
    text = squeezed(drawn())
    assert "Goesonwithsmaller" not in text
    assert "OutofGPUmemory;goesonwithsmallerwindows" in text
    assert "OnNVIDIAH200onfarm-3" in text


def test_the_choice_stays_with_its_job_when_the_list_changes(session, local):
    session.server.listing = Listing((there("a.mp4", "done"), there("b.mp4", "queued")))
    choose(session, "a.mp4")
    session.server.listing = Listing((there("c.mp4", "running"), *session.server.listing.jobs))
    queue_rows.sync(session)
    assert queue_rows.selected_key(bpy.context.window_manager) == "id-a.mp4"
    session.server.listing = Listing(())
    queue_rows.sync(session)
    assert queue_rows.selected_key(bpy.context.window_manager) == ""


def test_the_disk_of_the_backend_is_shown(session):
    session.server.listing = Listing(
        (there("a.mp4", "done"),), Usage(1, 24_000_000_000, 5_000_000_000, 100_000_000_000)
    )
    assert "24 GB of 100 GB at the backend" in drawn()
    session.server.listing = Listing((), Usage(0, 0, 50_000_000_000))
    assert "0 kB of 50 GB at the backend" in drawn()


def test_why_something_did_not_go_is_one_line(session):
    session.server.problem = "the backend does not know this job; send it again"
    assert "Thebackenddoesnotknowthisjob;senditagain" in squeezed(drawn())


def test_clearing_leaves_what_is_under_way_and_loses_nothing(session, local):
    session.jobs = [local("a.mp4", "RUNNING"), local("b.mp4", "DONE"), local("c.mp4", "AWAY", server_job="c")]
    session.server.listing = Listing((there("old.mp4", "done"),))
    assert bpy.ops.kinora.clear_queue() == {"FINISHED"}
    lines = bpy.context.window_manager.kinora_queue.rows
    assert [line.name for line in lines] == ["a.mp4", "c.mp4"]
    bpy.context.window_manager.kinora_queue.ended_too = True
    queue_rows.sync(session)
    assert [line.name for line in lines] == ["a.mp4", "c.mp4", "old.mp4"], "the backend still has it"


@pytest.mark.parametrize("operator", ["fetch_job", "move_job", "pin_job", "delete_job", "job_priority", "refresh_jobs"])
def test_without_a_backend_the_buttons_say_so(session, operator):
    assert not getattr(bpy.ops.kinora, operator).poll()
    with pytest.raises(RuntimeError, match="The backend is not connected"):
        getattr(bpy.ops.kinora, operator)()


def test_days_are_named_as_people_do():
    assert queue.when(time.time()).startswith("today ")
    assert queue.when(time.time() - 86400).startswith("yesterday ")
    assert queue.when(NOON - 40 * 86400).startswith("12 Oct 1")


def test_a_list_of_hundreds_costs_a_pump_nothing_to_speak_of(session):
    session.server.listing = Listing(tuple(there(f"{i}.mp4", "done", created=NOON - i) for i in range(500)))
    queue_rows.sync(session)
    took = []
    for _ in range(50):
        began = time.perf_counter()
        session.pump()
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 0.005, f"{1e3 * sorted(took)[25]:.1f} ms"
