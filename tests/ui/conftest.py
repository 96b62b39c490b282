"""Real headless Blender with the add-on registered, and what the tests of it share."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import bpy
import pytest

import blender_addon
from backend.wire import paths, write_capture
from tests.serving import wait_for
from tests.worlds import as_capture, room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def addon():
    """The add-on in an empty file; gone again afterwards, with every thread of it."""
    before = of_the_addon()
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    blender_addon.register()
    yield blender_addon
    blender_addon.unregister()
    end = time.monotonic() + 20.0
    while left := of_the_addon() - before:
        assert time.monotonic() < end, f"left behind: {left}"
        time.sleep(0.02)


def of_the_addon() -> set[threading.Thread]:
    """The add-on's own threads that run; those of servers, which tests run in this process, are none."""
    return {t for t in threading.enumerate() if t.name in {"kinora-client", "kinora-open", "kinora-close"}}


@pytest.fixture
def scene(addon) -> bpy.types.Scene:
    return bpy.context.scene


@pytest.fixture
def session(addon):
    from blender_addon.ui.session import current

    return current()


@pytest.fixture(scope="session")
def capture_folder(tmp_path_factory) -> Path:
    """A small capture of the synthetic room, with its pictures."""
    from backend.export import CAPTURE_FILES

    return write_capture(as_capture(room(4, 48, 32)), tmp_path_factory.mktemp("capture") / "room", CAPTURE_FILES)


@pytest.fixture
def clip(tmp_path) -> Path:
    """A file that is there and called a clip; nothing here decodes it."""
    path = tmp_path / "street.mp4"
    path.write_bytes(b"not a video")
    return path


SERVE = """
import sys
from backend.__main__ import main
sys.exit(main(["serve"], [sys.executable, "-m", "backend.server.worker", "--pipeline", "tests.pipeline_for_tests"]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running server of this machine, whose pipeline does what the first line of a "clip" says."""
    home = tmp_path_factory.mktemp("home")
    patch = pytest.MonkeyPatch()
    patch.setenv("KINORA_HOME", str(home))
    process = subprocess.Popen([sys.executable, "-c", SERVE], cwd=ROOT, stdout=subprocess.PIPE)
    process.stdout.readline()  # it listens
    yield process
    process.terminate()
    process.wait(20)
    patch.undo()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A data folder of its own where no backend runs, with this checkout as the installed backend."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("KINORA_HOME", str(folder))
    (folder / "backend.json").write_text(json.dumps({"python": sys.executable, "repo": str(ROOT)}), encoding="utf-8")
    return folder


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Starts a server whose jobs are made by the module of a name."""
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    processes = []

    def started(pipeline: str) -> None:
        command = [sys.executable, "-c", SERVE.replace("tests.pipeline_for_tests", pipeline)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
        wait_for(lambda: paths.connection_file().is_file())

    yield started
    for process in processes:
        process.terminate()
        process.wait(20)


def pump_until(session, condition, seconds: float = 90.0) -> None:
    """What Blender's timer does, until `condition()` holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, (session.state, session.note, [(j.state, j.message) for j in session.jobs])
        session.pump()
        time.sleep(0.02)
