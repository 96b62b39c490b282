"""What localising costs: constants fitted to stages of benchmarks/localise.py, for captures of that size."""

from __future__ import annotations

from ..cost import Cost, Footage
from ..machine import Machine
from ..mast3r.cost import CARD_CORES, LOAD_S
from ..wire import JobSettings, LocaliseSettings

#: Core seconds by stage: a constant, and for each frame, frame and compared frame, frame and grid Mpx.
STAGES = {
    "Reading the clip": (0.05, 0.01, 0.0, 0.0),
    "Looking at the capture": (1.5, 0.0, 0.0, 0.0),
    "Matching the plate": (0.0, 0.3, 0.05, 0.0),
    "Fitting the cameras": (0.0, 0.02, 0.0, 0.0),
    "Measuring depth": (0.0, 0.0, 0.0, 3.0),
    "Writing the capture": (0.0, 0.00449, 0.0, 0.333),
}
#: Bytes: a constant, and for each frame, and each frame and grid pixel.
MEMORY = (300e6, 2e6, 16.0)
START_S = 2.0
#: With the network: core seconds of a pair of pictures, and what network and pair take in memory.
PAIR_CORE_S, NETWORK_BYTES = 10.0, 4_000_000_000
#: How long it takes depends on the capture, which is not known here.
SPREAD = 3.0


def cost(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the settings cost."""
    options: LocaliseSettings = settings.engine_settings
    frames, grid = footage.frames, footage.megapixels(settings.clip.long_side)
    stages = {"Starting": START_S}
    for stage, (constant, frame, compared, pixels) in STAGES.items():
        stages[stage] = constant + frames * (frame + compared * options.compare + pixels * grid)
    constant, frame_bytes, pixel_bytes = MEMORY
    memory = int(constant + frames * (frame_bytes + pixel_bytes * 1e6 * grid))
    if options.matcher != "mast3r":
        return Cost(stages, SPREAD, memory)
    on_card = machine.gpu_free is not None
    stages["Loading the network"] = LOAD_S
    stages["Matching the plate"] = frames * options.compare * PAIR_CORE_S / (CARD_CORES if on_card else machine.cores)
    return Cost(
        stages,
        SPREAD,
        memory + (0 if on_card else NETWORK_BYTES),
        gpu_bytes=NETWORK_BYTES if on_card else None,
        weights=("mast3r",),
    )
