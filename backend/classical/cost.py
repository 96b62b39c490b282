"""What the classical engine costs: constants fitted by benchmarks/estimate.py to stages of the demo clip."""

from __future__ import annotations

from ..clip import STORE_LONG_SIDE
from ..cost import Cost, Footage
from ..machine import Machine
from ..wire import ClassicalSettings, JobSettings

#: Core seconds by stage: a constant, and for each frame, frame and grid Mpx, frame and stored plate Mpx.
STAGES = {
    "Reading the clip": (0.0, 0.0095, 0.0, 0.0),
    "Tracking points": (0.0, 0.0129, 0.0, 0.0255),
    "Solving the camera": (0.0, 0.0955, 0.0, 0.109),
    "Optical flow": (0.0, 0.0, 1.1, 0.0129),
    "Finding movers": (0.0, 0.002, 0.621, 0.0),
    "Solving without movers": (0.0, 0.266, 0.872, 0.0),
    "Measuring depth": (0.0, 0.0, 1.1, 0.0),
    "Filling": (0.0, 0.0, 0.313, 0.022),
    "Writing the capture": (0.0, 0.0114, 0.353, 0.0),
}
#: Stages that all cores work on, up to so many.
SHARED, CORES_USED = ("Optical flow", "Finding movers", "Measuring depth", "Filling"), 8
#: Bytes: a constant, and for each frame and grid pixel, and each frame and stored plate pixel.
MEMORY = (218e6, 88.9, 3.7)
START_S = 2.0
#: Single stages are off by up to half in that fit, and other clips and processors differ more.
SPREAD = 1.9


def cost(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the settings cost."""
    options: ClassicalSettings = settings.engine_settings
    frames, grid = footage.frames, footage.megapixels(settings.clip.long_side)
    plate = footage.megapixels(max(STORE_LONG_SIDE, settings.clip.long_side))
    stages = {"Starting": START_S}
    for stage, (constant, frame, frame_grid, frame_plate) in STAGES.items():
        if stage == "Finding movers" and not options.find_movers:
            continue
        core_s = constant + frames * (frame + frame_grid * grid + frame_plate * plate)
        stages[stage] = core_s / (min(machine.cores, CORES_USED) if stage in SHARED else 1)
    constant, grid_bytes, plate_bytes = MEMORY
    memory = constant + 1e6 * frames * (grid_bytes * grid + plate_bytes * plate)
    return Cost(stages, SPREAD, int(memory))
