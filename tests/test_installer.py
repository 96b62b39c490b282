"""Programs beside Blender: their words come as they are said, they can be stopped, and failures are sentences."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from blender_addon import installer
from blender_addon.installer import Child
from blender_addon.wire.errors import UserError

TELLS = """
import json, sys, time
print(json.dumps({"text": "making the environment", "step": 1, "of": 4}))
print("not json at all")
print(json.dumps({"text": "installing", "step": 3, "of": 4}))
sys.stdout.flush()
time.sleep(float(sys.argv[1]))
"""


def run(code: str, *arguments: object) -> Child:
    return Child("Work", [sys.executable, "-c", code, *map(str, arguments)], Path.cwd())


def ended(child: Child, seconds: float = 90.0) -> Child:
    end = time.monotonic() + seconds
    while child.running:
        assert time.monotonic() < end
        time.sleep(0.02)
    return child


def test_words_and_progress_come_while_it_works():
    child = run(TELLS, 30)
    end = time.monotonic() + 20
    while len(child.lines) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert child.running
    assert list(child.lines) == ["making the environment", "not json at all", "installing"]
    assert child.fraction == 0.5  # the third of four steps begins
    child.cancel()
    ended(child)
    assert "cancelled" in child.error


def test_a_work_that_ends_well_is_whole_and_has_no_error():
    child = ended(run(TELLS, 0))
    assert (child.fraction, child.error) == (1.0, "")


def test_what_a_program_says_of_its_failure_is_the_error():
    told = json.dumps({"error": "the disk is full; free some space"})
    child = ended(run(f"print({told!r}); raise SystemExit(1)"))
    assert child.error == "the disk is full; free some space"
    assert ended(run("raise SystemExit('no such thing')")).error == "no such thing"
    assert "code 3" in ended(run("raise SystemExit(3)")).error


def test_a_program_that_does_not_listen_is_ended_with_its_children(monkeypatch):
    monkeypatch.setattr(installer, "GRACE_S", 0.3)
    child = run(
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('deaf', flush=True);"
        "time.sleep(60)"
    )
    while not child.lines:
        time.sleep(0.02)
    child.cancel()
    ended(child, 10)  # the pipe is closed, so nobody holds it any more
    assert child.cancelled


def test_percents_of_a_download_are_progress():
    assert ended(run("print('MonST3R: 40 %'); import sys; sys.exit(1)")).fraction == 0.4


def test_a_folder_without_a_backend_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"There is no install_deps\.py in"):
        installer.set_up(tmp_path)


def test_the_backends_own_programs_run_by_the_installed_interpreter(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path))
    assert not installer.is_installed()
    with pytest.raises(UserError, match="No backend is installed"):
        installer.run_backend("weights", "weights", "list")
    repo = Path(installer.__file__).resolve().parents[1]
    (tmp_path / "backend.json").write_text(json.dumps({"python": sys.executable, "repo": str(repo)}))
    assert installer.is_installed()
    child = ended(installer.run_backend("weights", "weights", "list", "--json"))
    rows = {row["name"]: row for row in json.loads(child.lines[-1])}
    assert not rows["monst3r"]["here"]
    assert rows["monst3r"]["to_accept"]
    assert not rows["raft_large"]["to_accept"]
