"""Exporters: one file a format. `CAPTURE_FILES` are part of every capture, `FORMATS` are made from one on request."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..wire import Capture

#: Writers (capture, staging folder) -> what they add to capture.json, run for every capture.
CAPTURE_FILES: tuple[Callable[[Capture, Path], dict[str, Any] | None], ...] = ()

#: Format name -> writer (capture, folder) for `python -m backend export`.
FORMATS: dict[str, Callable[[Capture, Path], Any]] = {}
