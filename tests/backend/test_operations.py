"""Running the server: its cost when idle, how it stops, what a service manager hears, what docs/deploy/ says of it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from backend.__main__ import main, parser
from backend.cli.control import GONE_S
from backend.server.broker import PARK_S
from backend.server.process import REPO
from backend.server.requests import Requests
from backend.wire import Connection, paths, versions
from blender_addon import launcher
from blender_addon import link as addon_link
from blender_addon.client import Connected, Disconnected
from tests.serving import RawClient, client, clip_that, collect, ends, send, server, state_of, wait_for

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
CODE = "import sys; from backend.__main__ import main; from tests.serving import WORKER; sys.exit(main(None, WORKER))"
HEAVY = ("/torch/", "/cv2/", "/pycolmap", "/av/", "/scipy/")


@contextmanager
def serving(home, *options, **variables):
    """`python -m backend serve` with the pipeline for tests, as a process; killed if the test leaves it running."""
    environment = {**os.environ, "KINORA_HOME": str(home), **variables}
    command = [sys.executable, "-c", CODE, "serve", *map(str, options)]
    with open(home.with_suffix(".txt"), "ab") as out:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=out, stderr=out)
    try:
        wait_for(lambda: paths.connection_file(home).is_file() or process.poll() is not None)
        assert process.poll() is None, home.with_suffix(".txt").read_text()
        yield process
    finally:
        process.kill()
        process.wait()


def raw_client(home):
    return RawClient(Connection.read(paths.connection_file(home)))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# Idle


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_an_idle_server_is_small_and_sleeps_and_loads_nothing_that_computes(home, tmp_path):
    command = [sys.executable, "-m", "backend", "serve"]
    environment = {**os.environ, "KINORA_HOME": str(home)}
    with subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: paths.connection_file(home).is_file())
            with raw_client(home) as raw:
                ends(raw, send(raw, clip_that(tmp_path, "nothing"))["job"])  # it has worked, and rests
            time.sleep(1)
            told = psutil.Process(process.pid)
            before, woken = told.cpu_times(), told.num_ctx_switches().voluntary
            time.sleep(10)
            after = told.cpu_times()
            cpu = 10 * (after.user + after.system - before.user - before.system)
            memory = told.memory_info().rss / 1e6
            wakes = (told.num_ctx_switches().voluntary - woken) / 10
            print(f"idle: {memory:.1f} MB, {cpu:.2f} % of a core, {wakes:.1f} wake-ups a second")
            maps = Path(f"/proc/{process.pid}/maps").read_text()
        finally:
            process.terminate()
    assert memory < 80
    assert cpu < 1
    assert wakes < 20
    assert not [word for word in HEAVY if word in maps]


# Stopping


def started(raw, folder, *words):
    """A job that runs."""
    job = send(raw, clip_that(folder, *words))["job"]
    wait_for(lambda: state_of(raw, job) == "running")
    return job


@posix
@pytest.mark.slow
def test_a_signal_parks_the_running_job_and_the_next_server_goes_on_with_it(home, tmp_path):
    with serving(home) as process:
        with raw_client(home) as raw:
            job = started(raw, tmp_path, "slow")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PARK_S + 5) == 0
    assert not paths.connection_file(home).exists()
    with serving(home) as process, raw_client(home) as raw:
        wait_for(lambda: state_of(raw, job) == "running")
        kinds = [event["kind"] for event in raw.ask("events", job=job, since=0)["events"]]
        assert [kind for kind in kinds if kind in ("queued", "started")] == ["queued", "started"] * 2
        assert "failed" not in kinds
        raw.ask("cancel", job=job)
        assert ends(raw, job)[-1]["kind"] == "cancelled"


@posix
@pytest.mark.slow
def test_a_server_that_finishes_ends_with_the_job_that_runs_and_takes_no_other(home, tmp_path):
    with serving(home, "--on-stop", "finish") as process:
        with raw_client(home) as raw:
            first = started(raw, tmp_path, "show", "10", "0.2")
            second = send(raw, clip_that(tmp_path, "work"))["job"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with serving(home), raw_client(home) as raw:
        assert state_of(raw, first) == "done"
        assert ends(raw, second)[-1]["kind"] == "done"


@posix
@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(home, tmp_path):
    with serving(home, "--on-stop", "finish") as process:
        with raw_client(home) as raw:
            job = started(raw, tmp_path, "slow")
        worker = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == 0
        assert not psutil.wait_procs(worker, 5)[1]
    with serving(home), raw_client(home) as raw:
        assert state_of(raw, job) in ("queued", "running")


@posix
@pytest.mark.slow
def test_stop_and_ping_talk_with_the_server_and_say_when_there_is_none(home, tmp_path, capsys):
    assert main(["ping"]) == 1
    assert main(["stop"]) == 1
    assert capsys.readouterr().err.count("no running backend") == 2
    with serving(home) as process:
        assert main(["ping"]) == 0
        told = capsys.readouterr().out
        assert re.fullmatch(r"Kinora 0\.1\.0 at tcp://127\.0\.0\.1:\d+ answers in \d+ ms; protocol \d\n", told)
        with raw_client(home) as raw:
            job = started(raw, tmp_path, "show", "5", "0.2")
        assert main(["stop", "--drain"]) == 0
        assert process.wait(5) == 0
    with serving(home) as process:
        with raw_client(home) as raw:
            assert state_of(raw, job) == "done"
            started(raw, tmp_path, "slow")
        assert main(["stop", "--now"]) == 0
        assert process.wait(5) == 0
    Connection("tcp://127.0.0.1:9", *["k" * 40] * 3, instance="0" * 32).write(paths.connection_file(home))
    assert main(["ping"]) == 1
    assert "No server answers" in capsys.readouterr().err


@posix
@pytest.mark.slow
def test_a_server_that_a_watchdog_aborts_tells_where_it_was(home):
    with serving(home) as process:
        process.send_signal(signal.SIGABRT)
        assert process.wait(10) == -signal.SIGABRT
    told = home.with_suffix(".txt").read_text()
    assert "Fatal Python error: Aborted" in told
    assert "broker.py" in told


def test_an_address_that_it_cannot_listen_on_is_refused(home, capsys):
    for host, words in (
        ("::1", "IPv4 alone"),
        ("0.0.0.0", "add --allow-remote"),
        ("no.such.host.invalid", "is not an"),
    ):
        assert main(["serve", "--host", host]) == 1
        assert words in capsys.readouterr().err
    assert not home.exists()


# Logs of a real server


@posix
@pytest.mark.slow
def test_no_key_stands_in_any_log_and_the_log_of_the_server_names_the_job(home, tmp_path):
    with serving(home, "--log-level", "debug") as process:
        with raw_client(home) as raw:
            job = send(raw, clip_that(tmp_path, "bug"))["job"]
            ends(raw, job)
            raw.say([b"junk"])
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    secrets = json.loads(paths.server_keys(home).read_text())
    logs = [*paths.logs_folder(home).iterdir(), *paths.jobs_folder(home).glob("*/log.txt"), home.with_suffix(".txt")]
    assert len(logs) == 3
    for path in logs:
        for name in ("server_secret", "client_secret"):
            assert secrets[name] not in path.read_text(), path
    rows = [json.loads(line) for line in (paths.logs_folder(home) / "server.jsonl").read_text().splitlines()]
    assert any(row.get("job") == job and "failed" in row["message"] for row in rows)
    assert rows[-1]["message"] == "stopped"


@pytest.mark.slow
def test_a_job_that_says_too_much_keeps_a_bounded_log(tmp_path):
    with server(tmp_path / "home") as broker, RawClient(broker.connection) as raw:
        job = started(raw, tmp_path, "babble", "40")
        assert ends(raw, job)[-1]["kind"] == "done"
    log = paths.jobs_folder(tmp_path / "home") / job / "log.txt"
    assert "here a part was cut out" in log.read_text(errors="replace")
    assert log.stat().st_size < 32 * 2**20


# A service manager


@posix
@pytest.mark.slow
def test_a_service_manager_hears_ready_alive_and_stopping(home, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        with serving(home, NOTIFY_SOCKET=str(tmp_path / "notify")) as process:
            heard = [manager.recv(100).decode() for _ in range(2)]
            assert heard == ["READY=1", "WATCHDOG=1"]
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: manager.recv(100) == b"STOPPING=1")
            assert process.wait(10) == 0


def unit(name):
    """The unit with this checkout and this interpreter in it, as somebody installs it."""
    text = (REPO / "docs" / "deploy" / name).read_text()
    text = re.sub(r"(/opt|%h)/kinora/\.venv-3\.13/bin/python", sys.executable, text)
    return re.sub(r"(/opt|%h)/kinora\b", str(REPO), text)


@pytest.mark.parametrize("name", ["kinora.service", "kinora-user.service"])
def test_a_unit_runs_a_command_that_there_is_and_leaves_time_to_park(name):
    lines = unit(name).splitlines()
    settings = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    python, dash_m, module, *arguments = shlex.split(settings["ExecStart"])
    assert (python, dash_m, module) == (sys.executable, "-m", "backend")
    assert parser(arguments).parse_args(arguments).command == "serve"
    assert (Path(settings["WorkingDirectory"]) / "backend" / "__main__.py").is_file()
    assert int(settings["TimeoutStopSec"]) >= GONE_S["park"] > 2 * PARK_S
    assert settings["Type"] == "notify"
    assert int(settings["WatchdogSec"]) >= 30


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["kinora.service", "kinora-user.service"])
def test_systemd_finds_nothing_wrong_with_a_unit(name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    path = tmp_path / name
    path.write_text(unit(name))
    who = ["--user"] if "user" in name else []
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *who, path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    if not who:
        command = ["systemd-analyze", "security", "--offline=yes", "--threshold=40", path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-300:]  # exposure of at most 4.0 of 10


# The container


def instructions():
    """(word, rest) of each instruction of the container file."""
    text = re.sub(r"\\\n\s*", " ", (REPO / "docs" / "deploy" / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def the(word):
    (rest,) = [rest for name, rest in instructions() if name == word]
    return rest


def command_of(words):
    """Arguments of `python -m backend` in a command of the container."""
    python, dash_m, module, *arguments = words
    assert (python, dash_m, module) == ("/opt/kinora/.venv-3.13/bin/python", "-m", "backend")
    return arguments


def test_the_container_installs_and_runs_what_there_is():
    assert the("FROM").endswith("python:3.13-slim")
    assert the("USER") == "kinora"
    assert f"KINORA_HOME={the('VOLUME')}" == the("ENV")
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "install_deps" in rest]
    words = install.partition(" && ")[0].replace("${TORCH}", the("ARG").partition("=")[2]).split()
    assert words[0] == "python3"
    done = subprocess.run([sys.executable, *words[1:], "--help"], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    arguments = command_of(json.loads(the("ENTRYPOINT"))) + json.loads(the("CMD"))
    options = parser(arguments).parse_args(arguments)
    assert (options.command, options.port) == ("serve", int(the("EXPOSE")))
    check = command_of(json.loads(the("HEALTHCHECK").partition("CMD ")[2]))
    assert parser(check).parse_args(check).command == "ping"


@posix
@pytest.mark.slow
def test_what_the_container_copies_is_enough_to_serve_and_to_be_found_healthy(home, tmp_path):
    for sources, target in (rest.rsplit(maxsplit=1) for word, rest in instructions() if word == "COPY"):
        for source in map(REPO.joinpath, sources.split()):
            place = tmp_path / "opt" / target / (source.name if target.endswith("/") else "")
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, place)
    python = [sys.executable, "-m", "backend"]
    arguments = [word if word != "5555" else "0" for word in json.loads(the("CMD"))]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"KINORA_HOME": str(home)}
    place = {"cwd": tmp_path / "opt", "env": environment}
    with subprocess.Popen([*python, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **place) as process:
        try:
            wait_for(lambda: paths.connection_file(home).is_file() or process.poll() is not None)
            check = command_of(json.loads(the("HEALTHCHECK").partition("CMD ")[2]))
            assert subprocess.run([*python, *check], capture_output=True, **place).returncode == 0
        finally:
            process.send_signal(getattr(signal, the("STOPSIGNAL")))
        assert process.wait(15) == 0
    assert subprocess.run([*python, *check], capture_output=True, **place).returncode == 1


# Versions


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with server(tmp_path_factory.mktemp("kinora") / "home") as it:
        yield it


def first_word(broker):
    """What a real client says once it knows how it stands with the server."""
    with client(broker.connection) as it:
        events = collect(it, lambda events: [e for e in events if isinstance(e, Connected | Disconnected)])
        return next(e for e in events if isinstance(e, Connected | Disconnected))


@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        (
            {"PROTOCOL_OLDEST": 1, "PROTOCOL_VERSION": 1},
            "The add-on (Kinora add-on 0.1.0) is too old for this backend (Kinora 0.1.0): it speaks protocol 1, not 2",
            "update the add-on",
        ),
        (
            {"PROTOCOL_OLDEST": 7, "PROTOCOL_VERSION": 8},
            "This backend (Kinora 0.1.0) is too old for the add-on (Kinora add-on 0.1.0): it speaks protocol 2, not 7",
            "update the backend, or restart it if it was updated",
        ),
        (
            {"reads_captures": lambda: versions.reads_captures(versions.SCHEMA - 1)},
            "The add-on (Kinora add-on 0.1.0) is too old to read the captures of this backend (Kinora 0.1.0): "
            f"schema {versions.SCHEMA}, it reads {versions.SCHEMA - 1}",
            "update the add-on",
        ),
    ],
)
def test_who_is_too_old_is_told_in_one_sentence(broker, monkeypatch, change, reason, hint):
    for name, value in change.items():
        monkeypatch.setattr(addon_link, name, value)
    assert first_word(broker) == Disconnected(reason, hint)


def test_a_newer_add_on_that_still_speaks_the_old_protocol_connects(broker, monkeypatch):
    monkeypatch.setattr(addon_link, "PROTOCOL_VERSION", 9)
    monkeypatch.setattr(addon_link, "reads_captures", lambda: versions.reads_captures(versions.SCHEMA + 1))
    assert isinstance(first_word(broker), Connected)


def test_what_a_newer_backend_adds_is_told_as_such(broker, monkeypatch):
    hello = Requests.hello
    monkeypatch.setattr(Requests, "hello", lambda *given: {**hello(*given), "colour": "blue"})
    monkeypatch.setitem(broker._requests._answers, "hello", lambda *given: broker._requests.hello(*given))
    reason = "The backend sent what this add-on does not understand (hello: unknown field 'colour')"
    assert first_word(broker) == Disconnected(reason, "update the older of the two")


@pytest.mark.slow
def test_an_older_server_that_still_runs_can_be_stopped(home, monkeypatch):
    for stop in (launcher.stop, lambda connection: main(["stop"])):
        with serving(home) as process:
            connection = Connection.read(paths.connection_file(home))
            with RawClient(connection, hello=False) as raw:
                assert raw.ask("hello", ver_min=8, ver_max=8, client="newer", caps=[])["code"] == "version"
                assert raw.ask("list", first=0)["code"] == "no_hello"
            stop(connection)
            assert process.wait(PARK_S + 5) == 0


def test_an_add_on_that_says_nothing_of_captures_connects(broker):
    with RawClient(broker.connection) as raw:
        assert raw.hello["t"] == "hello"


def test_the_client_names_itself_with_the_version_of_its_manifest():
    manifest = (REPO / "blender_addon" / "blender_manifest.toml").read_text()
    assert f'\nversion = "{addon_link.own_version()}"\n' in manifest
