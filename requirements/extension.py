"""Builds the add-on for Blender, dist/kinora-<version>.zip; `install_deps.py extension` runs it beside pip.

The zip has the same bytes whenever it is made from the same files, and holds the wheels that the manifest names: one
pyzmq for each Python and machine that Blender comes with. Blender's own validator judges it where there is one.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDON = ROOT / "blender_addon"
LOCK = Path(__file__).with_suffix(".txt")


def is_whole(wheel: Path) -> bool:
    """Whether a wheel is there with the bytes that the lock names."""
    return wheel.exists() and hashlib.sha256(wheel.read_bytes()).hexdigest() in LOCK.read_text(encoding="utf-8")


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
        LOCK,
    )
    target = ("--platform", machine, "--python-version", tag.removeprefix("cp"), "--dest", wheel.parent)
    subprocess.run([str(word) for word in (*pip, *target)], check=False)
    if not is_whole(wheel):
        raise SystemExit(f"{wheel.name} could not be fetched")


def build(addon: Path, target: Path) -> None:
    """Write the zip of the add-on in `addon`: its files, the licence, the manifest's wheels, and nothing else."""
    manifest = tomllib.loads((addon / "blender_manifest.toml").read_text(encoding="utf-8"))
    wheels = [addon / w for w in manifest["wheels"]]
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
            archive.writestr(entry, file.read_bytes())
    os.replace(beside, target)


def blenders_tool() -> Path | None:
    """Blender's command line for extensions, which plain Python runs; None if no environment here has bpy."""
    found = ROOT.glob(".venv-3.*/**/site-packages/bpy/*/scripts/addons_core/bl_pkg/cli/blender_ext.py")
    return max(found, default=None)


def main() -> None:
    manifest = tomllib.loads((ADDON / "blender_manifest.toml").read_text(encoding="utf-8"))
    for wheel in (ADDON / w for w in manifest["wheels"]):
        if not is_whole(wheel):
            fetch(wheel, python=sys.argv[1])
    if "--wheels" in sys.argv:
        return print("The add-on's wheels are here")
    target = ROOT / "dist" / f"{manifest['id']}-{manifest['version']}.zip"
    build(ADDON, target)
    tool = blenders_tool()
    if tool:
        subprocess.run([sys.executable, str(tool), "validate", str(target)], check=True, stdout=subprocess.DEVNULL)
    judged = "Blender's validator finds it good" if tool else "not validated: no environment here has bpy"
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB; {judged})")


if __name__ == "__main__":
    main()
