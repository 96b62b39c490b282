"""The installer keeps its word: what was stopped is finished, what is damaged is seen, what is complete is left alone.

Real uv and pip install tiny packages, made here, into real environments, without a network.
"""

from __future__ import annotations

import ast
import base64
import functools
import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

import install_deps as setup

ROOT = Path(__file__).resolve().parent.parent
RUNNING = "{}.{}".format(*sys.version_info)


def make_wheel(folder: Path, name: str, version: str, files: int = 3) -> str:
    """A package of that many small modules. Returns its line for a lock file."""
    contents = {f"{name}/m{i}.py": f"number = {i}\n" for i in range(files)}
    contents[f"{name}/__init__.py"] = f"__version__ = {version!r}\n"
    info = f"{name}-{version}.dist-info"
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"

    def row(path: str, text: str) -> str:
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        return f"{path},sha256={digest},{len(text)}\n"

    record = "".join(row(path, text) for path, text in contents.items()) + f"{info}/RECORD,,\n"
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A folder with wheels/ and locks/ for one group, `tiny`, and installers that see nothing else in the world."""
    locks, wheels = tmp_path / "locks", tmp_path / "wheels"
    locks.mkdir()
    wheels.mkdir()
    (locks / "tiny.txt").write_text(make_wheel(wheels, "alpha", "1.0") + make_wheel(wheels, "beta", "1.0"))
    (locks / "attempt.py").write_text("import alpha, beta\nprint('alpha', alpha.__version__)\n")
    monkeypatch.setattr(setup, "LOCKS", locks)
    monkeypatch.setattr(setup, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(setup, "LOG", tmp_path / "cache" / "log")
    for variable, value in {
        "UV_CACHE_DIR": tmp_path / "uv-cache", "UV_LINK_MODE": "copy", "UV_NO_CONFIG": "1",
        "UV_FIND_LINKS": wheels, "UV_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels, "PIP_NO_INDEX": "1", "PIP_NO_CACHE_DIR": "1", "PIP_CONFIG_FILE": os.devnull,
    }.items():  # fmt: skip
        monkeypatch.setenv(variable, str(value))
    return tmp_path


@pytest.fixture
def env(place) -> setup.Environment:
    """An environment, not made yet, that uv will fill."""
    return setup.Environment(place / "env", sys.executable, RUNNING, find_uv())


def find_uv() -> Path | str:
    own = setup.python_in(setup.TOOLS).with_name("uv.exe" if setup.WINDOWS else "uv")
    found = own if own.exists() else shutil.which("uv")
    return found or pytest.skip("no uv here")


def remove_file(site: Path) -> None:
    (site / "alpha" / "m1.py").unlink()


def cut_file(site: Path) -> None:
    (site / "alpha" / "m1.py").write_text("numb")


def remove_record(site: Path) -> None:
    (site / "alpha-1.0.dist-info" / "RECORD").unlink()


def cut_record(site: Path) -> None:
    record = site / "alpha-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text()[:50])


def empty_dist_info(site: Path) -> None:
    for file in (site / "alpha-1.0.dist-info").iterdir():
        file.unlink()


DAMAGES = [remove_file, cut_file, remove_record, cut_record, empty_dist_info]


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory) -> Path:
    """What an installer leaves behind of two packages, unpacked by hand."""
    site = tmp_path_factory.mktemp("site")
    for name in ("alpha", "beta"):
        make_wheel(site, name, "1.0")
        zipfile.ZipFile(site / f"{name}-1.0-py3-none-any.whl").extractall(site)
    return site


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_damage_is_seen_and_only_where_it_is(site_packages, tmp_path, damage):
    site = shutil.copytree(site_packages, tmp_path / "site")
    assert setup.damaged_packages(site) == {}
    damage(site)
    assert [info.name for info in setup.damaged_packages(site)] == ["alpha-1.0.dist-info"]


def test_a_new_environment_is_marked_complete_and_then_left_alone(env, monkeypatch):
    env.ensure(("tiny",))
    assert env.complete().keys() == {"tiny"}
    assert (env.site / "alpha" / "m2.py").exists()
    monkeypatch.setattr(setup, "run", lambda *a, **k: pytest.fail("a complete environment was touched"))
    env.ensure(("tiny",))


@pytest.mark.parametrize(
    ("words", "groups"),
    [
        (["backend"], {"torch", "backend"}),
        (["backend", "--cluster"], {"torch", "backend", "cluster"}),
        (["test"], {"torch", "backend", "blender", "cluster", "test"}),
    ],
    ids=["backend", "with Ray", "test"],
)
def test_ray_is_installed_where_it_is_asked_for_and_for_the_tests(place, monkeypatch, words, groups):
    asked = []

    def ensure(env, wanted, *options):
        asked.append(set(wanted))
        raise setup.Problem("enough")

    monkeypatch.setattr(setup.Environment, "ensure", ensure)
    monkeypatch.setattr(setup, "choose_python", lambda *_: (sys.executable, RUNNING))
    monkeypatch.setattr(setup, "find_uv", lambda base: None)
    monkeypatch.setattr(sys, "argv", ["install_deps.py", *words])
    assert setup.main() == 1
    assert asked == [groups]


@pytest.mark.slow
def test_where_there_is_no_uv_pip_keeps_the_same_word(place):
    env = setup.Environment(place / "env", sys.executable, RUNNING, uv=None)
    env.ensure(("tiny",))
    assert env.complete()
    for damage in (cut_file, empty_dist_info):
        env.marker.unlink()
        damage(env.site)
        env.ensure(("tiny",))
        assert setup.damaged_packages(env.site) == {}
        assert (env.site / "alpha" / "m1.py").read_text() == "number = 1\n"


@pytest.mark.parametrize("damage", [cut_file, empty_dist_info])
def test_a_stopped_installation_is_finished_not_believed(env, damage):
    env.ensure(("tiny",))
    env.marker.unlink()  # as a killed installer leaves it: packages that look installed, and no marker
    damage(env.site)
    env.ensure(("tiny",))
    assert setup.damaged_packages(env.site) == {}
    assert (env.site / "alpha" / "m1.py").read_text() == "number = 1\n"
    assert env.complete()


def test_repair_finds_what_broke_under_the_marker(env):
    env.ensure(("tiny",))
    remove_file(env.site)
    env.ensure(("tiny",))
    assert not (env.site / "alpha" / "m1.py").exists()  # the marker is believed...
    env.ensure(("tiny",), repair=True)
    assert (env.site / "alpha" / "m1.py").exists()  # ...unless one asks


def test_a_changed_lock_is_followed(env, place):
    env.ensure(("tiny",))
    beta = (setup.LOCKS / "tiny.txt").read_text().splitlines(keepends=True)[1]
    (setup.LOCKS / "tiny.txt").write_text(make_wheel(place / "wheels", "alpha", "2.0") + beta)
    env.ensure(("tiny",))
    assert (env.site / "alpha-2.0.dist-info").exists()
    assert not (env.site / "alpha-1.0.dist-info").exists()


def test_packages_that_do_not_load_leave_no_marker(env):
    (setup.LOCKS / "attempt.py").write_text("raise SystemExit('libX11.so.6: cannot open shared object file')")
    with pytest.raises(setup.Problem, match="library of the system is missing"):
        env.ensure(("tiny",))
    assert not env.complete()


def test_a_package_that_is_not_the_locked_one_is_refused(env):
    lock = setup.LOCKS / "tiny.txt"
    lock.write_text(re.sub(r"sha256:....", "sha256:0000", lock.read_text()))
    with pytest.raises(setup.Problem, match="not the one that was locked"):
        env.ensure(("tiny",))
    assert not env.complete()


def test_a_package_that_cannot_be_had_is_one_sentence_and_the_log_has_the_rest(env, place):
    for wheel in (place / "wheels").iterdir():
        wheel.unlink()
    with pytest.raises(setup.Problem, match=r"Installing the packages failed: .*run the same command again"):
        env.ensure(("tiny",))
    assert "alpha" in setup.LOG.read_text()


@pytest.mark.slow
def test_an_installer_killed_in_the_middle_is_finished_by_the_next(env, place):
    """uv is killed while it copies 2,000 files; whatever it left, the next run ends whole."""
    (setup.LOCKS / "tiny.txt").write_text(
        make_wheel(place / "wheels", "alpha", "1.0", files=2000) + make_wheel(place / "wheels", "beta", "1.0")
    )
    env.make()
    command = [env.uv, "pip", "install", "--python", env.python, "-r", setup.LOCKS / "tiny.txt"]
    with subprocess.Popen([str(c) for c in command], stderr=subprocess.DEVNULL) as installer:
        while installer.poll() is None and not (env.site / "alpha").exists():
            time.sleep(0.001)
        installer.kill()
    env.ensure(("tiny",))
    assert len(list((env.site / "alpha").glob("m*.py"))) == 2000
    assert env.complete()


@pytest.fixture
def registry(place, monkeypatch):
    """A default registry on this machine, and every other host out of reach: behind a proxy that is not there."""
    pages = functools.partial(QuietPages, directory=str(place / "registry"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for variable in ("UV_NO_INDEX", "UV_FIND_LINKS"):
            monkeypatch.delenv(variable)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{server.server_port}")
        for variable in ("HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield place / "registry"
        server.shutdown()


class QuietPages(http.server.SimpleHTTPRequestHandler):
    """A folder's listing is all that an index of packages is."""

    def log_message(self, *_) -> None:
        pass


