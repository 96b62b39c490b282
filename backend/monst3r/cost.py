"""What the MonST3R engine will do for some settings - pairs, weights - and what that costs, without loading torch."""

from __future__ import annotations

from ..align.graph import make_pairs
from ..cost import Cost, Footage
from ..machine import Machine
from ..wire import JobSettings, MonST3RSettings
from .pictures import key_frames
from .preprocess import SQUARE_SIZE, grid_for

#: Core seconds a pair and million pixels on a processor: 5.4 s at 512 x 288 on two cores (benchmarks/monst3r.py).
PAIR_CORE_S = 2 * 5.4 / 0.1475
#: The same for RAFT of 12 updates; and for the rest of the engine, a frame and million pixels.
FLOW_CORE_S, FRAME_CORE_S = 20.0, 8.0
#: A card does this many times what one core does. It was not measured on any: the estimate says so by its width.
CARD_CORES, CARD_SPREAD, CORE_SPREAD = 600.0, 6.0, 2.5
LOAD_S = 15.0
#: More cores than this do not make the network faster by as much.
CORES_USED = 16
NETWORK_BYTES, PROCESS_BYTES = 2_284_800_000, 1_200_000_000
#: Bytes a pixel: a pair's predictions and flow on the host; what a pair needs while it is predicted (nets/pairwise.py).
HELD_BYTES, PREDICTING_BYTES = 21 + 8, 2400
FRAME_BYTES = 40  # pictures, depth, confidence, scores, masks


def weights_needed(options: MonST3RSettings) -> list[str]:
    """Names of the models that the settings use."""
    if options.mode == "preview":
        return [options.model]
    flow = [options.flow] if options.flow.startswith("raft") else []
    masks = [options.refine_masks] if options.refine_masks != "none" else []
    return [options.model, *flow, *masks]


def graph_pairs(options: MonST3RSettings, frame_count: int) -> list[tuple[int, int]]:
    """The directed pairs of solved frames that the network is asked about, sorted.

    Both ways, whatever the original does: a camera needs pairs in which its frame comes first.
    """
    graph = options.scene_graph
    if graph not in ("complete", "oneref"):
        graph = f"{graph}-{options.neighbours}" + ("" if options.cyclic else "-noncyclic")
    found = make_pairs(graph, frame_count)
    return sorted({pair for i, j in found if i != j for pair in ((i, j), (j, i))})


def cost(footage: Footage, settings: JobSettings, machine: Machine) -> Cost:
    """What the settings cost. Raises UserError for frames and sizes that the engine refuses."""
    options: MonST3RSettings = settings.engine_settings
    square = options.model == "dust3r_224"
    grid = grid_for((footage.width, footage.height), SQUARE_SIZE if square else settings.clip.long_side, square=square)
    pixels = grid.size[0] * grid.size[1]
    if options.mode == "preview":
        keys = pairs = footage.frames
    else:
        keys = len(key_frames(footage.times, options))
        pairs = len(graph_pairs(options, keys))
    flows = pairs if options.mode == "full" and options.flow.startswith("raft") else 0
    pairs_core_s = pairs * PAIR_CORE_S * pixels / 1e6
    flows_core_s = flows * FLOW_CORE_S * options.flow_updates / 12 * pixels / 1e6
    rest_s = footage.frames * FRAME_CORE_S * pixels / 1e6 / min(machine.cores, CORES_USED)
    on_card = machine.gpu_free is not None
    speed = CARD_CORES if on_card else min(machine.cores, CORES_USED)
    windowed = min(1.0, options.window_frames / keys)
    held = int(pairs * windowed) * pixels * HELD_BYTES + footage.frames * pixels * FRAME_BYTES
    network = NETWORK_BYTES + PREDICTING_BYTES * pixels
    return Cost(
        stages={
            "Loading the network": LOAD_S,
            "Comparing frames": pairs_core_s / speed,
            "Optical flow": flows_core_s / speed,
            "Aligning": rest_s,  # and what comes after it
        },
        spread=CARD_SPREAD if on_card else CORE_SPREAD,
        memory_bytes=PROCESS_BYTES + held + (0 if on_card else network),
        gpu_bytes=network if on_card else None,
        weights=tuple(weights_needed(options)),
    )
