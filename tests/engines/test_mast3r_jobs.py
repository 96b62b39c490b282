"""The MASt3R engine as a job: from the command line and through a server, and its capture as a scene in Blender.

With an oracle what comes back is the world. With a tiny random network in a file of the published form, all but the
numbers is as with the published weights; it knows nothing of the pictures, and the engine has to say so.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

from backend.nets.manifest import model_named
from backend.nets.mast3r import MatchingNet
from backend.nets.receipt import Receipt
from backend.server.broker import WORKER_COMMAND
from backend.wire import ClipSettings, JobSettings, MASt3RSettings
from blender_addon.client import JobDone, JobFailed
from blender_addon.scene import ImportReport, import_capture
from tests import serving
from tests.backend.test_clip import save_images
from tests.mast3r_oracle import FRAMES, WIDTH, clip_of, set_of
from tests.nets.test_mast3r import publish
from tests.recipe import matching_net

PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """The oracle's plates as a folder of images."""
    return save_images(tmp_path_factory.mktemp("footage") / "set", list(clip_of(set_of()).frames))


def install(folder: Path, net: MatchingNet) -> None:
    """A network as it is published where MASt3R's weights would be, in place of one that was."""
    (folder / "mast3r").mkdir(parents=True, exist_ok=True)
    path = publish(folder / "mast3r", "safetensors", net)
    files = {
        file.name: {
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "checked_by": "nobody",
            "checkpoint": file == path,
            "path": None,
        }
        for file in sorted((folder / "mast3r").iterdir())
    }
    Receipt(folder).record(model_named("mast3r"), "a test", None, files)


@pytest.fixture
def weights(tmp_path, monkeypatch) -> Path:
    """A tiny random network where MASt3R's weights would be."""
    folder = tmp_path / "weights"
    install(folder, matching_net())
    monkeypatch.setenv("KINORA_WEIGHTS", str(folder))
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    return folder


def job(**options) -> JobSettings:
    return JobSettings("mast3r", ClipSettings(long_side=WIDTH), engine_settings=MASt3RSettings(**options))


@pytest.mark.slow
def test_an_oracle_s_capture_comes_through_a_server_into_a_scene(images, tmp_path):
    """In metres: a unit of Blender's is one, and cameras are as far apart as they were."""
    worker = serving.worker_of("tests.mast3r_oracle")
    with serving.server(tmp_path / "home", worker) as broker, serving.client(broker.connection) as it:
        ended = serving.end_of(it, it.submit(images, job(), tmp_path / "capture"), PATIENCE_S)
    assert isinstance(ended, JobDone), ended
    bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
    scene = bpy.context.scene
    collection = import_capture(tmp_path / "capture", scene)
    report = ImportReport.read(collection)
    assert (report.engine, report.metric) == ("mast3r", True)
    centres = []
    for n in range(FRAMES):
        scene.frame_set(scene.frame_start + n)
        centres.append(np.array(scene.camera.matrix_world.translation))
    true = set_of().world_from_camera[:, :3, 3]
    apart = np.linalg.norm(np.array(centres) - centres[0], axis=1)
    np.testing.assert_allclose(apart, np.linalg.norm(true - true[0], axis=1), atol=0.015)


@pytest.mark.slow
def test_a_random_network_goes_through_the_command_line_and_is_refused_in_a_sentence(images, weights, tmp_path):
    arguments = ["reconstruct", images, "--out", tmp_path / "capture", "--engine", "mast3r", "--long-side", WIDTH]
    command = [sys.executable, "-m", "backend", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=dict(os.environ))
    assert ended.returncode == 1, ended.stderr
    assert "could be placed" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "capture").exists()


@pytest.mark.slow
def test_a_random_network_goes_through_a_server_and_is_refused_in_a_sentence(images, weights, tmp_path):
    with serving.server(tmp_path / "home", WORKER_COMMAND) as broker, serving.client(broker.connection) as it:
        ended = serving.end_of(it, it.submit(images, job(), tmp_path / "capture"), PATIENCE_S)
    assert isinstance(ended, JobFailed)
    assert "could be placed" in ended.message
    assert not (tmp_path / "capture").exists()


@pytest.mark.slow
def test_without_weights_the_command_line_says_how_to_get_them(images, tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_WEIGHTS", str(tmp_path / "nothing"))
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    arguments = ["reconstruct", images, "--out", tmp_path / "capture", "--engine", "mast3r"]
    command = [sys.executable, "-m", "backend", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, env=dict(os.environ))
    assert ended.returncode == 1
    assert "python -m backend weights get mast3r" in ended.stderr