@pytest.mark.parametrize("left_behind", [None, "torchvision"])
@pytest.mark.slow
def test_an_index_that_does_not_answer_gives_the_registrys_pair(env, registry, left_behind):
    """And what half a try left, or a killed one, does not survive into the pair."""
    pins = ("torch==2.15.0", "torchvision==0.29.2", "roma==1.8.0")
    lines = []
    for name, version in (pin.split("==") for pin in pins):
        (registry / name).mkdir(parents=True)
        lines.append(make_wheel(registry / name, name, version))
    (setup.LOCKS / "torch.txt").write_text("".join(lines))
    (setup.LOCKS / "torch-index.txt").write_text("\n".join(pins))
    (setup.LOCKS / "attempt.py").write_text("import torch, torchvision; print(torch.__version__)")
    env.make()
    if left_behind:
        (env.site / left_behind).mkdir()
        (env.site / left_behind / "from_another_build.py").touch()
    env.ensure(("torch",))
    assert not (env.site / "torchvision" / "from_another_build.py").exists()
    assert sorted(f.name for f in env.site.glob("torch*.dist-info")) == [
        "torch-2.15.0.dist-info",
        "torchvision-0.29.2.dist-info",
    ]
    assert env.complete()["torch"].endswith(" auto")
    assert "index does not answer" in setup.LOG.read_text()
    with pytest.raises(setup.Problem, match=r"PyTorch \(cpu\)"):  # what was asked for by name is not exchanged
        env.ensure(("torch",), build="cpu")
    assert not env.complete()


