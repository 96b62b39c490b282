"""Room: an engine that runs out of memory is run again at a lower resolution, which is told and stored.

Less at once comes first, where an engine can (nets/memory.py), and costs only time. This is the last step, and costs
detail: so it is an event of the job, a warning in the capture, and the resolution in the capture's settings.
"""

from __future__ import annotations

import gc
import logging
import sys
import traceback
from dataclasses import replace
from typing import Protocol

from .clip import Clip
from .ladder import NoRoom, whose_memory
from .machine import memory_free
from .run import Run
from .wire import Capture, JobSettings

log = logging.getLogger(__name__)

#: What each step leaves of the long side, to multiples of which it is rounded, and the least that is tried.
STEP, MULTIPLE, LEAST = 0.75, 16, 256


class _Engine(Protocol):
    def reconstruct(self, clip: Clip, settings: JobSettings, run: Run) -> Capture: ...


def reconstruct_in_room(engine: _Engine, clip: Clip, settings: JobSettings, run: Run) -> Capture:
    """The engine's capture at the resolution asked for, or the highest below it that fits, which is then warned of.

    A later job of as many frames as large, with as little memory free, begins there. Raises what the engine raises,
    and its NoRoom or error of memory when nothing fits.
    """
    asked = settings.clip.long_side
    width, height = clip.info.plate_size
    place = f"{settings.engine} on {run.device}: long side for {clip.frame_count} frames of {width}x{height}"
    free = _free(run)
    long_side = run.ladder.begin(place, asked, free) if run.ladder else asked
    if long_side < asked:
        run.retry(f"A job like this ran out of memory at {asked} pixels; going on with {long_side}")
    while True:
        lowered = replace(settings, clip=replace(settings.clip, long_side=long_side))
        capture, why = _attempt(engine, clip, lowered, run, last=_below(long_side) < LEAST)
        if capture is not None:
            break
        gc.collect()  # only here: until then the error's traceback kept its arrays alive
        run.retry(f"{why} at {long_side} pixels; going on with {_below(long_side)}")
        long_side = _below(long_side)
    if long_side == asked:
        return capture
    if run.ladder:
        run.ladder.keep(place, long_side, free)
    warning = f"Resolution was lowered from {asked} to {long_side} pixels, for which memory was enough"
    return replace(capture, shot=replace(capture.shot, warnings=(*capture.shot.warnings, warning)))


def _attempt(engine: _Engine, clip: Clip, settings: JobSettings, run: Run, last: bool) -> tuple[Capture | None, str]:
    """The capture, or why there is no room for it; when nothing lower is left to try, the error itself is raised."""
    try:
        return engine.reconstruct(clip, settings, run), ""
    except Exception as error:
        whose = whose_memory(error)
        if last or not (whose or isinstance(error, NoRoom)):
            raise
        log.info("%s", traceback.format_exc())
        return None, f"The memory of {whose} ran out" if whose else error.message


def _below(long_side: int) -> int:
    return int(long_side * STEP) // MULTIPLE * MULTIPLE


def _free(run: Run) -> int:
    """Bytes of memory that the job can have: the card's where torch is to use one."""
    if "torch" in sys.modules and run.device != "cpu":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.mem_get_info()[0]
    return memory_free()
