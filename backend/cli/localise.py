"""`localise`: a clip or an image is put into the world of a capture, in a worker as `reconstruct` has it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from ..footage import probe
from ..wire import UserError, read_capture
from .options import settings_of
from .reconstruct import carry_out


def localise(options: argparse.Namespace, worker_command: Sequence[str]) -> int:
    """Put a plate into a capture; the exit code."""
    settings = settings_of(options)
    read_capture(options.capture)
    if options.focal_px is not None:
        if settings.lens.focal_mm > 0 or options.intrinsics:
            raise UserError("The focal length is given twice", "give it in pixels or in millimetres or as intrinsics")
        if not options.focal_px > 0:
            raise UserError(f"A focal length of {options.focal_px:g} px is none", "give a positive number")
        width, _ = probe(options.clip, lone=True, still=options.still).plate_size
        focal_mm = options.focal_px / width * settings.lens.sensor_width_mm
        settings = replace(settings, lens=replace(settings.lens, focal_mm=focal_mm))
    if options.out is None:
        options.out = options.capture.absolute().parent / f"{options.clip.stem}_in_{options.capture.absolute().name}"
    return carry_out(options, settings, worker_command, reference=options.capture)