ATTEMPT = """
import sys
from pathlib import Path
sys.path.insert(0, str(Path("requirements").absolute()))
import attempt
for build in sys.argv[1:]:
    try:
        print(build, attempt.pytorch(build))
    except SystemExit as refusal:
        print(build, "REFUSED", refusal)
"""


def attempt(*builds: str, **variables: str) -> list[str]:
    """What trying PyTorch comes to in an environment, for each build that might have been asked for."""
    child = [sys.executable, "-c", ATTEMPT, *builds]
    done = subprocess.run(child, capture_output=True, encoding="utf-8", env={**os.environ, **variables}, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.skipif(setup.WINDOWS, reason="needs a shell script")
@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")
def test_a_silent_fall_to_the_processor_is_noticed(tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: one that PyTorch is kept from'\n")
    tool.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    auto, cpu, cu130 = attempt("auto", "cpu", "cu130", PATH=path, CUDA_VISIBLE_DEVICES="")
    if "on mps" in auto:
        pytest.skip("nothing keeps PyTorch from this machine's GPU")
    assert "WARNING" in auto
    assert "not on the GPU 0" in auto
    assert "computes on cpu" in cpu
    assert "WARNING" not in cpu
    assert "REFUSED" in cu130


def test_a_torchvision_of_another_build_is_refused(tmp_path):
    for name, version in {"torch": "2.15.0+cu130", "torchvision": "0.29.2+cpu"}.items():
        (tmp_path / f"{name}.py").write_text(f"__version__ = {version!r}")
    (found,) = attempt("auto", PYTHONPATH=str(tmp_path))
    assert "REFUSED" in found
    assert "do not belong together" in found


def test_the_running_python_is_taken_when_it_will_do():
    assert setup.choose_python((RUNNING, "2.7")) == (sys.executable, RUNNING)


@pytest.mark.skipif(setup.WINDOWS, reason="needs shell scripts")
@pytest.mark.parametrize("source", ["pyenv", "blender"])
def test_another_python_is_found_and_a_shim_for_none_is_passed_over(tmp_path, monkeypatch, source):
    def script(path: Path, line: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    shims, home = tmp_path / "shims", tmp_path / "home"
    script(shims / f"python{RUNNING}", "exit 127")
    place = home / ".pyenv" / "versions" / f"{RUNNING}.1" / "bin" if source == "pyenv" else tmp_path / "blender"
    real = script(place / "python3", f'exec "{sys.executable}" "$@"')
    if source == "blender":
        script(shims / "blender", f"echo Blender 5.2.3 LTS; echo python: {real}; echo Blender quit")
    monkeypatch.setenv("PATH", f"{shims}:/usr/bin:/bin")
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")  # the running one will not do
    assert setup.choose_python((RUNNING,)) == (str(real), RUNNING)


def test_without_a_python_that_will_do_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(setup, "find_uv", lambda python: None)
    with pytest.raises(setup.Problem, match=r"Python 3\.99 was not found .* install it, or name one with --python"):
        setup.choose_python(("3.99",))
    with pytest.raises(setup.Problem, match=f"is {RUNNING}, and this needs Python 3.99"):
        setup.choose_python(("3.99",), sys.executable)
    with pytest.raises(setup.Problem, match="is no Python"):
        setup.choose_python(("3.99",), os.devnull)


def test_progress_is_told_in_json_to_a_program(tmp_path):
    command = [sys.executable, str(ROOT / "install_deps.py"), "backend", "--json", "--python", os.devnull]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 1
    assert "is no Python" in [json.loads(line) for line in done.stdout.splitlines()][-1]["error"]


@pytest.mark.skipif(setup.WINDOWS, reason="SIGTERM there cannot be caught")
def test_an_installer_that_is_told_to_stop_takes_its_child_with_it(tmp_path):
    code = (
        "import signal, sys, install_deps as setup; from pathlib import Path\n"
        f"setup.CACHE = Path({str(tmp_path)!r}); setup.LOG = setup.CACHE / 'log'\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "setup.run([sys.executable, '-u', '-c', 'import os, time; print(os.getpid()); time.sleep(600)'], 'Waiting')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as installer:
        while not (
            found := re.search(r"(?m)  (\d+)$", (tmp_path / "log").read_text() if (tmp_path / "log").exists() else "")
        ):
            assert installer.poll() is None
            time.sleep(0.02)
        installer.send_signal(signal.SIGTERM)
        assert installer.wait(30) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(found.group(1)), 0)


def test_the_installer_reads_under_old_pythons_and_imports_the_standard_library_alone():
    tree = ast.parse((ROOT / "install_deps.py").read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
