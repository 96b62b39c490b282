"""The real pipeline with one thread: with several, pycolmap never gives the same to the last bit, wherever it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend import pipeline
from backend.run import Run
from backend.wire import JobSettings


def reconstruct(source: Path, out: Path, settings: JobSettings, run: Run, **options: Any) -> Path:
    """`backend.pipeline.reconstruct`."""
    run.threads = 1
    return pipeline.reconstruct(source, out, settings, run, **options)


def help_job(source: Path, settings: JobSettings, run: Run, **options: Any) -> None:
    """`backend.pipeline.help_job`."""
    run.threads = 1
    pipeline.help_job(source, settings, run, **options)
