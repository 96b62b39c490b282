"""The backend's set-up, check and weights from the preferences, and presets of a job."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import bpy
import pytest

from blender_addon.ui import setup
from blender_addon.wire.settings import ClipSettings, JobSettings, LensSettings

FAKE_SETUP = """
import json, sys, time
assert sys.argv[1:] == ["backend", "--json"]
print(json.dumps({"text": "installing torch", "step": 2, "of": 4}), flush=True)
time.sleep(%s)
print(json.dumps(%s), flush=True)
raise SystemExit(%s)
"""


@pytest.fixture
def online(monkeypatch):
    """A Blender that may go online; `bpy.app` cannot be changed by a script."""
    monkeypatch.setattr(setup, "check_online", lambda: None)


def checkout(folder: Path, seconds: float = 0, last: object = None, code: int = 0) -> Path:
    """A folder that looks like Kinora's source, whose set-up says two lines."""
    (folder / "backend").mkdir(parents=True)
    (folder / "backend" / "__main__.py").touch()
    (folder / "install_deps.py").write_text(FAKE_SETUP % (seconds, last or {"text": "ready"}, code))
    return folder


def pump_until(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        setup.work().pump()
        time.sleep(0.02)


def test_setting_up_shows_its_log_and_its_end(addon, online, tmp_path):
    folder = checkout(tmp_path / "kinora")
    assert bpy.ops.kinora.setup_backend(directory=str(folder)) == {"FINISHED"}
    child = setup.work().long
    pump_until(lambda: not child.running)
    assert list(child.lines) == ["installing torch", "ready"]
    assert not child.error


def test_a_failure_is_the_sentence_that_the_installer_ends_with(addon, online, tmp_path):
    folder = checkout(tmp_path / "kinora", last={"error": "the disk is full; free some space"}, code=1)
    bpy.ops.kinora.setup_backend(directory=str(folder))
    pump_until(lambda: not setup.work().long.running)
    assert setup.work().long.error == "the disk is full; free some space"


def test_one_work_at_a_time_and_it_can_be_cancelled(addon, online, tmp_path):
    folder = checkout(tmp_path / "kinora", seconds=30)
    with pytest.raises(RuntimeError, match="Nothing is being installed"):
        bpy.ops.kinora.setup_cancel()
    bpy.ops.kinora.setup_backend(directory=str(folder))
    pump_until(lambda: setup.work().long.lines)
    with pytest.raises(RuntimeError, match="being installed already"):
        bpy.ops.kinora.setup_backend(directory=str(folder))
    bpy.ops.kinora.setup_cancel()
    pump_until(lambda: not setup.work().busy)
    assert "cancelled" in setup.work().long.error


def test_offline_nothing_is_downloaded(addon, home, tmp_path):
    assert not bpy.app.online_access
    with pytest.raises(RuntimeError, match="stay offline; allow online access"):
        bpy.ops.kinora.setup_backend(directory=str(checkout(tmp_path / "kinora")))
    with pytest.raises(RuntimeError, match="stay offline"):
        bpy.ops.kinora.get_weights(name="raft_large", accept=True)
    assert setup.work().long is None


def test_a_folder_that_holds_no_source_says_so(addon, online, home, tmp_path):
    with pytest.raises(RuntimeError, match=r"There is no install_deps\.py in"):
        bpy.ops.kinora.setup_backend(directory=str(tmp_path))


def test_weights_are_listed_and_a_licence_must_be_accepted(addon, online, home, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(home / "weights"))
    bpy.ops.kinora.list_weights()
    pump_until(lambda: setup.work().weights)
    rows = {row["name"]: row for row in setup.work().weights}
    assert not rows["monst3r"]["commercial_use"]
    with pytest.raises(RuntimeError, match="licence of MonST3R was not accepted"):
        bpy.ops.kinora.get_weights(name="monst3r")
    assert setup.work().long is None


def test_getting_weights_runs_the_backends_own_command(addon, online, home, tmp_path, monkeypatch):
    """A backend that only says what it was asked."""
    folder = checkout(tmp_path / "kinora")
    (folder / "backend" / "__init__.py").touch()
    (folder / "backend" / "__main__.py").write_text("import sys; print(' '.join(sys.argv[1:]), '100 %')")
    (home / "backend.json").write_text(json.dumps({"python": sys.executable, "repo": str(folder)}))
    bpy.ops.kinora.get_weights(name="monst3r", accept=True)
    pump_until(lambda: not setup.work().busy)
    assert list(setup.work().long.lines) == ["weights get monst3r --accept-licence 100 %"]


def test_after_a_download_the_list_is_looked_at_again(addon, online, home, monkeypatch):
    row = {"name": "raft_large", "title": "RAFT", "engine": "monst3r", "to_accept": False, "page": "", "here": False}
    setup.work().weights = [row]
    looks = []
    monkeypatch.setattr(setup.Work, "list_weights", lambda self, repo=None: looks.append(repo))
    folder = home / "fake"
    (folder / "backend").mkdir(parents=True)
    (folder / "install_deps.py").touch()
    (folder / "backend" / "__main__.py").write_text("print('got it')")
    (home / "backend.json").write_text(json.dumps({"python": sys.executable, "repo": str(folder)}))
    bpy.ops.kinora.get_weights(name="raft_large")
    pump_until(lambda: looks)
    assert not setup.work().long.error


def test_the_doctor_is_asked(addon, home):
    bpy.ops.kinora.examine()
    pump_until(lambda: setup.work().findings, 120.0)  # it loads torch
    found = {name: (mark, text) for mark, name, text in setup.work().findings}
    assert found["numpy"][0] == "ok"
    assert "free" in found["disk"][1]


# Presets


def preset(name: str) -> str:
    return bpy.utils.preset_find(name, "kinora/job")


def apply(path: str) -> set[str]:
    return bpy.ops.script.execute_preset(filepath=path, menu_idname="KINORA_PT_presets")


@pytest.fixture
def presets(addon, tmp_path, monkeypatch):
    """User presets in a folder of their own."""
    monkeypatch.setattr(bpy.utils, "user_resource", lambda *_, path="", create=False: made(tmp_path / path))
    paths = bpy.utils.preset_paths
    monkeypatch.setattr(
        bpy.utils, "preset_paths", lambda sub: [*paths(sub), *([str(tmp_path / "presets" / sub)] if sub else [])]
    )
    return tmp_path / "presets" / "kinora" / "job"


def made(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def test_the_presets_that_come_along_are_whole_jobs(scene):
    jobs = {}
    for name in ("Default", "Fast_Preview", "Best_Quality"):
        assert preset(name), name
        assert apply(preset(name)) == {"FINISHED"}
        jobs[name] = scene.kinora.job_settings()
    assert jobs["Fast_Preview"].clip.long_side < jobs["Default"].clip.long_side < jobs["Best_Quality"].clip.long_side
    scene.kinora.clip.first_frame = 5
    apply(preset("Default"))
    assert scene.kinora.job_settings() == JobSettings(clip=ClipSettings(first_frame=5))  # the range is the clip's


def test_a_preset_brings_everything_back_but_what_is_of_one_clip(scene, presets):
    kinora = scene.kinora
    kinora.lens.focal_mm, kinora.clip.frame_step, kinora.clip.last_frame = 35.3, 4, 20
    kinora.engine, kinora.engine_monst3r.neighbours = "monst3r", 3
    kinora.import_options.point_size, kinora.import_options.collection_name = 2.5, "Street"
    assert bpy.ops.kinora.preset_add(name="Show 12") == {"FINISHED"}
    path = presets / "Show_12.py"
    assert path.is_file()
    apply(preset("Default"))
    kinora.import_options.property_unset("point_size")
    kinora.clip.last_frame, kinora.import_options.collection_name = 7, "Other"
    apply(str(path))
    settings = kinora.job_settings()
    assert settings.engine == "monst3r"
    assert settings.engine_settings.neighbours == 3
    assert settings.lens == LensSettings(focal_mm=35.3)
    assert (settings.clip.frame_step, settings.clip.last_frame) == (4, 7)
    assert (kinora.import_options.point_size, kinora.import_options.collection_name) == (2.5, "Other")


def test_a_bad_preset_is_an_error_and_nothing_worse(scene, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import bpy\nbpy.context.scene.kinora.no_such_setting.x = 1\n")
    with pytest.raises(RuntimeError, match="no_such_setting"):
        apply(str(path))
    assert scene.kinora.job_settings() == JobSettings()
