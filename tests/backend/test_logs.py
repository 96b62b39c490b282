"""Logs: one line of JSON for each message, files that stay small, no secret, and the command that shows them."""

import json
import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from backend import logs
from backend.__main__ import main
from backend.cli.logs import lines_of
from backend.server.process import REPO
from backend.wire import paths
from tests.serving import wait_for

JOB = "0123456789abcdef0123456789abcdef"
SECRET = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def handler(home):
    """The server's log in a file."""
    handler = logs.to_file(home)
    yield handler
    logging.getLogger().removeHandler(handler)
    handler.close()


@pytest.fixture
def to_file(handler):
    """A logger that writes to it."""
    logger = logging.getLogger("backend.test_logs")
    logger.setLevel(logging.DEBUG)
    return logger


@pytest.fixture
def secret():
    logs.conceal(SECRET, "")
    yield SECRET
    logs._secrets.clear()


def rows(home):
    return [json.loads(line) for path in logs.server_logs(home) for line in path.read_text().splitlines()]


def test_a_message_is_a_line_with_its_time_in_utc_its_level_and_its_job(home, to_file):
    to_file.warning("job %s: %s", JOB, "failed\nand more")
    to_file.info("listening")
    to_file.info("about it", extra={"job": JOB})
    first, second, third = rows(home)
    assert first["message"] == f"job {JOB}: failed\nand more"
    assert (first["level"], first["logger"], first["job"]) == ("warning", "backend.test_logs", JOB)
    at = datetime.fromisoformat(first["time"])
    assert at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - at) < timedelta(seconds=60)
    assert set(second) == {"time", "level", "logger", "message"}
    assert third["job"] == JOB


def test_an_exception_comes_with_its_traceback(home, to_file):
    try:
        raise ZeroDivisionError("a mistake")
    except ZeroDivisionError:
        to_file.exception("it failed")
    (row,) = rows(home)
    assert row["message"] == "it failed"
    assert row["exception"].startswith("Traceback")
    assert row["exception"].endswith("ZeroDivisionError: a mistake")


def test_secrets_are_never_written(home, to_file, secret, capsys):
    terminal = logging.StreamHandler()
    terminal.setFormatter(logs.TextLines())
    to_file.addHandler(terminal)
    try:
        raise ValueError(f"in an error {secret}")
    except ValueError:
        to_file.exception("in a message %s", secret)
    to_file.removeHandler(terminal)
    written, (row,) = capsys.readouterr().err, rows(home)
    assert row["message"] == "in a message (secret)"
    for text in (written, row["exception"]):
        assert "in an error (secret)" in text
        assert secret not in text


def test_files_are_rotated_and_the_oldest_go(home, handler, to_file):
    handler.maxBytes = 2000
    for n in range(300):
        to_file.info("message %04d", n)
    files = logs.server_logs(home)
    assert len(files) == logs.FILES_KEPT + 1
    assert all(path.stat().st_size <= 2000 for path in files)
    told = [row["message"] for row in rows(home)]
    assert told == [f"message {n:04d}" for n in range(300 - len(told), 300)]


def test_a_full_disk_silences_the_file_and_nothing_else(handler, to_file, monkeypatch, capsys):
    class Full:
        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(handler, "stream", Full())
    to_file.error("lost")
    assert capsys.readouterr().err == ""


def test_a_terminal_that_is_a_file_gets_warnings_alone(home, tmp_path, monkeypatch):
    root = logging.getLogger()
    with open(tmp_path / "server.log", "w") as file:
        for stream, level in ((None, logging.NOTSET), (file, logging.WARNING)):
            monkeypatch.setattr("sys.stderr", stream)
            monkeypatch.setattr(root, "handlers", [logging.StreamHandler(file)])
            logs.to_file(home).close()
            assert root.handlers[0].level == level


# The log of a job


def test_a_job_log_that_grew_keeps_its_beginning_and_its_end_and_its_writer_goes_on(tmp_path):
    path = tmp_path / "log.txt"
    with open(path, "ab", buffering=0) as writer:  # as the worker has it
        for n in range(1000):
            writer.write(b"line %04d\n" % n)
        assert not logs.bound_job_log(path, 10_000)
        assert logs.bound_job_log(path, 8000)
        writer.write(b"the end\n")
    lines = path.read_text().splitlines()
    assert path.stat().st_size < 8000
    assert lines[0] == "line 0000"
    assert lines[-2:] == ["line 0999", "the end"]
    assert sum(line.startswith("...") for line in lines) == 1
    assert all(len(line) == 9 for line in lines[:-1] if line.startswith("line"))
    assert not logs.bound_job_log(tmp_path / "none", 10)


# The command


def test_logs_shows_text_from_a_level_on(home, to_file, capsys):
    to_file.info("all is well")
    try:
        raise KeyError("x")
    except KeyError:
        to_file.exception("it failed")
    assert main(["logs"]) == 0
    told = capsys.readouterr().out
    assert "INFO backend.test_logs: all is well" in told
    assert "KeyError: 'x'" in told
    assert main(["logs", "--level", "warning"]) == 0
    told = capsys.readouterr().out
    assert "all is well" not in told
    assert "ERROR backend.test_logs: it failed" in told


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pipe's signal")
def test_whoever_has_read_enough_ends_it_without_a_word(home, to_file):
    for n in range(5000):
        to_file.info("message %d", n)
    command = [sys.executable, "-m", "backend", "logs"]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline().endswith(b"message 0\n")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_logs_of_a_job_is_found_by_the_beginning_of_its_id(home, capsys):
    for job in (JOB, "0123" + 28 * "f"):
        (paths.jobs_folder(home) / job).mkdir(parents=True)
        (paths.jobs_folder(home) / job / "log.txt").write_text(f"log of {job}\n")
    assert main(["logs", "--job", JOB[:8]]) == 0
    assert capsys.readouterr().out == f"log of {JOB}\n"
    for start, words in (("0123", "More than one"), ("dead", "No job"), ("../../etc", "No job"), ("*", "No job")):
        assert main(["logs", "--job", start]) == 1
        assert words in capsys.readouterr().err


def test_without_a_log_it_says_who_writes_it(home, capsys):
    assert main(["logs"]) == 1
    assert "python -m backend serve" in capsys.readouterr().err


def test_following_goes_on_in_the_file_that_takes_the_place_of_a_rotated_one(tmp_path):
    path, got = tmp_path / "server.jsonl", []
    path.write_text("one\ntw")
    follower = lines_of(path, follow=True)
    threading.Thread(target=lambda: got.extend(iter(lambda: next(follower), "stop")), daemon=True).start()
    wait_for(lambda: got == ["one"])
    with open(path, "a") as file:
        file.write("o\n")
    wait_for(lambda: got == ["one", "two"])
    path.rename(tmp_path / "server.jsonl.1")
    path.write_text("three\nstop\n")
    wait_for(lambda: got == ["one", "two", "three"])
