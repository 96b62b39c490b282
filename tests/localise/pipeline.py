"""A pipeline for a server whose reconstructions are the true set, while plates are localised by the real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from backend import pipeline
from backend.export import CAPTURE_FILES
from backend.run import Run
from backend.wire import JobSettings, write_capture
from tests.localise.sets import reference as true_set


def reconstruct(source: Path, out: Path, settings: JobSettings, run: Run, **known) -> Path:
    """As `backend.pipeline.reconstruct`, without looking at the footage of a reconstruction."""
    if settings.engine == "localise":
        return pipeline.reconstruct(source, out, settings, run, **known)
    capture = true_set()[1]
    capture = replace(capture, clip=replace(capture.clip, source=str(source)), settings=settings.to_json())
    return write_capture(capture, out, CAPTURE_FILES, replace=known["replace_earlier"])
