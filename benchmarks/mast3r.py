"""What the MASt3R engine's parts cost on a device: the network, matching ours beside plain, aligning beside the original.

    python -m benchmarks.mast3r [--device cuda] [--size 512 384] [--precision fast] [--only network matching alignment]

The network has its published shape and random weights, so it costs what the published one costs. Matching and alignment
work on scenes whose truth is known, so that each line also tells what came of it. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch

from backend.nets.mast3r import MatchingConfig, MatchingNet
from tests.recipe import formula_state

from .network import HEADER, PRECISIONS, network_rows, table


def network(options: argparse.Namespace) -> None:
    """Time, memory and operations of a frame's encoding, and of a directed pair."""
    width, height = options.size
    precision = replace(PRECISIONS[options.precision], compiled=options.compiled)
    config = MatchingConfig()
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in MatchingNet(config).state_dict().items()}
    state = formula_state(shapes)
    stages = network_rows(
        options.device, precision, width, height, options.pairs, options.repeats, config, state, MatchingNet
    )
    how = f"{options.precision}{', compiled' if options.compiled else ''}, {options.pairs} at once"
    rate = f"a matrix product reaches {stages[0].matrix_rate / 1e12:.2f} TFLOP/s"
    table(f"The network on {where(options)}, {width} x {height}, {how}; {rate}", HEADER, (s.row() for s in stages))


def where(options: argparse.Namespace) -> str:
    """The device in words."""
    if "cuda" in options.device:
        return torch.cuda.get_device_name(options.device)
    return f"the CPU, {torch.get_num_threads()} threads"


#: What can be measured; to add a part, write a function that takes the options and prints a table.
PARTS = {"network": network}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", nargs=2, type=int, default=(512, 384), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--pairs", type=int, default=1, help="how many frames or pairs the network has at once")
    parser.add_argument("--precision", choices=PRECISIONS, default="exact")
    parser.add_argument("--compiled", action="store_true", help="blocks and heads through torch.compile")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    for part in options.only:
        PARTS[part](options)


if __name__ == "__main__":
    main()
