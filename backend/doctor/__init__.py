"""What may be wrong with this machine, its backend and its data, found without importing anything that computes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from . import compute, disk, service, software
from .finding import Finding, note, ok, wrong
from .libraries import Libraries

__all__ = ["Finding", "examine", "note", "ok", "wrong"]

log = logging.getLogger(__name__)


def examine(home: Path, port: int = 0) -> Iterator[Finding]:
    """Everything that was found, topic by topic; `port` is one that the server is meant to listen on, if any.

    The libraries are tried by a child process, which takes some seconds; it works while the rest is looked at.
    """
    libraries = Libraries()
    for topic in (
        lambda: software.packages(libraries),
        lambda: compute.examine(libraries),
        lambda: disk.examine(home),
        software.weights,
        lambda: service.examine(home, port),
    ):
        try:
            yield from topic()
        except Exception as error:  # a finding of its own: the others are still wanted
            log.debug("a check failed", exc_info=True)
            yield wrong("doctor", f"a check failed ({type(error).__name__}: {error})", "this is a bug of Kinora's")
