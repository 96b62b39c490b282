"""The doctor: a finding for everything that may be wrong, each on a machine or a folder that has just that fault."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend import doctor as whole
from backend.doctor import compute, disk, service, software
from backend.doctor.compute import Driver, judge_torch
from backend.doctor.finding import Finding, note, ok, wrong
from backend.doctor.libraries import Libraries
from backend.nets.manifest import models
from backend.nets.receipt import Receipt
from backend.server.process import REPO
from backend.wire import Connection, paths
from tests.serving import server

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
H200 = ("NVIDIA H200", 141 * 2**30, 140 * 2**30)
CARD = Driver("580.65.06", "13.0", [H200])
TORCH = {"version": "2.15.0+cu132", "cuda": "13.2", "hip": None, "device": "cuda", "cards": [H200[:2]], "error": ""}
ON_CPU = {**TORCH, "device": "cpu", "cards": []}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KINORA_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def of(name, findings):
    """The one finding of that name."""
    (found,) = [f for f in findings if f.name == name]
    return found


# What a finding looks like


def test_a_finding_is_one_line_that_the_add_on_can_take_apart():
    finding = wrong("torch", "it does\nnot load", "install it again")
    assert finding.line().split(maxsplit=2) == ["!!", "torch", "it does not load; install it again"]
    assert note("disk", "small").line().startswith("-- disk")
    assert ok("disk", "large").line().startswith("ok disk")


def test_a_check_that_fails_is_a_finding_and_the_others_are_made(home, monkeypatch):
    monkeypatch.setattr(disk, "examine", lambda home: 1 / 0)
    monkeypatch.setattr(whole, "Libraries", lambda: Told(TORCH))
    findings = list(whole.examine(home))
    assert "ZeroDivisionError" in of("doctor", findings).text
    assert of("server", findings).level == "ok"


# Graphics card and torch


class Told:
    """Libraries that were tried already."""

    def __init__(self, torch, failed=()):
        self.told = {"failed": dict(failed), "ffmpeg": "libavcodec 62", "torch": torch}


@pytest.mark.parametrize(
    ("driver", "torch", "environment", "level", "words"),
    [
        (CARD, TORCH, {}, "ok", "computes on NVIDIA H200, 141 GiB"),
        (None, ON_CPU, {}, "ok", "computes on the processor"),
        (None, None, {}, "ok", "the classical engine does not need it"),
        (CARD, None, {}, "ok", "the NVIDIA H200 is idle without it"),
        (
            CARD,
            {**ON_CPU, "version": "2.15.0+cpu", "cuda": None},
            {},
            "wrong",
            "2.15.0+cpu computes on the processor, not on the NVIDIA H200: its build has no CUDA",
        ),
        (
            Driver("535.104.05", "12.2", [H200]),
            ON_CPU,
            {},
            "wrong",
            "2.15.0+cu132 is for CUDA 13.2, driver 535.104.05 runs CUDA 12.2 at most",
        ),
        (CARD, ON_CPU, {}, "wrong", "computes on the processor, not on the NVIDIA H200"),
        (CARD, ON_CPU, {"CUDA_VISIBLE_DEVICES": ""}, "note", "CUDA_VISIBLE_DEVICES= hides the NVIDIA H200"),
        (CARD, ON_CPU, {"KINORA_DEVICE": "cpu"}, "note", "KINORA_DEVICE=cpu hides"),
        (CARD, {**TORCH, "error": "no kernel image"}, {}, "wrong", "does not compute on cuda: no kernel image"),
    ],
)
def test_torch_is_held_against_the_machine(driver, torch, environment, level, words):
    finding = judge_torch(driver, torch, "", environment)
    assert finding.level == level
    assert words in finding.text
    assert ("install_deps.py backend --torch" in finding.remedy) == (level == "wrong")


def test_a_torch_that_does_not_load_says_why():
    finding = judge_torch(CARD, None, "OSError: libcudart.so.13: cannot open", {})
    assert finding == wrong(
        "torch",
        "does not load: OSError: libcudart.so.13: cannot open",
        "run 'python3 install_deps.py backend --torch auto --repair'",
    )


def test_the_build_that_is_advised_is_one_that_the_driver_runs():
    old = judge_torch(Driver("535.104.05", "12.2", [H200]), ON_CPU, "", {})
    assert "--torch cu126" in old.remedy
    assert "--torch auto" in judge_torch(CARD, {**ON_CPU, "cuda": None}, "", {}).remedy


NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *name,memory.total,memory.free*)
    echo "NVIDIA H200, 143771, 1000, 570.86.15"
    echo "NVIDIA L4, 23034, 22000, 570.86.15";;
  *name*) echo "NVIDIA H200, 143771 MiB";;
  *memory.free*) echo 1000;;
  *) echo "| NVIDIA-SMI 570.86.15    Driver Version: 570.86.15    CUDA Version: 12.8  |";;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with two cards, as NVIDIA's tool tells it."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(NVIDIA_SMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@posix
def test_driver_and_cards_are_told(machine):
    driver = compute.nvidia_driver()
    assert (driver.version, driver.cuda) == ("570.86.15", "12.8")
    assert driver.cards == [("NVIDIA H200", 143771 * 2**20, 1000 * 2**20), ("NVIDIA L4", 23034 * 2**20, 22000 * 2**20)]
    first, second = [f for f in compute.examine(Told(ON_CPU)) if f.name == "gpu"]
    assert (first.level, second.level) == ("note", "ok")  # nearly all of the first one's memory is taken
    assert first.text == "NVIDIA H200, 1.0 of 140.4 GiB free"


@posix
def test_a_tool_without_a_driver_is_wrong(machine):
    machine.write_text("#!/bin/sh\necho NVIDIA-SMI has failed; exit 9\n")
    assert of("driver", compute.examine(Told(ON_CPU))).level == "wrong"


def test_a_card_without_a_driver_is_seen_on_the_bus(tmp_path):
    for n, (vendor, kind) in enumerate([("0x8086", "0x030000"), ("0x10de", "0x040300")]):
        (tmp_path / str(n)).mkdir()
        (tmp_path / str(n) / "vendor").write_text(vendor + "\n")
        (tmp_path / str(n) / "class").write_text(kind + "\n")
    assert not compute.card_without_driver(tmp_path)  # Intel's graphics, and NVIDIA's sound
    (tmp_path / "1" / "class").write_text("0x030200\n")
    assert compute.card_without_driver(tmp_path)


def test_little_memory_is_worth_a_note(monkeypatch):
    monkeypatch.setattr(compute, "memory_free", lambda: 2**30)
    (finding,) = compute.memory()
    assert (finding.level, finding.text[:12]) == ("note", "1.0 GiB free")


# Libraries


@pytest.mark.slow
def test_libraries_are_tried_in_a_process_of_their_own(tmp_path, monkeypatch):
    (tmp_path / "trimesh.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    (tmp_path / "torch.py").write_text("import os; print('noise'); raise OSError('libcudart: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = Libraries().told
    assert told["failed"] == {
        "trimesh": "ImportError: libGL.so.1: cannot open",
        "torch": "OSError: libcudart: cannot open",
    }
    assert told["ffmpeg"].startswith("libavcodec ")
    findings = list(software.packages(Told(None, told["failed"])))
    broken = [f for f in findings if f.level == "wrong"]
    assert [(f.name, f.text) for f in broken] == [("trimesh", "does not load: ImportError: libGL.so.1: cannot open")]
    assert not {"torch", "av", "cv2"} & set(subprocess_modules())


def subprocess_modules():
    """What the doctor itself loads."""
    code = "import sys, backend.doctor; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO).stdout.split()


@posix
@pytest.mark.slow
def test_a_library_that_crashes_costs_nothing_but_its_child(tmp_path, monkeypatch):
    (tmp_path / "zstandard.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "ended a process" in Libraries().told["failed"]["libraries"]


# Disk


@linux
def test_the_kind_of_file_system_is_that_of_the_innermost_mount(tmp_path):
    place = tmp_path / "with blank" / "home"
    place.mkdir(parents=True)
    escaped = str(tmp_path / "with blank").replace(" ", "\\040")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"a / ext4 rw 0 0\nb {escaped} nfs4 rw 0 0\nc {escaped}/homes cifs rw 0 0\n")
    assert disk.file_system(place, mounts) == "nfs4"
    assert disk.file_system(tmp_path, mounts) == "ext4"
    assert disk.file_system(place, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        ("nfs4", "wrong"),
        ("fuse.sshfs", "wrong"),
        ("9p", "note"),
        ("tmpfs", "note"),
        ("overlay", "note"),
        ("ext4", "ok"),
    ],
)
def test_what_a_file_system_is_good_for(home, monkeypatch, kind, level):
    monkeypatch.setattr(disk, "file_system", lambda place: kind)
    assert of("filesystem", disk.examine(home)).level == level


def test_a_full_disk_and_one_without_room_for_files(home, monkeypatch):
    assert of("disk", disk.examine(home)).level == "ok"
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage._replace(free=2**30))
    finding = of("disk", disk.examine(home))
    assert (finding.level, finding.text) == ("wrong", f"1.0 GiB free for {home}")


def test_writing_is_tried_and_leaves_nothing(home, monkeypatch):
    finding = of("data", disk.examine(home))
    assert finding.level == "ok"
    assert "flushing a file takes" in finding.text
    assert list(home.iterdir()) == []

    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", refuse)
    finding = of("data", disk.examine(home))
    assert (finding.level, "Input/output error" in finding.text) == ("wrong", True)
    assert list(home.iterdir()) == []


def test_what_takes_the_room_is_told(home):
    (home / "cache" / "a").mkdir(parents=True)
    with open(home / "cache" / "a" / "0.npy", "wb") as file:
        file.truncate(2**30)
    assert of("contents", disk.examine(home)).text == "1.0 GiB of data (cache 1.0)"
    size, counted = disk.folder_bytes(home, time.monotonic() - 1)
    assert (size, counted) == (0, False)


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path):
    findings = list(disk.examine(tmp_path / "a" / "b"))
    assert of("data", findings).text.endswith("is not there yet")
    assert list(tmp_path.iterdir()) == []


# Weights


def test_weights_are_missing_checked_and_licensed(home):
    assert of("weights", software.weights()).text.startswith("none")
    model = models()["raft_large"] if "raft_large" in models() else next(iter(models().values()))
    folder = home / "weights"
    folder.mkdir()
    file = {"bytes": 4, "sha256": "0" * 64, "checked_by": "the publisher's checksum", "checkpoint": True}
    (folder / "x.pth").write_bytes(b"four")
    Receipt(folder).record(model, "here", None, {"x.pth": {**file, "path": str(folder / "x.pth")}})
    finding = of("weights", software.weights())
    assert finding.level == ("ok" if model.licence.commercial_use else "note")
    assert "checked by the publisher's checksum" in finding.text
    assert model.licence.name in finding.text
    (folder / "x.pth").write_bytes(b"cut")
    finding = of("weights", software.weights())
    assert finding.level == "wrong"
    assert finding.remedy == f"run 'weights get {model.name}'"


# The server


def test_a_running_server_is_asked_with_the_keys_of_this_machine(tmp_path, monkeypatch):
    with server(tmp_path / "home") as broker:
        findings = list(service.examine(tmp_path / "home", broker.port))
        assert of("server", findings).text.startswith(f"Kinora 0.1.0 at {broker.connection.address}, process ")
        assert of("port", findings).text == f"{broker.port} is the server's"
        assert of("reach", findings).text.startswith("from this machine alone")
        monkeypatch.setattr(service, "__version__", "0.2.0")
        older = of("server", service.examine(tmp_path / "home"))
        assert (older.level, older.remedy) == ("note", "stop it, so that the new one is started")
        stranger = dataclasses.replace(broker.connection, client_secret_key=broker.connection.client_public_key)
        stranger.write(paths.connection_file(tmp_path / "home"))
        monkeypatch.setattr(service, "ANSWER_S", 0.5)
        assert of("server", service.examine(tmp_path / "home")).level == "wrong"


@posix
def test_what_a_killed_server_left(home):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    Connection("tcp://127.0.0.1:9", *["k" * 40] * 3, pid=gone.pid).write(paths.connection_file(home))
    (home / "jobs" / "a" / "scratch").mkdir(parents=True)
    findings = list(service.examine(home))
    assert of("server", findings).level == "note"
    assert "left from one that was killed" in of("server", findings).text
    assert of("leftovers", findings).text.startswith("1 unfinished")


def test_a_port_that_another_program_has(home):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        finding = of("port", service.examine(home, port))
        assert (finding.level, finding.remedy) == ("wrong", "choose another with 'serve --port'")
    assert of("port", service.examine(home, port)).text == f"{port} is free"


@posix
def test_keys_that_others_can_read_are_told_and_not_shown(home):
    secret = "s" * 40
    Connection("tcp://127.0.0.1:9", "p" * 40, "c" * 40, secret).write(paths.connection_file(home))
    assert [f.level for f in service.keys(home)] == ["ok"]
    paths.connection_file(home).chmod(0o644)
    findings = list(service.keys(home))
    assert [f.level for f in findings] == ["wrong", "ok"]
    assert f"chmod 600 '{paths.connection_file(home)}'" in findings[0].remedy
    assert not any(secret in f.line() for f in findings)


def process(folder, pid, parent, mark=b"KINORA_WORKER=abc", words=b"python\0-m\0backend.server.worker\0"):
    """What Linux tells of a process."""
    place = folder / str(pid)
    place.mkdir()
    (place / "environ").write_bytes(b"PATH=/bin\0" + mark + b"\0")
    (place / "stat").write_text(f"{pid} (py (x) thon) S {parent} 1 1")
    (place / "cmdline").write_bytes(words)


def test_workers_without_a_server_are_found(tmp_path):
    process(tmp_path, 10, 1)
    process(tmp_path, 11, 10)
    process(tmp_path, 12, 1, mark=b"HOME=/")
    process(tmp_path, 13, 1, words=b"sleep\x00100\0")
    (tmp_path / "14").mkdir()  # it ended meanwhile
    assert service.orphaned_workers(tmp_path) == [10]


def test_a_clock_that_is_behind_is_told(home):
    assert service.clock(home).level == "ok"
    paths.server_keys(home).write_text("{}")
    later = time.time() + 7200
    os.utime(paths.server_keys(home), (later, later))
    finding = service.clock(home)
    assert finding.level == "note"
    assert "2 h later" in finding.text


# The command


@posix
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="needs a machine without a card")
def test_the_command_finds_the_card_that_the_real_torch_does_not_use(home, machine):
    machine.write_text(NVIDIA_SMI.replace("12.8", "99.0"))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "backend", "doctor", "--json"], capture_output=True, text=True, cwd=REPO, env=environment
    )
    told = json.loads(done.stdout)
    assert (done.returncode, told["ok"]) == (1, False)
    findings = [Finding(**row) for row in told["findings"]]
    assert "not on the NVIDIA H200" in of("torch", findings).text
    assert {"kinora", "python", "av", "memory", "disk", "server", "keys", "clock"} <= {f.name for f in findings}
    assert Path(of("kinora", findings).text.split(" in ")[1]) == REPO
