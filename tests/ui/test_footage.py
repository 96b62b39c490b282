"""Clips come in: dropped, chosen or by the folder; their facts and costs, and the queue that they wait in."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import bpy
import pytest

from blender_addon.ui import clip_look, footage
from blender_addon.ui.facts import lines, used_frames
from blender_addon.wire.facts import ClipFacts
from tests.footage import pictures, write_video

from .conftest import pump_until

NUMBERS = itertools.count(1)


@pytest.fixture
def video(tmp_path) -> Path:
    """A real video of 30 frames of 160 x 96."""
    return write_video(tmp_path / "street.mp4", pictures(30), fps=Fraction(24000, 1001))


def deed(folder: Path, name: str, word: str) -> Path:
    """A "clip" that makes the server's pipeline do something; each one another job."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(word + "\n" * next(NUMBERS), encoding="utf-8")
    return path


def files(*paths: Path) -> dict:
    """What Blender hands an operator for files that were dropped."""
    return {"directory": str(paths[0].parent), "files": [{"name": p.name} for p in paths]}


# Drop and choose


def test_dropping_a_video_on_a_viewport_makes_it_the_clip(scene, video):
    handler = bpy.types.FileHandler.bl_rna_get_subclass_py("KINORA_FH_clip")
    assert ".mp4" in handler.bl_file_extensions.split(";")
    assert handler.bl_import_operator == "kinora.open_clip"
    area = next(a for a in bpy.context.window_manager.windows[0].screen.areas if a.type == "VIEW_3D")
    with bpy.context.temp_override(window=bpy.context.window_manager.windows[0], area=area):
        assert handler.poll_drop(bpy.context)
        assert bpy.ops.kinora.open_clip(**files(video)) == {"FINISHED"}
        assert area.spaces.active.show_region_ui
    assert Path(scene.kinora.clip_path) == video
    assert scene.kinora.facts.frames == 30


def test_a_numbered_sequence_is_one_clip(tmp_path):
    names = ["shot_0001.png", "shot_0002.png", "other_01.png", "other_02.png", "a.mov", "notes.txt"]
    found = footage.clips_in([tmp_path / n for n in names])
    assert [p.name for p in found] == ["a.mov", "other_01.png", "shot_0001.png"]


def test_what_is_no_clip_is_refused(scene, tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RuntimeError, match=r"notes\.txt is no clip"):
        bpy.ops.kinora.open_clip(filepath=str(tmp_path / "notes.txt"))
    with pytest.raises(RuntimeError, match="is no clip"):
        bpy.ops.kinora.open_clip()


# Facts


def test_facts_read_as_people_say_them():
    facts = ClipFacts("video", 1080, 1920, Fraction(24000, 1001), 240, 90, "hevc", True, True, False)
    assert lines(facts) == ["1080 × 1920, turned 90°", "23.976 fps on average, hevc", "240 frames, 10.0 s"]


def test_facts_come_back_from_the_scene_as_they_were(scene):
    facts = ClipFacts("video", 1080, 1920, Fraction(30000, 1001), 9, 270, "h264", True, True, True, ("one", "two"))
    scene.kinora.facts.show(Path("/a/b.mp4"), facts)
    assert scene.kinora.facts.read() == facts


@pytest.mark.parametrize(("first", "last", "step"), [(0, -1, 1), (5, 24, 3), (0, 99, 7), (29, -1, 1), (40, -1, 1)])
def test_the_range_is_counted_as_the_backend_counts(first, last, step):
    from backend.footage import Sampling

    facts = ClipFacts("video", 8, 8, Fraction(24), 30, 0, "", False, True, False)
    sampling = Sampling(first, None if last < 0 else last, step)
    assert used_frames(facts, first, last, step) == sum(sampling.wants(i) for i in range(30))


def test_the_scenes_range_becomes_the_clips(scene, video):
    scene.kinora.clip_path = str(video)
    scene.frame_start, scene.frame_end = 11, 20
    bpy.ops.kinora.use_scene_range()
    assert (scene.kinora.clip.first_frame, scene.kinora.clip.last_frame) == (10, 19)
    scene.kinora.import_options.start_frame = 101  # the clip begins there
    with pytest.raises(RuntimeError, match="ends before the clip begins"):
        bpy.ops.kinora.use_scene_range()
    scene.frame_start, scene.frame_end = 90, 500
    bpy.ops.kinora.use_scene_range()
    assert (scene.kinora.clip.first_frame, scene.kinora.clip.last_frame) == (0, 29)
    scene.frame_start = 400
    with pytest.raises(RuntimeError, match="begins after the clip's 30 frames"):
        bpy.ops.kinora.use_scene_range()


# What the backend knows


