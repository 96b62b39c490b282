"""Measuring the scale at the end of a job: a capture that has none all the same is kept, and says why."""

from __future__ import annotations

from dataclasses import replace

from ..nets.weights import check_installed
from ..run import Run
from ..wire import Capture, JobSettings, UserError
from .cost import WEIGHTS, wants_scale


def check_scale(settings: JobSettings) -> None:
    """Raise UserError, before anything is done, when the scale is wanted and its weights are not here."""
    if wants_scale(settings):
        check_installed((WEIGHTS,))


def with_scale(capture: Capture, run: Run) -> Capture:
    """The capture with its scale, or with a warning that says why there is none; as it is if it is metric."""
    from .scale import measure_scale  # these load torch, which a job without a network does not need
    from .source import matching_network

    if capture.metric:
        return capture
    try:
        return replace(capture, scale=measure_scale(capture, matching_network(run), run))
    except UserError as error:
        warnings = (*capture.shot.warnings, f"The scale could not be measured: {error.message}")
        return replace(capture, shot=replace(capture.shot, warnings=warnings))
