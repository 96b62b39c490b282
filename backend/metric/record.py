"""A measured scale into the capture.json of a capture: no other file changes, and it is there whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from ..wire import MetricScale, UserError, flush
from ..wire import capture as capture_format


def record_scale(folder: Path, scale: MetricScale) -> None:
    """Write the scale into the capture in `folder`, in the place of an earlier one.

    Raises UserError when it cannot be written; then the capture is as it was.
    """
    path = folder / "capture.json"
    beside = folder / f".capture.json.partial-{os.getpid()}"
    info = capture_format.read_metadata(folder) | {"scale": asdict(scale)}
    try:
        beside.write_text(json.dumps(info, indent=1, allow_nan=False), encoding="utf-8")
        flush(beside)
        os.replace(beside, path)
        flush(folder)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UserError(
            f"The scale could not be written to {path} ({error.strerror})", "free some space, or allow writing there"
        ) from error