@pytest.mark.usefixtures("server")
def test_the_backend_counts_the_clip_and_says_what_it_would_take(session, scene, tmp_path):
    times = [0, 1, 2, 3, 5, 6, 8, 9, 10, 13]
    clip = write_video(tmp_path / "phone.mp4", pictures(10), pts=[100 * t for t in times], time_base=Fraction(1, 3000))
    scene.kinora.clip_path = str(clip)
    assert not scene.kinora.facts.counted  # Blender's word
    assert clip_look.estimate_of(scene) is None
    bpy.ops.kinora.backend_start()
    pump_until(session, lambda: scene.kinora.facts.counted)
    assert scene.kinora.facts.variable_frame_rate
    assert "varies" in scene.kinora.facts.warnings
    pump_until(session, lambda: clip_look.estimate_of(scene) is not None)
    found = clip_look.estimate_of(scene).answer
    assert found.frames == 10
    assert 0 < found.seconds_low < found.seconds_high
    scene.kinora.clip.first_frame = 9
    pump_until(session, lambda: clip_look.estimate_of(scene) is not None)
    assert "1 frame" in clip_look.estimate_of(scene).answer.problem


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_clip_that_only_blender_can_read_is_told_before_it_is_sent(session, scene, tmp_path):
    """Blender reads any container; the backend takes those that cannot name other files."""
    clip = write_video(tmp_path / "old.flv", pictures(5), codec="flv1")
    scene.kinora.clip_path = str(clip)
    assert scene.kinora.facts.frames == 5
    bpy.ops.kinora.backend_start()
    pump_until(session, lambda: scene.kinora.facts.problem)
    assert "old.flv is not a video that can be read; give an mp4" in scene.kinora.facts.problem
    scene.kinora.clip_path = ""
    assert not scene.kinora.facts.problem


# The queue


@pytest.mark.usefixtures("server")
def test_several_dropped_clips_are_queued_and_each_is_imported(session, scene, tmp_path):
    first, second = (deed(tmp_path / "plates", f"{name}.mp4", "work") for name in ("a", "b"))
    assert bpy.ops.kinora.open_clip(**files(first, second)) == {"FINISHED"}
    one, two = session.jobs
    assert (one.out.name, two.out.name) == ("a", "b")
    pump_until(session, lambda: not one.active and not two.active)
    assert [job.state for job in session.jobs] == ["DONE", "DONE"]
    assert sorted(c.name for c in scene.collection.children) == ["a", "b"]


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_folder_is_reconstructed_without_importing(session, scene, tmp_path):
    folder = tmp_path / "plates"
    for name in ("b_plate.mov", "a_plate.mp4", "a_matte.mp4", "notes.txt"):
        deed(folder, name, "work")
    assert bpy.ops.kinora.reconstruct_folder(directory=str(folder), pattern="*_plate.*") == {"FINISHED"}
    assert [job.clip.name for job in session.jobs] == ["a_plate.mp4", "b_plate.mov"]
    pump_until(session, lambda: not any(job.active for job in session.jobs))
    assert all((job.folder / "capture.json").is_file() for job in session.jobs)
    assert len({job.folder for job in session.jobs}) == 2
    assert not scene.collection.children


@pytest.mark.usefixtures("server")
def test_a_script_without_a_window_waits_for_what_it_asked(session, scene, tmp_path):
    scene.kinora.clip_path = str(deed(tmp_path, "a.mp4", "work"))
    assert bpy.ops.kinora.reconstruct(wait=True) == {"FINISHED"}
    assert [job.state for job in session.jobs] == ["DONE"]
    assert scene.collection.children["a"]
    deed(tmp_path / "plates", "b.mp4", "work")
    deed(tmp_path / "plates", "c.mp4", "refuse")
    with pytest.raises(RuntimeError, match=r"c\.mp4: The camera never moves; choose another shot"):
        bpy.ops.kinora.reconstruct_folder(directory=str(tmp_path / "plates"), wait=True)
    assert [job.state for job in session.jobs] == ["DONE", "DONE", "FAILED"]


def test_a_folder_without_clips_says_so(scene, session, tmp_path):
    with pytest.raises(RuntimeError, match="No clip in"):
        bpy.ops.kinora.reconstruct_folder(directory=str(tmp_path))
    with pytest.raises(RuntimeError, match="There is no folder"):
        bpy.ops.kinora.reconstruct_folder(directory=str(tmp_path / "gone"))
    assert not session.jobs


@pytest.mark.usefixtures("server")
def test_jobs_wait_in_the_queue_and_any_of_them_can_be_cancelled_and_removed(session, scene, tmp_path):
    running, waiting, last = (deed(tmp_path, f"{n}.mp4", "slow") for n in ("a", "b", "c"))
    bpy.ops.kinora.open_clip(**files(running, waiting, last))
    a, b, c = session.jobs
    pump_until(session, lambda: a.state == "RUNNING" and b.state == c.state == "QUEUED" and c.queue_position == 2)
    assert session.job(scene) is a
    with pytest.raises(RuntimeError, match="has not ended; cancel it first"):
        bpy.ops.kinora.remove_job(job=b.uid)
    bpy.ops.kinora.cancel(job=b.uid)
    pump_until(session, lambda: b.state == "CANCELLED")
    assert (a.state, c.state) == ("RUNNING", "QUEUED")
    pump_until(session, lambda: c.queue_position == 1)
    bpy.ops.kinora.remove_job(job=b.uid)
    assert session.jobs == [a, c]
    bpy.ops.kinora.cancel_all()
    pump_until(session, lambda: not a.active and not c.active)
    bpy.ops.kinora.clear_queue()
    assert not session.jobs
    with pytest.raises(RuntimeError, match="no such job"):
        bpy.ops.kinora.remove_job(job="gone")


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_two_jobs_of_one_clip_get_folders_of_their_own(session, scene, tmp_path):
    """The second is asked for before the first has written anything."""
    scene.kinora.clip_path = str(deed(tmp_path, "a.mp4", "work"))
    bpy.ops.kinora.reconstruct()
    scene.kinora.lens.focal_mm = 35
    bpy.ops.kinora.reconstruct()
    assert [job.out.name for job in session.jobs] == ["a", "a_002"]
    pump_until(session, lambda: not any(job.active for job in session.jobs))
    assert [job.state for job in session.jobs] == ["DONE", "DONE"]
