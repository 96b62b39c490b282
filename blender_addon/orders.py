"""Orders: what this computer asked of which backend, one small file each, so that jobs are found again."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import asdict, dataclass, fields
from typing import Any

from .wire import paths
from .wire.connection import write_private

log = logging.getLogger(__name__)

KEPT_S = 90 * 24 * 3600.0


@dataclass(frozen=True)
class KeptOrder:
    """What was asked in which scene of which file; paths are absolute. `settled`: its end was seen by a Blender."""

    job: str  # the backend's id
    backend: str  # its public key
    clip: str
    out: str
    blend: str
    scene: str
    settings: dict[str, Any]
    masks: str = ""
    replace: bool = False
    import_when_done: bool | None = None
    settled: bool = False


def keep(order: KeptOrder) -> None:
    """Keep an order, in place of an earlier one of the same job; a disk that takes nothing is only logged."""
    try:
        folder = paths.make_private(paths.orders_folder())
        write_private(folder / f"{order.job}.json", asdict(order))
    except Exception:
        log.warning("the order of job %s was not kept", order.job, exc_info=True)


def drop(job: str) -> None:
    """Forget the order of a job."""
    with contextlib.suppress(OSError):
        (paths.orders_folder() / f"{job}.json").unlink(missing_ok=True)


def kept(backend: str) -> dict[str, KeptOrder]:
    """The orders that a backend was given, by job; those of long ago are removed."""
    found: dict[str, KeptOrder] = {}
    for file in paths.orders_folder().glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            if time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()
                continue
            data = json.loads(file.read_text(encoding="utf-8"))
            order = KeptOrder(**{field.name: data[field.name] for field in fields(KeptOrder)})
            if order.backend == backend and order.job == file.stem:
                found[order.job] = order
    return found
