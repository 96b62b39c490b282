"""What the classical engine costs: constants fitted by benchmarks/estimate.py to stages of the demo clip."""

from __future__ import annotations

from ..clip import STORE_LONG_SIDE
from ..cost import Cost, Footage
from ..machine import Machine
from ..wire import ClassicalSettings, JobSettings

#: Core seconds by stage: a constant, and for each frame, frame and grid Mpx, frame and stored plate Mpx.
STAGES = {
    "Reading the clip": (0.045, 0.00519, 0.00279, 0.0),
    "Tracking points": (0.0, 0.0108, 0.0447, 0.0187),
    "Solving the camera": (0.0, 0.108, 0.0, 0.0951),
    "Optical flow": (0.0, 0.0, 1.14, 0.00807),
    "Finding movers": (0.0, 0.0, 0.616, 0.0),
    "Solving without movers": (0.504, 0.188, 0.717, 0.0961),
    "Measuring depth": (0.0, 0.0, 1.14, 0.0),
    "Filling": (0.0478, 0.0, 0.236, 0.0259),
    "Following movers": (0.0, 0.0, 0.688, 0.00315),
    "Writing the capture": (0.0, 0.00449, 0.333, 0.0288),
}
#: Stages that all cores work on, up to so many.
SHARED = ("Optical flow", "Finding movers", "Measuring depth", "Filling")
CORES_USED = 8
OF_MOVERS = ("Finding movers", "Following movers")
#: Bytes: a constant, and for each frame and grid pixel, and each frame and stored plate pixel.
MEMORY = (217e6, 88.1, 3.41)
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
        if stage in OF_MOVERS and not options.find_movers:
            continue
        core_s = constant + frames * (frame + frame_grid * grid + frame_plate * plate)
        stages[stage] = core_s / (min(machine.cores, CORES_USED) if stage in SHARED else 1)
    constant, grid_bytes, plate_bytes = MEMORY
    memory = constant + 1e6 * frames * (grid_bytes * grid + plate_bytes * plate)
    return Cost(stages, SPREAD, int(memory))
