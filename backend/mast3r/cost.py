"""What the settings of the MASt3R engine cost on a machine, without loading torch."""

from __future__ import annotations

from ..cost import Cost, Footage
from ..machine import Machine
from ..monst3r.preprocess import grid_for
from ..wire import JobSettings, MASt3RSettings
from .choices import pair_count, solved_frames

#: Core seconds on a processor, a million pixels: an image encoded once; a pair decoded both ways, with four heads; its
#: matches. Of one core of the machine of the README: 10.2 s, 28.6 s (benchmarks/mast3r.py --only network) and 2.5 s
#: (benchmarks/matching.py) at 512 x 384.
IMAGE_CORE_S, PAIR_CORE_S, MATCH_CORE_S = 52.0, 145.0, 13.0
#: The same a solved frame of the alignment, and of all that comes after it a frame.
ALIGN_CORE_S, FRAME_CORE_S = 12.0, 6.0
#: A card does this many times what one core does. It was not measured on any: the estimate says so by its width.
CARD_CORES, CARD_SPREAD, CORE_SPREAD = 600.0, 6.0, 2.5
LOAD_S = 18.0
#: More cores than this do not make the network faster by as much.
CORES_USED = 16
NETWORK_BYTES, PROCESS_BYTES = 2_754_600_000, 1_300_000_000
#: Bytes a pixel: what a pair needs while it is predicted and matched; what is kept of a solved frame; of any frame.
PREDICTING_BYTES, CANONICAL_BYTES, FRAME_BYTES = 4200, 52, 24


def weights_needed(options: MASt3RSettings) -> list[str]:
    """Names of the models that the settings use."""
    return ["mast3r"]


def cost(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the settings cost. Raises UserError for frames and sizes that the engine refuses."""
    options: MASt3RSettings = settings.engine_settings
    grid = grid_for((footage.width, footage.height), settings.clip.long_side)
    megapixels = grid.size[0] * grid.size[1] / 1e6
    # Whether it is a sequence is not known yet: the dearer of the two counts.
    sequences = [options.footage == "sequence"] if options.footage != "auto" else [True, False]
    keys = len(solved_frames(options, footage.times, sequences[0]))
    pairs = max(pair_count(options, keys, sequence) for sequence in sequences)
    on_card = machine.gpu_free is not None
    cores = min(machine.cores, CORES_USED)
    speed = CARD_CORES if on_card else cores
    core_s = keys * IMAGE_CORE_S + pairs * (PAIR_CORE_S + MATCH_CORE_S)
    held = keys * CANONICAL_BYTES + footage.frames * FRAME_BYTES
    network = NETWORK_BYTES + int(PREDICTING_BYTES * megapixels * 1e6)
    return Cost(
        stages={
            "Loading the network": LOAD_S,
            "Comparing images": core_s * megapixels / speed,
            "Aligning": keys * ALIGN_CORE_S * megapixels / cores,
            "Refining the camera": footage.frames * FRAME_CORE_S * megapixels / cores,
        },
        spread=CARD_SPREAD if on_card else CORE_SPREAD,
        memory_bytes=PROCESS_BYTES + int(held * megapixels * 1e6) + (0 if on_card else network),
        gpu_bytes=network if on_card else None,
        weights=tuple(weights_needed(options)),
    )
