"""The launcher: a backend is found, started and stopped by the files in the data folder."""

import json
import sys
from pathlib import Path

import pytest

from backend.wire import Connection, UserError, paths
from blender_addon import launcher
from tests.serving import wait_for

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def point_at(home, python=sys.executable, repo=REPO):
    paths.backend_pointer(home).write_text(json.dumps({"python": str(python), "repo": str(repo)}), encoding="utf-8")


def wait_until_up(local):
    connection = []
    wait_for(lambda: connection.extend(filter(None, [local.poll()])) or connection)
    return connection[0]


@pytest.mark.slow
def test_what_is_installed_is_started_found_and_stopped(home):
    point_at(home)
    assert launcher.find_running() is None
    local = launcher.start()
    connection = wait_until_up(local)
    assert launcher.find_running() == connection
    second = launcher.start()
    with pytest.raises(UserError, match="runs already"):
        wait_for(lambda: second.poll() and False)
    launcher.stop(connection)
    assert local.process.wait(10) == 0
    assert launcher.find_running() is None
    launcher.stop(connection)  # no harm done


@pytest.mark.slow
def test_a_stale_connection_file_is_nobody(home):
    Connection("tcp://127.0.0.1:9", "s" * 40, "c" * 40, "x" * 40).write(paths.connection_file(home))
    assert launcher.find_running() is None


def test_a_start_that_cannot_be_says_what_to_do(home, tmp_path):
    with pytest.raises(UserError, match="No backend is installed") as told:
        launcher.start()
    assert "install_deps.py backend" in told.value.hint
    with pytest.raises(UserError, match="There is no backend in"):
        launcher.start(Path(sys.executable), tmp_path)
    with pytest.raises(UserError, match="cannot be run"):
        launcher.start(tmp_path / "no python", REPO)
    paths.backend_pointer(home).write_text("{}")
    with pytest.raises(UserError, match="cannot be read"):
        launcher.start()


def test_a_backend_that_ends_at_once_gives_its_last_line(home, tmp_path):
    (tmp_path / "repo" / "backend").mkdir(parents=True)
    (tmp_path / "repo" / "backend" / "__main__.py").write_text("import sys; sys.exit('no module named zmq')")
    local = launcher.start(Path(sys.executable), tmp_path / "repo")
    with pytest.raises(UserError, match="no module named zmq") as told:
        wait_for(lambda: local.poll() and False)
    assert str(local.log_file) in told.value.hint
