"""The add-on's zip: what is in it, what Blender's own validator says, and that a real Blender installs and runs it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ADDON = ROOT / "blender_addon"
MANIFEST = tomllib.loads((ADDON / "blender_manifest.toml").read_text(encoding="utf-8"))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem + "_under_test", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The zip, built from the wheels that `install_deps.py test` has fetched."""
    if not all((ADDON / wheel).exists() for wheel in MANIFEST["wheels"]):
        pytest.skip("the wheels are not here: python3 install_deps.py extension")
    target = tmp_path_factory.mktemp("dist") / "kinora.zip"
    load(ROOT / "requirements" / "extension.py").build(ADDON, target)
    return target


def test_the_zip_holds_the_addon_the_licence_and_the_wheels_and_nothing_else(archive):
    names = set(zipfile.ZipFile(archive).namelist())
    python = {f.relative_to(ADDON).as_posix() for f in ADDON.rglob("*.py")}
    wheels = {wheel.removeprefix("./") for wheel in MANIFEST["wheels"]}
    assert names == python | wheels | {"LICENSE", "blender_manifest.toml"}


def test_the_same_files_give_the_same_bytes(archive, tmp_path):
    load(ROOT / "requirements" / "extension.py").build(ADDON, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_every_python_of_blender_has_a_wheel_for_every_machine():
    """Blender comes with Python 3.11 (4.5, 5.0) and 3.13 (5.1, 5.2), for four kinds of machine."""
    tags = {tuple(Path(wheel).stem.split("-")[2:]) for wheel in MANIFEST["wheels"]}
    machines = {machine for _, _, machine in tags}
    assert len(machines) == 4
    assert tags == {(python, python, machine) for python in ("cp311", "cp313") for machine in machines}


@pytest.mark.parametrize("python", ["3.11", "3.13", "3.14"])
def test_a_zip_for_one_python_has_its_wheels_alone(python, tmp_path):
    """Distributions build Blender on Pythons of their own; beside a cp311 wheel Blender refuses their abi3 ones."""
    builder = load(ROOT / "requirements" / "extension.py")
    text = builder.manifest_for(python)
    wheels = tomllib.loads(text)["wheels"]
    tags = {tuple(Path(wheel).stem.split("-")[2:4]) for wheel in wheels}
    assert len(wheels) == 4
    assert tags == ({("cp312", "abi3")} if python == "3.14" else {(f"cp{python.replace('.', '')}",) * 2})
    assert {**tomllib.loads(text), "wheels": None} == {**MANIFEST, "wheels": None}


@pytest.mark.parametrize("python", ["3.10", "2.7", "python"])
def test_a_python_without_a_wheel_is_said(python):
    with pytest.raises(SystemExit, match="no wheel"):
        load(ROOT / "requirements" / "extension.py").manifest_for(python)


def test_manifest_lock_and_project_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lock = (ROOT / "requirements" / "extension.txt").read_text(encoding="utf-8")
    assert len(MANIFEST["platforms"]) == 5  # Apple's two share a wheel
    zmq = re.search(r"(?m)^pyzmq==(\S+)", lock).group(1)
    assert all(f"/pyzmq-{zmq}-" in wheel for wheel in MANIFEST["wheels"])
    assert MANIFEST["version"] == project["project"]["version"]


def test_blenders_own_validator_finds_it_good(archive):
    bpy = Path(importlib.util.find_spec("bpy").origin).parent
    tool = next(bpy.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    done = subprocess.run([sys.executable, str(tool), "validate", str(archive)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


INSTALL_AND_USE = """
import importlib, os, sys
from pathlib import Path
import bpy

archive, home = sys.argv[1], Path(sys.argv[2])
where = "lib/site-packages" if os.name == "nt" else "lib/python{}.{}/site-packages".format(*sys.version_info)
wheels = home / "extensions" / ".local" / where
wheels.mkdir(parents=True)
sys.path.insert(0, str(wheels))  # this Python has a zmq of its own: the wheel's must do the work
module = "bl_ext.user_default.kinora"

bpy.ops.extensions.package_install_files(repo="user_default", filepath=archive, enable_on_install=True)
import zmq
assert Path(zmq.__file__).is_relative_to(wheels), zmq.__file__
assert zmq.curve_keypair() and importlib.import_module(module + ".client")
assert hasattr(bpy.types.Scene, "kinora") and "reconstruct" in dir(bpy.ops.kinora)

bpy.ops.preferences.addon_disable(module=module)
assert not hasattr(bpy.types.Scene, "kinora") and "reconstruct" not in dir(bpy.ops.kinora)
bpy.ops.preferences.addon_enable(module=module)
assert hasattr(bpy.types.Scene, "kinora")

repositories = [repository.module for repository in bpy.context.preferences.extensions.repos]
bpy.ops.extensions.package_uninstall(repo_index=repositories.index("user_default"), pkg_id="kinora")
assert not hasattr(bpy.types.Scene, "kinora")
assert not (home / "extensions" / "user_default" / "kinora").exists()
print("zmq", zmq.__version__, flush=True)
os._exit(0)
"""


@pytest.mark.slow
def test_blender_installs_enables_disables_and_removes_it(archive, tmp_path):
    child = [sys.executable, "-c", INSTALL_AND_USE, str(archive), str(tmp_path)]
    environ = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path)}
    done = subprocess.run(child, capture_output=True, encoding="utf-8", timeout=300, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "zmq 26.4.0" in done.stdout
