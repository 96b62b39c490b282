"""What the settings of the Point3R engine cost on a machine, without loading torch."""

from __future__ import annotations

from ..cost import Cost, Footage
from ..machine import Machine
from ..monst3r.cost import FLOW_CORE_S
from ..monst3r.preprocess import grid_for
from ..wire import JobSettings, Point3RSettings

#: Core seconds a frame and million pixels on a processor: of the network, of the path, of masks and the camera refined.
#: Of one core of the machine of the README: a first frame of 512 x 288, 432 pointers, takes 17.5 s; with 1500 pointers
#: there is a fifth more to calculate (facts sheet, section 13).
NETWORK_CORE_S, PATH_CORE_S, FRAME_CORE_S = 140.0, 4.0, 8.0
#: A card does this many times what one core does. It was not measured on any: the estimate says so by its width.
CARD_CORES, CARD_SPREAD, CORE_SPREAD = 600.0, 6.0, 2.5
LOAD_S = 20.0
#: More cores than this do not make the network faster by as much.
CORES_USED = 16
NETWORK_BYTES, PROCESS_BYTES = 3_312_000_000, 1_200_000_000
#: Bytes a pixel: what a frame needs while it passes; what is held of each frame, the rest being in files.
PASSING_BYTES, HELD_BYTES = 3500, 16
#: Flows a frame, where there are some.
FLOWS = 2


def weights_needed(options: Point3RSettings) -> list[str]:
    """Names of the models that the settings use."""
    flow = [options.flow] if options.find_movers and options.flow.startswith("raft") else []
    masks = [options.refine_masks] if options.refine_masks != "none" else []
    return ["point3r", *flow, *masks]


def cost(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the settings cost. Raises UserError for frames and sizes that the engine refuses."""
    options: Point3RSettings = settings.engine_settings
    grid = grid_for((footage.width, footage.height), settings.clip.long_side)
    pixels = grid.size[0] * grid.size[1]
    million = footage.frames * pixels / 1e6
    on_card = machine.gpu_free is not None
    cores = min(machine.cores, CORES_USED)
    speed = CARD_CORES if on_card else cores
    flows = FLOWS if options.find_movers and options.flow.startswith("raft") else 0
    network = NETWORK_BYTES + PASSING_BYTES * pixels
    return Cost(
        stages={
            "Loading the network": LOAD_S,
            "Passing the clip through": million * NETWORK_CORE_S / speed,
            "Refining the path": million * PATH_CORE_S / cores if options.refine_path else 0.0,
            "Masking movers": million * flows * FLOW_CORE_S * options.flow_updates / 12 / speed,
            "Refining the camera": million * FRAME_CORE_S / cores,  # and what else comes after the path
        },
        spread=CARD_SPREAD if on_card else CORE_SPREAD,
        memory_bytes=PROCESS_BYTES + footage.frames * pixels * HELD_BYTES + (0 if on_card else network),
        gpu_bytes=network if on_card else None,
        weights=tuple(weights_needed(options)),
    )
