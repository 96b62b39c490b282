"""Runs the add-on's tests on Blenders beside the two LTS ones of the test command: python -m tests.blender_versions

    python -m tests.blender_versions                    Blender 5.0.1 and 5.1.1
    python -m tests.blender_versions 5.0.1 -- -k camera what follows goes to pytest

Each gets an environment of its own, .venv-bpy-<version>, made by the uv that install_deps.py brought, with the locked
packages of the backend and the tests and Blender's module from the registry. Prints a line of result for each and fails
when one does.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

from install_deps import choose_python

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".venv-tools" / ("Scripts" if os.name == "nt" else "bin")
VERSIONS = ("5.0.1", "5.1.1")
#: What depends on Blender.
TESTS = ("tests/scene", "tests/ui", "tests/test_extension.py")


def python_of(version: str) -> str:
    """The Python that Blender's module of this version is built for."""
    return "3.13" if tuple(map(int, version.split(".")[:2])) >= (5, 1) else "3.11"


def prepare(version: str) -> Path:
    """The Python of an environment with this Blender, made where it is not there. Raises CalledProcessError."""
    folder = ROOT / f".venv-bpy-{version}"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = folder / "KINORA_COMPLETE"
    files = [ROOT / "requirements" / f"{group}.txt" for group in ("backend", "test")]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return python
    uv = [TOOLS / "uv"]
    locks = [word for file in files for word in ("-r", file)]
    steps = (
        [*uv, "venv", "--clear", "--python", choose_python((python_of(version),))[0], folder],
        [*uv, "pip", "install", "--python", python, "--require-hashes", *locks],
        [*uv, "pip", "install", "--python", python, "--no-deps", f"bpy=={version}"],
    )
    for step in steps:
        subprocess.run([str(word) for word in step], check=True, cwd=ROOT, stdout=sys.stderr)
    done.write_text(wanted, encoding="utf-8")
    return python


def main(arguments: list[str]) -> int:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    versions, options = arguments[:at] or list(VERSIONS), arguments[at + 1 :]
    failed = False
    for version in versions:
        command = [str(prepare(version)), "-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", *TESTS, *options]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        lines = done.stdout.strip().splitlines()
        if done.returncode:
            print("\n".join(lines[-60:]), file=sys.stderr)
        counts = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|error)", line)), "no result")
        print(f"Blender {version}: {counts.strip('= ')}", flush=True)
        failed |= done.returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
