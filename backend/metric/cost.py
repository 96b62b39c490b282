"""Measuring the scale as a part of a job: whether its settings want it, and what it costs, without loading torch."""

from __future__ import annotations

from dataclasses import replace

from ..cost import Cost, Footage
from ..machine import Machine
from ..mast3r.cost import (
    CARD_CORES,
    CORES_USED,
    IMAGE_CORE_S,
    LOAD_S,
    NETWORK_BYTES,
    PAIR_CORE_S,
    PREDICTING_BYTES,
    PROCESS_BYTES,
)
from ..monst3r.preprocess import grid_for
from ..wire import JobSettings

#: The stage of a job, and the weights that it needs.
STAGE, WEIGHTS = "Measuring the scale", "mast3r"
#: Frames that are looked at unless told otherwise, and as many pairs of them; the long side of their pictures.
FRAMES, LONG_SIDE = 12, 512


def wants_scale(settings: JobSettings) -> bool:
    """Whether a job is to measure the scale of its capture."""
    return getattr(settings.engine_settings, "metric_scale", "none") != "none"


def with_scale_cost(cost: Cost, footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """The cost of a job with that of measuring its scale, where that is wanted; the two never hold memory at once."""
    if not wants_scale(settings):
        return cost
    width, height = grid_for((footage.width, footage.height), LONG_SIDE).size
    on_card = machine.gpu_free is not None
    speed = CARD_CORES if on_card else min(machine.cores, CORES_USED)
    core_s = FRAMES * (IMAGE_CORE_S + PAIR_CORE_S) * width * height / 1e6
    network = NETWORK_BYTES + PREDICTING_BYTES * width * height
    return replace(
        cost,
        stages={**cost.stages, STAGE: LOAD_S + core_s / speed},
        memory_bytes=max(cost.memory_bytes, PROCESS_BYTES + (0 if on_card else network)),
        gpu_bytes=max(cost.gpu_bytes or 0, network) if on_card else cost.gpu_bytes,
        weights=tuple(dict.fromkeys((*cost.weights, WEIGHTS))),
    )
