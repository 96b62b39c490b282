"""Builds the add-on for Blender, dist/kinora-<version>.zip; `install_deps.py extension` runs it beside pip.

The zip has the same bytes whenever it is made from the same files, and holds the wheels that the manifest names: one
pyzmq for each Python and machine that the official Blenders come with; `--for-python 3.14` makes one for a Blender that
was built on that Python instead. Blender's own validator judges it where there is one.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDON = ROOT / "blender_addon"
LOCK = Path(__file__).with_suffix(".txt")
#: The lock of the wheels for every other Python: abi3, so one for each kind of machine.
ABI3_LOCK = LOCK.with_stem("extension-abi3")
MACHINES = ("macosx_10_15_universal2", "manylinux_2_26_x86_64.manylinux_2_28_x86_64", "win_amd64", "win_arm64")


def lock_of(wheel: Path) -> Path:
    return ABI3_LOCK if "-abi3-" in wheel.name else LOCK


def is_whole(wheel: Path) -> bool:
    """Whether a wheel is there with the bytes that its lock names."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel.exists() else "absent"
    return digest in lock_of(wheel).read_text(encoding="utf-8")


def manifest_for(python: str) -> str:
    """The manifest with the wheels of one Python. Raises SystemExit for a Python that no wheel here is of."""
    text = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    tag = "cp" + python.replace(".", "")
    wheels = [w for w in tomllib.loads(text)["wheels"] if f"-{tag}-" in w]
    if not wheels:
        if not re.fullmatch(r"3\.\d+", python) or int(python[2:]) < 12:
            raise SystemExit(f"There is no wheel for Python {python}")
        version = re.search(r"(?m)^pyzmq==(\S+)", ABI3_LOCK.read_text(encoding="utf-8")).group(1)
        wheels = [f"./wheels/pyzmq-{version}-cp312-abi3-{machine}.whl" for machine in MACHINES]
    listed = "".join(f'    "{wheel}",\n' for wheel in wheels)
    return re.sub(r"(?m)^wheels = \[\n(?:.*\n)*?\]", f"wheels = [\n{listed}]", text)


def fetch(wheel: Path, python: str) -> None:
    """Put a wheel where the manifest expects it, by the pip of that Python. Raises SystemExit."""
    _, _, tag, _, machine = wheel.stem.split("-")
    wheel.unlink(missing_ok=True)
    print(f"Downloading {wheel.name}", flush=True)
    pip = (
        python,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "-r",
        lock_of(wheel),
    )
    platform = machine.rpartition(".")[2]
    target = ("--platform", platform, "--python-version", tag.removeprefix("cp"), "--dest", wheel.parent)
    subprocess.run([str(word) for word in (*pip, *target)], check=False)
    if not is_whole(wheel):
        raise SystemExit(f"{wheel.name} could not be fetched")


def build(addon: Path, target: Path, manifest: str | None = None) -> None:
    """Write the zip of the add-on in `addon`: its files, the licence, the manifest's wheels, and nothing else.

    `manifest` is the text of another manifest than the add-on's own.
    """
    written = addon / "blender_manifest.toml"
    text = manifest or written.read_text(encoding="utf-8")
    wheels = [addon / w for w in tomllib.loads(text)["wheels"]]
    hidden = {"__pycache__", "wheels"}
    own = [
        f for f in addon.rglob("*") if f.is_file() and not hidden & set(f.relative_to(addon).parts) and f.name[0] != "."
    ]
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".part")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [ROOT / "LICENSE", *sorted(own), *wheels]:
            entry = zipfile.ZipInfo(file.relative_to(addon).as_posix() if addon in file.parents else file.name)
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, text if file == written else file.read_bytes())
    os.replace(beside, target)


def blenders_tool() -> Path | None:
    """Blender's command line for extensions, which plain Python runs; None if no environment here has bpy."""
    found = ROOT.glob(".venv-3.*/**/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py")
    return max(found, default=None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pip", help="a Python with pip")
    parser.add_argument("--wheels", action="store_true", help="only fetch the wheels")
    parser.add_argument("--for-python", metavar="3.x", help="a zip for a Blender built on this Python")
    parser.add_argument("--split-platforms", action="store_true", help="a zip for each kind of machine as well")
    options = parser.parse_args()
    text = (ADDON / "blender_manifest.toml").read_text(encoding="utf-8")
    if options.for_python:
        text = manifest_for(options.for_python)
    manifest = tomllib.loads(text)
    for wheel in (ADDON / w for w in manifest["wheels"]):
        if not is_whole(wheel):
            fetch(wheel, python=options.pip)
    if options.wheels:
        return print("The add-on's wheels are here")
    folder = ROOT / "dist" / (f"python{options.for_python}" if options.for_python else "")
    target = folder / f"{manifest['id']}-{manifest['version']}.zip"
    build(ADDON, target, text)
    tool = blenders_tool()
    if tool:
        subprocess.run([sys.executable, str(tool), "validate", str(target)], check=True, stdout=subprocess.DEVNULL)
    if options.split_platforms:
        split(target, tool)
    judged = "Blender's validator finds it good" if tool else "not validated: no environment here has bpy"
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB; {judged})")


def split(whole: Path, tool: Path | None) -> None:
    """One zip for each kind of machine, by Blender's own tool, beside the one for all. Raises SystemExit."""
    if tool is None:
        raise SystemExit("--split-platforms needs Blender's own tool: run install_deps.py test once, it brings bpy")
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(whole).extractall(folder)
        command = (tool, "build", "--split-platforms", "--source-dir", folder, "--output-dir", whole.parent)
        subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
