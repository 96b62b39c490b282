"""The command line as a user meets it: real processes, exit codes, one line for what they can fix."""

import dataclasses
import os
import signal
import subprocess
import sys

import pytest

from backend.__main__ import main, parser
from backend.cli.options import settings_of
from backend.wire import (
    ENGINES,
    ClipSettings,
    Connection,
    JobSettings,
    LensSettings,
    paths,
    read_capture,
    write_capture,
)
from tests.serving import WORKER, RawClient, clip_that, wait_for
from tests.worlds import as_capture, room

CODE = "import sys; from backend.__main__ import main; from tests.serving import WORKER; sys.exit(main(None, WORKER))"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def start(*arguments):
    """The command line with the pipeline for tests, as a process of its own."""
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def options_of(*arguments):
    arguments = ["reconstruct", "clip.mp4", "--out", "out", *arguments]
    return parser(arguments).parse_args(arguments)


# Options


@pytest.mark.parametrize("engine", ENGINES)
def test_every_setting_has_an_option_that_reaches_the_job(engine):
    given, expected = ["--engine", engine], {}
    for group in (ClipSettings, LensSettings, ENGINES[engine].settings):
        for f in dataclasses.fields(group):
            flag = f.name.replace("_", "-")
            if isinstance(f.default, bool):
                value = not f.default
                given.append(f"--{flag}" if value else f"--no-{flag}")
            elif f.metadata["choices"]:
                value = f.metadata["choices"][-1][0]
                given += [f"--{flag}", value]
            else:
                value = f.metadata["maximum"] if f.metadata["maximum"] is not None else f.default + 1
                value = type(f.default)(value)
                given += [f"--{flag}", str(value)]
            expected[f.name] = value
    job = settings_of(options_of(*given)).to_json()
    assert job["engine"] == engine
    assert {**job["clip"], **job["lens"], **job["engine_settings"]} == expected


def test_without_options_a_job_has_its_defaults():
    assert settings_of(options_of()) == JobSettings()


