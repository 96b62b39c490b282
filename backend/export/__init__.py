"""Exporters: one file a format. `CAPTURE_FILES` are part of every capture, `FORMATS` are made from one on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..wire import Capture
from .colmap import export_colmap
from .glb import add_scene, export_glb
from .images import add_images
from .output import Exported
from .ply import export_ply
from .trajectory import add_trajectory, export_tum

#: Writers (capture, staging folder) -> what they add to capture.json, run for every capture.
CAPTURE_FILES: tuple[Callable[[Capture, Path], dict[str, Any]], ...] = (add_images, add_trajectory, add_scene)

#: Format name -> writer (capture, folder) for `python -m backend export`; the folder appears whole or not at all.
FORMATS: dict[str, Callable[[Capture, Path], Exported]] = {
    "ply": export_ply,
    "colmap": export_colmap,
    "tum": export_tum,
    "glb": export_glb,
}

__all__ = ["CAPTURE_FILES", "FORMATS", "Exported"]
