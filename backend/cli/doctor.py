"""`doctor`: what the backend finds on this machine, one line each, read without importing anything heavy."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..machine import nvidia
from ..wire import Connection, UserError, paths

NEEDED = ("numpy", "opencv-python-headless", "pycolmap", "imageio", "av", "pyzmq", "trimesh")
OPTIONAL = ("torch", "torchvision")
LOW_DISK = 5 * 1024**3


def doctor(options: argparse.Namespace) -> int:
    """Print the findings; 1 when something that is needed is missing."""
    findings = list(examine(paths.home()))
    for good, name, text in findings:
        print(f"{'ok ' if good else '!! '} {name:<12} {text}")
    return 0 if all(good for good, _, _ in findings) else 1


def examine(home: Path) -> Iterator[tuple[bool, str, str]]:
    """Findings as (whether it is as it should be, what, in words)."""
    yield True, "kinora", f"{__version__} in {Path(__file__).resolve().parents[2]}"
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield (
        fits,
        "python",
        f"{platform.python_version()} at {sys.executable}" + ("" if fits else "; 3.11 to 3.13 is needed"),
    )
    found = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    for name in NEEDED:
        yield found[name] is not None, name, found[name] or "missing; run 'python3 install_deps.py backend'"
    extras = ", ".join(f"{name} {found[name]}" for name in OPTIONAL if found[name])
    yield True, "torch", extras or "not installed; the classical engine does not need it"
    yield True, "device", device()
    place = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(place).free
    yield free > LOW_DISK, "disk", f"{free / 1024**3:.1f} GiB free for {home}"
    yield True, "server", _server(home)


def device() -> str:
    """What this machine computes with, in words, without importing torch."""
    told = nvidia("name,memory.total")
    if told:
        return "; ".join(told.splitlines())[:200]
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "Apple silicon"
    return f"CPU, {os.cpu_count()} threads"


def _server(home: Path) -> str:
    try:
        connection = Connection.read(paths.connection_file(home))
    except UserError as error:
        return f"none ({error.message})"
    host, _, port = connection.address.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except (OSError, ValueError):
        return f"none; {paths.connection_file(home)} is left from one that was killed"
    return f"{connection.address}, process {connection.pid}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