# What a user can fix is one line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["reconstruct", "nosuch.mp4", "--out", "out"], "There is no file"),
        (["reconstruct", "clip.mp4", "--out", "clip.mp4"], "is a file"),
        (["reconstruct", "clip.mp4", "--out", "out", "--long-side", "1"], "Resolution must be at least 128"),
        (["reconstruct", "clip.mp4", "--out", "out", "--masks", "nosuch"], "There is no file"),
        (["export", "nosuch", "--format", "ply", "--out", "out"], "is not a capture"),
        (["export", "nosuch", "--format", "fax", "--out", "out"], "There is no format 'fax'"),
        (["serve", "--host", "0.0.0.0"], "--allow-remote"),
        (["serve", "--host", "nosuch.invalid"], "is not an address"),
    ],
)
def test_what_a_user_can_fix_is_one_line(home, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    clip_that(tmp_path, "work").rename(tmp_path / "clip.mp4")
    assert main(arguments, WORKER) == 1
    told = capsys.readouterr()
    assert says in told.err
    assert len(told.err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir() if p != home) == ["clip.mp4"]


# Reconstruct


def test_reconstruct_makes_a_capture_and_sums_it_up(home, tmp_path):
    process = start("reconstruct", clip_that(tmp_path, "work"), "--out", tmp_path / "new" / "out", "--focal-mm", "35")
    told, progress = process.communicate()
    assert process.returncode == 0, progress
    assert read_capture(tmp_path / "new" / "out").settings["lens"]["focal_mm"] == 35.0
    for words in ("2 of 2", "px on the plate", "% of the path", "points", "seconds", str(tmp_path / "new" / "out")):
        assert words in told
    assert [line.split("s  ")[1] for line in progress.splitlines()] == ["Looking", "Writing the capture"]
    assert list(home.rglob("*")) == [home / "logs"], "the log of a job that went well is not kept"


@pytest.mark.slow
def test_a_later_job_uses_what_an_earlier_one_kept_unless_told_not_to(home, tmp_path):
    looked = []
    for n, more in enumerate(([], [], ["--no-cache"])):
        clip = clip_that(tmp_path, "remember")
        process = start("reconstruct", clip, "--out", tmp_path / f"out{n}", *more)
        errors = process.communicate()[1]
        assert process.returncode == 0, errors
        looked.append("looking for the first time" in errors)
    assert looked == [True, False, True]
    (kept,) = (home / "cache").iterdir()
    assert kept.name.startswith("looking.")


@pytest.mark.slow
def test_a_failure_is_one_line_and_a_bug_shows_its_traceback_and_its_log(home, tmp_path):
    for deed, in_last_line, in_all in (
        ("refuse", "The camera never moves; choose another shot", ""),
        ("bug", "this is a bug; see the log", "ZeroDivisionError: a mistake of ours"),
    ):
        process = start("reconstruct", clip_that(tmp_path, deed), "--out", tmp_path / "out")
        errors = process.communicate()[1]
        assert process.returncode == 1
        assert in_last_line in errors.splitlines()[-1]
        assert in_all in errors
        assert ("Traceback" in errors) == (deed == "bug")
        assert not (tmp_path / "out").exists()
    assert len(list((home / "logs").iterdir())) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize(
    ("deed", "number"), [("deaf", signal.SIGINT), pytest.param("slow", signal.SIGTERM, marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_an_interrupt_stops_even_a_call_that_hears_nothing_and_leaves_nothing(home, tmp_path, deed, number):
    process = start("reconstruct", clip_that(tmp_path, deed), "--out", tmp_path / "new" / "out")
    wait_for(lambda: list(home.glob("scratch-*/*/store.npy")) or list(home.glob("scratch-*/store.npy")))
    process.send_signal(number)
    errors = process.communicate(timeout=90)[1]
    assert process.returncode == 130
    assert "Cancelled" in errors
    assert not (tmp_path / "new").exists()
    assert list(home.rglob("*")) == [home / "logs"]


# Serve


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_serve_runs_until_told_to_stop_and_a_second_one_names_the_first(home):
    process = start("serve")
    try:
        wait_for(lambda: paths.connection_file(home).is_file())
        connection = Connection.read(paths.connection_file(home))
        with RawClient(connection) as raw:
            assert raw.ask("ping")["t"] == "ping"
            assert raw.hello["gpu"]
        second = start("serve")
        errors = second.communicate(timeout=90)[1]
        assert second.returncode == 1
        assert f"process {process.pid}, {connection.address}" in errors.splitlines()[-1]
    finally:
        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    assert connection.address in told
    assert not paths.connection_file(home).exists()


# The small ones


def test_export_writes_a_capture_in_another_format(tmp_path, capsys):
    write_capture(as_capture(room(frames=2, width=32, height=24)), tmp_path / "capture")
    assert main(["export", str(tmp_path / "capture"), "--format", "tum", "--out", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out") in capsys.readouterr().out
    assert list((tmp_path / "out").iterdir())


def test_engines_and_weights_state_their_terms(capsys):
    assert main(["engines"]) == 0
    assert "GPL-3.0-or-later; commercial use allowed" in capsys.readouterr().out
    assert main(["weights"]) == 0
    assert "classical engine works without" in capsys.readouterr().out


def test_doctor_has_a_line_for_everything(home, capsys):
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert {"kinora", "python", "numpy", "pycolmap", "device", "disk", "server"} <= {line.split()[1] for line in lines}
    assert all(line.startswith(("ok ", "!! ")) for line in lines)


def test_the_commands_that_only_tell_import_nothing_heavy():
    code = "import sys; from backend.__main__ import main; main(['doctor']); print(*sys.modules, sep='\\n')"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert not {"torch", "cv2", "pycolmap", "av", "zmq", "scipy"} & set(told.splitlines())
