"""`scale`: how many metres the unit of a capture is, measured by MASt3R and noted in the capture."""

from __future__ import annotations

import argparse

from ..metric.cost import STAGE
from ..run import Progress, Run
from ..wire import MetricScale, UserError, read_capture
from .reconstruct import display

#: Fewest frames that give enough pairs to agree.
LEAST_FRAMES = 4


def scale(options: argparse.Namespace) -> int:
    """Measure the scale of a capture and record it; the exit code."""
    from ..metric.record import record_scale
    from ..metric.scale import check_wanted, measure_scale
    from ..metric.source import matching_network

    if options.frames < LEAST_FRAMES:
        raise UserError(f"{options.frames} frames are too few to agree", f"use --frames {LEAST_FRAMES} or more")
    capture = read_capture(options.capture)
    check_wanted(capture)
    with display() as show:

        def report(progress: Progress) -> None:
            show({"t": "progress", **vars(progress)})

        run = Run(report=report, device=options.device, plan=((STAGE, 1.0),))
        with run.stage(STAGE):
            found = measure_scale(capture, matching_network(run), run, options.frames)
    record_scale(capture.folder, found)
    print(summary(found))
    return 0


def summary(found: MetricScale) -> str:
    """What a user wants to know of a scale, one fact a line."""
    rows = (
        ("metres per unit", f"{found.metres_per_unit:.4g}"),
        ("95 % interval", f"{found.low:.4g} to {found.high:.4g}"),
        ("spread of one pair", f"{found.spread:.1%}"),
        ("pairs that agree", str(found.pairs)),
    )
    return "\n".join(f"{name:<20} {value}" for name, value in rows)
