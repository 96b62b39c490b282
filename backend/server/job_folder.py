"""A job's folder: the log, which stays, the result, and what a worker needs meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .executor import Spec
from .job import Job
from .process import Outcome
from .trash import remove

LOG_NAME = "log.txt"
CAPTURE = "capture"
LIVE = "live"


def worker_spec(job: Job, folder: Path, cache: Path | None) -> Spec:
    """What worker.py is told of a job; `reference` is the capture that it refers to, in that job's folder."""
    reference = job.spec.get("refers_to")
    return {
        **job.spec,
        "reference": str(folder.parent / reference / CAPTURE) if reference else None,
        "out": str(folder / CAPTURE),
        "scratch": str(folder / "scratch"),
        "log": str(folder / LOG_NAME),
        "cache": str(cache) if cache else None,
        "live": str(folder / LIVE),
        "replace": True,
    }


def tidy(folder: Path, outcome: Outcome) -> None:
    """Remove what a worker leaves behind; not for the server's own thread, it may be much."""
    for path in besides(folder, (LOG_NAME, CAPTURE) if outcome.state == "done" else (LOG_NAME,)):
        remove(path)


def besides(folder: Path, keep: Sequence[str]) -> list[Path]:
    """What is in the folder, if it is there, but not what `keep` names."""
    return [path for path in folder.iterdir() if path.name not in keep] if folder.is_dir() else []


def has_files(folder: Path, files: Sequence[dict[str, Any]]) -> bool:
    """Whether a result is still on the disk, each of its files in its length."""
    try:
        return bool(files) and all((folder / CAPTURE / f["name"]).stat().st_size == f["size"] for f in files)
    except OSError:
        return False


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below the folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
