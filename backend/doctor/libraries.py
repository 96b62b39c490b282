"""The libraries that compute, tried in a child process; run as a program, it is that child.

`python -m backend.doctor.libraries` prints one line of JSON: `failed` (module -> why it does not load), `ffmpeg` (the
libraries inside av), and `torch`: `version`, `cuda` and `hip` (what it was built for, or null), `device` (what it would
use), `cards` (name and bytes of each), `error` (why it does not compute there, or '').
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from ..server.process import REPO

MODULES = ("numpy", "scipy", "cv2", "av", "imageio", "PIL", "zmq", "trimesh", "zstandard", "pycolmap")
PATIENCE_S = 180.0


class Libraries:
    """The child, started now; what it said once it is asked for."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPO)

    @cached_property
    def told(self) -> dict[str, Any]:
        """What the child printed, or `failed` with one row for itself when it died or took too long."""
        try:
            said, errors = self._child.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.communicate()
            return _broken(f"they did not load within {PATIENCE_S:.0f} s")
        if self._child.returncode:
            last = errors.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"code {self._child.returncode}"]
            return _broken(f"loading them ended a process ({last[0][:300]})")
        return json.loads(said.splitlines()[-1])


def _broken(why: str) -> dict[str, Any]:
    return {"failed": {"libraries": why}, "ffmpeg": "", "torch": None}


def attempt() -> dict[str, Any]:
    """Load everything here and compute something small."""
    failed = {}
    for name in MODULES:
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = _sentence(error)
    try:
        torch = _torch()
    except Exception as error:
        failed["torch"], torch = _sentence(error), None
    return {"failed": failed, "ffmpeg": "" if "av" in failed else _ffmpeg(), "torch": torch}


def _ffmpeg() -> str:
    import av

    versions = {name: ".".join(map(str, v)) for name, v in av.library_versions.items()}
    return ", ".join(f"{name} {versions[name]}" for name in ("libavcodec", "libavformat") if name in versions)


def _torch() -> dict[str, Any] | None:
    """None when torch is not installed."""
    if find_spec("torch") is None:
        return None
    import torch

    cards = []
    device, error = "cuda" if torch.cuda.is_available() else "cpu", ""
    for n in range(torch.cuda.device_count() if device == "cuda" else 0):
        told = torch.cuda.get_device_properties(n)
        cards.append([told.name, told.total_memory])
    try:
        ones = torch.ones(64, 64, device=device)
        if float((ones @ ones).sum()) != 64**3:
            error = "it computes wrongly"
    except RuntimeError as failure:  # no kernel for this card, no memory left on it
        error = _sentence(failure)
    built = {"cuda": torch.version.cuda, "hip": getattr(torch.version, "hip", None)}
    return {"version": torch.__version__, **built, "device": device, "cards": cards, "error": error}


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]


if __name__ == "__main__":
    print(json.dumps(attempt()))
